"""AffectGPT on the generated world: what training brings, and what each side of a clip brings.

One set of the domain "target", which the nano AffectGPT's frozen parts have never seen, is dealt
out to the seeds: no clip belongs to two of them. For every seed both Q-Former branches are trained
on train clips and pictures, in an order of its own, to the last epoch, and its test clips are
described from all sides and from each alone. Comparisons are paired, over all seeds' test clips and
for each seed. The loss on val clips is recorded and chooses nothing.

Labels count as hit when any synonym of their cause is named (``world``: the groups that made the
set), and by the lexicon. Recall is also told by where a label's cause lies.

Everything is kept under ``--out``; a stopped study goes on when it is started again. Seeds may run
side by side: each with ``--only SEED``, then all together for the record.

Run:  python benchmarks/affectgpt_study.py --seeds 0 1 2 --json outputs/record/affectgpt_study.json
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emolib import scoring, sft
from emolib.datasets.clip import Clip
from emolib.datasets.demo import demo_root, open_demo, read_metadata, world
from emolib.files import read_json, write_json
from emolib.ledger import Ledger
from emolib.models.affectgpt.engine import AffectGPTEngine
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import DataParams, Decoding, ModelParams

FACTORS = ("core", "body", "setting", "voice", "words")
VIEWS = ("all", "video", "audio", "text")
MODEL = ModelParams(
    model="nano:affectgpt",
    device="cpu",
    dtype="float32",
    batch_size=64,
    decoding=Decoding(max_new_tokens=160),
)
PRESET, PICTURES = "paper", 0.25
GROUPINGS = ("world", "lexicon")


def main() -> None:
    """Run every seed, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--world-seed", type=int, default=1, help="of the set")
    parser.add_argument("--clips", type=int, default=1500, help="all seeds'; a fifth is for tests")
    parser.add_argument("--train", type=int, default=224, help="train clips a seed uses")
    parser.add_argument("--val", type=int, default=32, help="val clips a seed uses")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--only", type=int, default=None, help="run this seed and write no record")
    parser.add_argument("--out", type=Path, default=Path("outputs/affectgpt_study"))
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    if args.only is not None:
        one_seed(args.only, args)
        return
    found = [one_seed(seed, args) for seed in args.seeds]
    options = {k: v for k, v in vars(args).items() if k not in ("out", "json", "only")}
    words = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in options.items()
    )
    record = {
        "command": f"python benchmarks/affectgpt_study.py {words} --json {args.json}",
        "machine": {"cpus": os.cpu_count()},
        "model": "nano:affectgpt",
        "seeds": {str(one["seed"]): report([one]) | {"training": one["training"]} for one in found},
        "together": report(found),
    }
    write_json(args.json, record)
    print(args.json)


def one_seed(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and describe; kept in the seed's folder."""
    root = args.out / f"seed-{seed}"
    if (root / "result.json").is_file():
        return dict(read_json(root / "result.json"))
    root.mkdir(parents=True, exist_ok=True)
    data = DataParams(kind="demo", domain="target", clips=args.clips, seed=args.world_seed)
    place = args.seeds.index(seed)
    clips = open_demo(data, args.out)
    parts = {
        name: [clip for clip in clips if clip.split == name][place :: len(args.seeds)]
        for name in ("train", "val", "test")
    }
    chosen = [*parts["train"][: args.train], *parts["val"][: args.val], *parts["test"]]
    split = sft.split_dataset(chosen, root / "split.json")
    names = {clip.name for clip in split.train}
    shown = sft.open_pictures("", data, args.out, "study")
    pictures = [picture for picture in shown if picture.name.rpartition("@")[0] in names]
    recipe = SftParams(
        epochs=args.epochs,
        batch_size=16,
        learning_rate=args.rate,
        min_learning_rate=args.rate / 20,
        warmup_steps=8,
        max_grad_norm=1.0,
        gradient_checkpointing=False,
    )
    order = sft.plan(len(split.train), len(pictures), PICTURES, recipe, seed)
    trained = sft.train_branches(
        *(MODEL, recipe),
        [*sft.clip_rows(split.train, PRESET), *sft.picture_rows(pictures, seed)],
        order,
        root / "trainings",
        val=sft.clip_rows(split.val, PRESET),
        features=args.out / "features",
        seed=seed,
    )
    [final] = trained.choose("last")
    systems = {
        "before training": described(split.test, None, ("all",), root)["all"],
        **described(split.test, final.file, VIEWS, root),
    }
    meta = {row["name"]: row for row in read_metadata(demo_root(data, args.out))}
    found = {
        "seed": seed,
        "training": trained.to_json()
        | {"tested_epoch": final.epoch, "recipe": recipe.model_dump()},
        "gold": {clip.name: list(clip.labels) for clip in split.test},
        "by_factor": {clip.name: meta[clip.name]["labels_by_factor"] for clip in split.test},
        "systems": systems,
    }
    write_json(root / "result.json", found)
    return found


def described(
    clips: Sequence[Clip], branches: Path | None, views: Sequence[Any], root: Path
) -> dict[str, dict[str, list[str]]]:
    """View -> clip -> labels."""
    with (
        AffectGPTEngine(MODEL, "affectgpt", branches) as engine,
        Ledger(root / "answers.jsonl") as ledger,
    ):
        said = sft.describe(clips, engine, ledger, system="AffectGPT", views=views, preset=PRESET)
    return {view: {p.name: list(p.labels) for p in found} for view, found in said.items()}


def report(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores of every system, and paired comparisons with all sides together."""
    gold = _together(seeds, "gold")
    factors = _together(seeds, "by_factor")
    systems = {
        name: {
            f"{one['seed']}/{clip}": labels
            for one in seeds
            for clip, labels in one["systems"][name].items()
        }
        for name in seeds[0]["systems"]
    }
    told: dict[str, Any] = {"n": len(gold)}
    for grouping in GROUPINGS:
        scores = {
            name: scoring.score(_gold(gold, grouping), _gold(labels, grouping), _groups(grouping))
            for name, labels in systems.items()
        }
        told[grouping] = {
            "scores": {name: score.to_json() for name, score in scores.items()},
            "all minus": {
                name: scoring.compare(scores["all"], score).to_json()
                for name, score in scores.items()
                if name != "all"
            },
        }
    told["recall by cause"] = {
        name: {factor: _recall(labels, factors, factor) for factor in FACTORS}
        | {"core, mild or strong": _recall(labels, factors, "core", degrees=False)}
        for name, labels in systems.items()
    }
    return told


def _together(seeds: Sequence[Mapping[str, Any]], field: str) -> dict[str, Any]:
    return {f"{one['seed']}/{name}": value for one in seeds for name, value in one[field].items()}


def _gold(labels: Mapping[str, Sequence[str]], grouping: str) -> dict[str, list[str]]:
    """Labels as they are scored: by the world's own groups each word stands for its cause."""
    if grouping != "world":
        return {name: list(words) for name, words in labels.items()}
    return {
        name: list(dict.fromkeys(world.CAUSE.get(word, word) for word in words))
        for name, words in labels.items()
    }


def _groups(grouping: str) -> Any:
    return scoring.open_grouping("exact" if grouping == "world" else grouping, None, None)


def _recall(
    labels: Mapping[str, Sequence[str]],
    factors: Mapping[str, Mapping[str, Any]],
    factor: str,
    degrees: bool = True,
) -> dict[str, float]:
    """Share of a factor's causes that are named, and of how many; ``degrees``: mild or strong."""

    def causes(words: Sequence[str]) -> set[str]:
        found = {world.CAUSE.get(word, word) for word in words}
        return (
            found if degrees else {c.removesuffix(".mild").removesuffix(".strong") for c in found}
        )

    hits = [
        bool(wanted & causes(labels[name]))
        for name, told in factors.items()
        if (wanted := causes(told.get(factor, ())))
    ]
    return {"n": len(hits), "recall": round(sum(hits) / max(1, len(hits)), 4)}


if __name__ == "__main__":
    main()
