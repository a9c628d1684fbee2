"""The paper's experiments on the generated world, with the nano models, over several seeds.

For every seed a set of the domain "target" is drawn, which the nano InternVL has never seen (the
two captioners learned from other clips of that domain's train split). Its train clips are
captioned by both and judged by the InternVL; two LoRAs of the InternVL are trained with equal
steps, one on pairs the judge kept, one on as many unjudged captions. On its test clips:
zero-shot, both fine-tuned models, and the zero-shot model on face crops. Fusion is out of fold.
Every comparison is paired over all seeds' test clips, and given for each seed; every system is
also compared with the best constant lists.

Labels are also scored by where their cause lies: ``inside`` the face (the core emotion),
``outside`` it (posture, surroundings) and in the ``words``: recall of these labels alone. The
same people live in the test split of every seed, so clips are not quite independent.

Everything is kept under ``--out``; a stopped study goes on when it is started again, and
``--seeds`` may grow later.

Run:  python benchmarks/world_study.py --seeds 0 1 2 --json outputs/record/world_study.json
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emolib import captioning, filtering, fusion, nano, predict, scoring, selection, training
from emolib.datasets.clip import Clip
from emolib.datasets.demo import demo_root, open_demo, read_metadata, world
from emolib.engines import open_engine
from emolib.files import read_json, read_jsonl, write_json, write_jsonl
from emolib.ledger import Ledger
from emolib.media.store import FrameStore
from emolib.params.media import FaceParams
from emolib.params.schemas import DataParams, Decoding, ModelParams
from emolib.params.training import LoraParams

Labels = dict[str, list[str]]
FACTORS = {"inside": ("core",), "outside": ("body", "setting"), "words": ("words",)}
QUESTIONS = (
    ("fine-tuned, filtered", "zero-shot"),
    ("fine-tuned, unfiltered", "zero-shot"),
    ("fine-tuned, filtered", "fine-tuned, unfiltered"),
    ("zero-shot", "zero-shot, face crop"),
    ("our fusion", "concat"),
    ("our fusion", "fine-tuned, filtered"),
)
CAPTIONERS = ("llava", "teacher")
THRESHOLD = 0.9
RESAMPLES = 10_000


def nano_model(name: str, batch: int) -> ModelParams:
    return ModelParams(
        model=f"{nano.PREFIX}{name}",
        device="cpu",
        dtype="float32",
        batch_size=batch,
        decoding=Decoding(max_new_tokens=80),
    )


def one_seed(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Predictions and gold of one seed; kept in its folder."""
    root = args.out / f"seed-{seed}"
    result = root / "result.json"
    if result.is_file():
        return dict(read_json(result))
    data = DataParams(kind="demo", domain="target", clips=args.clips, seed=100 + seed)
    train, test = (
        open_demo(data.model_copy(update={"split": split}), args.out) for split in ("train", "test")
    )
    internvl = nano_model("internvl", args.batch)
    rows = training_rows(train, root, seed, args)
    lora = LoraParams(
        steps=args.steps,
        batch_size=8,
        learning_rate=args.rate,
        save_steps=args.steps,
        seed=seed,
        freeze_vit=False,
        freeze_aligner=False,
        gradient_checkpointing=False,
    )
    adapters = {
        name: training.train_lora(internvl, lora, file, root / "trainings").adapter
        for name, file in rows["files"].items()
    }
    face = FaceParams(size=224)
    systems = {"zero-shot": asked(test, internvl, root, seed)}
    systems["zero-shot, face crop"] = asked(test, internvl, root, seed, face=face)
    for name, adapter in adapters.items():
        systems[f"fine-tuned, {name}"] = asked(test, internvl, root, seed, adapter=adapter)
    meta = {row["name"]: row for row in read_metadata(demo_root(data, args.out))}
    found = {
        "seed": seed,
        "train_clips": len(train),
        "test_clips": len(test),
        "pairs": rows["counts"],
        "gold": {clip.name: list(clip.labels) for clip in test},
        "group": {clip.name: clip.group for clip in test},
        "by_factor": {clip.name: meta[clip.name]["labels_by_factor"] for clip in test},
        "systems": systems,
    }
    write_json(result, found)
    return found


def training_rows(
    train: Sequence[Clip], root: Path, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Caption one frame of every train clip, judge, and write kept and unjudged rows."""
    store = FrameStore(root / "images")
    with Ledger(root / "images.jsonl") as ledger:
        images, _ = captioning.extract_images(train, store, ledger, frames=args.frames, seed=seed)
    models = {name: nano_model(name, args.batch) for name in CAPTIONERS}
    student = nano_model("internvl", args.batch)
    captions = captioning.caption_by_all(
        images, list(models), models, root / "captions.jsonl", cache=args.out / "models"
    )
    pairs = filtering.make_pairs(captions)
    with (
        open_engine(student, name="internvl", cache=args.out / "models") as engine,
        Ledger(root / "similarity.jsonl") as ledger,
    ):
        judged = filtering.judge(pairs, engine, ledger)
    kept = selection.keep(judged, threshold=THRESHOLD, max_pairs=0, seed=seed)
    # as many rows, drawn from all pairs as if each had been kept
    free = selection.keep(
        [filtering.Pair(p.clip, p.index, p.image, p.models, p.texts, 1.0) for p in judged],
        threshold=0.0,
        max_pairs=len(kept),
        seed=seed,
    )
    files = {"filtered": root / "filtered.jsonl", "unfiltered": root / "unfiltered.jsonl"}
    for file, chosen in zip(files.values(), (kept, free), strict=True):
        if not file.is_file():
            write_jsonl(file, chosen)
    counts = {"judged": len(judged), "kept": len(list(read_jsonl(files["filtered"])))}
    return {"files": files, "counts": counts}


def asked(
    test: Sequence[Clip],
    model: ModelParams,
    root: Path,
    seed: int,
    *,
    face: FaceParams | None = None,
    adapter: Path | None = None,
) -> Labels:
    adapters = [adapter] if adapter else []
    with (
        open_engine(model, name="internvl", adapters=adapters) as engine,
        Ledger(root / "predict.jsonl") as ledger,
    ):
        made = predict.predict(
            test,
            engine,
            ledger,
            system=f"{adapter.parent.name if adapter else 'zero-shot'}{', face' if face else ''}",
            seed=seed,
            view="face" if face else "whole",
            face=face,
        )
    return {p.name: list(p.labels) for p in made}


def fused(found: Mapping[str, Any]) -> dict[str, Labels]:
    """Concat and our fusion of zero-shot, fine-tuned and face crop; ours out of fold."""
    names = ("zero-shot", "fine-tuned, filtered", "zero-shot, face crop")
    systems = {name: found["systems"][name] for name in names}
    ours = fusion.cross_predict(
        found["gold"],
        systems,
        grouping=scoring.open_grouping("lexicon", None, None),
        blocks=found["group"],
        seed=found["seed"],
    )
    return {"concat": fusion.concat(list(systems.values())), "our fusion": ours.labels}


def pooled(seeds: Sequence[Mapping[str, Any]], key: str) -> Labels:
    return {
        f"{found['seed']}/{name}": list(labels)
        for found in seeds
        for name, labels in found["systems"][key].items()
    }


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Score every system and answer every question, for each seed and over all."""
    grouping = scoring.open_grouping("lexicon", None, None)
    options: dict[str, Any] = {"resamples": RESAMPLES, "seed": 0}
    names = list(seeds[0]["systems"])
    gold = {f"{f['seed']}/{n}": labels for f in seeds for n, labels in f["gold"].items()}
    factor = {f"{f['seed']}/{n}": by for f in seeds for n, by in f["by_factor"].items()}
    labels = {name: pooled(seeds, name) for name in names}
    scores = {name: scoring.score(gold, rows, grouping, **options) for name, rows in labels.items()}
    answers: dict[str, Any] = {}
    for a, b in QUESTIONS:
        answer: dict[str, Any] = {"all": scoring.compare(scores[a], scores[b], seed=0).to_json()}
        for part, factors in FACTORS.items():
            some = {
                clip: [word for f in factors for word in by.get(f, ())]
                for clip, by in factor.items()
                if any(by.get(f) for f in factors)
            }
            pair = [
                scoring.score(some, {c: labels[k][c] for c in some}, grouping, **options)
                for k in (a, b)
            ]
            answer[part] = scoring.compare(*pair, seed=0).to_json()
        answer["seeds"] = {}
        for found in seeds:
            own = [
                scoring.score(
                    found["gold"],
                    {clip: labels[k][f"{found['seed']}/{clip}"] for clip in found["gold"]},
                    grouping,
                    **options,
                )
                for k in (a, b)
            ]
            answer["seeds"][str(found["seed"])] = scoring.compare(*own, seed=0).to_json()
        answers[f"{a} - {b}"] = answer
    return {
        "scores": {name: score.to_json() for name, score in scores.items()},
        "differences": answers,
        "against_constant_lists": {
            name: {k: c.to_json() for k, c in scoring.against_constants(score, seed=0).items()}
            for name, score in scores.items()
        },
    }


def stems(words: Iterable[str]) -> set[str]:
    """Causes of words, a core's degree left aside."""
    concepts = {world.CAUSE[word] for word in words if word in world.CAUSE}
    return {c.rpartition(".")[0] if c.startswith("core.") else c for c in concepts}


def count_causes(pairs: Iterable[tuple[Iterable[str], Iterable[str]]]) -> dict[str, Any]:
    """Causes by factor over (gold words, said words): how many are there, said, and right."""
    found = {f: {"there": 0, "said": 0, "right": 0} for f in world.FACTORS}
    for gold, said in pairs:
        there, named = stems(gold), stems(said)
        for kind, some in (("there", there), ("said", named), ("right", there & named)):
            for cause in some:
                found[cause.partition(".")[0]][kind] += 1
    return found


def causes(seeds: Sequence[Mapping[str, Any]], out: Path, clips: int) -> dict[str, Any]:
    """Count causes in every system's answers and in both sets of training rows."""
    systems = {
        name: count_causes(
            (found["gold"][clip], said)
            for found in seeds
            for clip, said in found["systems"][name].items()
        )
        for name in seeds[0]["systems"]
    }
    rows: dict[str, list[tuple[list[str], list[str]]]] = {"filtered": [], "unfiltered": []}
    for found in seeds:
        data = DataParams(kind="demo", domain="target", clips=clips, seed=100 + found["seed"])
        gold = {row["name"]: row["labels"] for row in read_metadata(demo_root(data, out))}
        for name, pairs in rows.items():
            for row in read_jsonl(out / f"seed-{found['seed']}" / f"{name}.jsonl"):
                # the last sentence names the emotions
                end = row["messages"][1]["content"].rstrip(".").rpartition(".")[2]
                pairs.append((gold[row["provenance"]["clip"]], re.findall(r"[\w-]+", end)))
    return {"systems": systems, "rows": {k: count_causes(v) for k, v in rows.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=560, help="a fifth of them are test clips")
    parser.add_argument("--frames", type=int, default=1, help="captioned frames a train clip")
    parser.add_argument("--steps", type=int, default=80, help="of each LoRA")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("outputs/world_study"))
    parser.add_argument("--json", type=Path, default=Path("outputs/record/world_study.json"))
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    seeds = [one_seed(seed, args) for seed in args.seeds]
    for found in seeds:
        found["systems"] |= fused(found)
    options = " ".join(
        f"--{name} {' '.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in vars(args).items()
        if name not in ("out", "json")
    )
    made = {
        "command": f"python benchmarks/world_study.py {options}",
        "models": {name: nano.card(name)["files"]["model.safetensors"] for name in nano.names()},
        "seeds": [
            {k: found[k] for k in ("seed", "train_clips", "test_clips", "pairs")} for found in seeds
        ],
        **summary(seeds),
        "causes": causes(seeds, args.out, args.clips),
    }
    write_json(args.json, made)
    for name, found in made["against_constant_lists"].items():
        for kind, gap in found.items():
            shown = ", ".join(
                f"{m} {gap['difference'][m]:+.3f} p {gap['p_permutation'][m]:.4f}"
                for m in ("avg", "f1")
            )
            print(f"{name} - constant list, {kind}: {shown}")
    for question, answer in made["differences"].items():
        for part in ("all", *FACTORS):
            metric = "f1" if part == "all" else "recall"
            difference = answer[part]
            print(
                f"{question} ({part}, {metric}): {difference['difference'][metric]:+.3f} "
                f"{difference['ci95'][metric]}, p {difference['p_permutation'][metric]:.4f}"
            )


if __name__ == "__main__":
    main()
