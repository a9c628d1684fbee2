"""Co-judgment on real labels: is there a better fusion than gluing lists together?

Clips and gold: the 332 of MER2024-OV. Sources, all real:

* ``sample``: the predictions released with the official toolkit;
* ``text``: the most likely of the five classes that occur in the set (angry, happy, sad,
  worried, surprised), by a character n-gram model of the Chinese subtitles, trained on
  MER2023 clips outside all sets used here and with other words than theirs;
* ``six_class``: the labels and probabilities of ``benchmarks/text_emotion.py``, the six-class
  model trained on all 5,030 clips but the fold's, out of fold. Its models have seen the
  classes of *other* test clips (as in all stacking), which ``text``'s have not;
* ``description``: words extracted from the human descriptions (EMER v2). **Circular**: the
  gold labels were taken from these descriptions. Reported apart, beside ``sample`` and
  ``six_class``; no result without it uses it;
* six MLLMs' descriptions of 100 clips (EMER v1), beside ``six_class``. The gold there is what we
  extract from the last sentence of the reference; 39 of them also have official gold labels:
  there the fuser of the other 61 is tried (no ``sample``, which these lack), and a nested one
  of all eight systems.

Strategies that learn (vote, fused) are fitted by nested cross-validation: ten outer folds, all
choices made on inner folds, clips with the same words in the same fold. Features and settings
were worked out on one half of the clips; ``held_out`` is the other (first byte of the SHA-256
of the name is odd). The first of the strategies is the one that was chosen there.
Groups: the lexicon, by which the fusion counts too; the official wheels and
equal spelling, of which it knows nothing; and the released GPT-3.5 answers, in which labels
the answers do not hold join the group of their lexicon synonyms.

Run:  python benchmarks/text_emotion.py --data DIR/mer2023_text --out OTHER --predictions SIX
      python benchmarks/fusion_study.py --data DIR --six-class SIX --out FILE
      DIR: mer2024_ov, emer, mer2023_text, mllm_outputs and wheels/2026
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from emolib import fusion, scoring
from emolib.extraction import emotion_words
from emolib.files import read_jsonl, write_json
from emolib.labels import normalise
from emolib.scoring import lexicon
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.files import read_labels

Labels = Mapping[str, Sequence[str]]
WORDS = {
    "angry": "angry",
    "happy": "happy",
    "sad": "sad",
    "worried": "worried",
    "surprise": "surprised",
    "neutral": "neutral",
}
CLASSES_ZH = {
    "生气": "angry",
    "高兴": "happy",
    "担忧": "worried",
    "悲伤": "sad",
    "惊讶": "surprised",
}
MLLMS = ("pandagpt", "valley", "videochat-emb", "videochat-text", "videochatgpt", "videollama")
METRICS = ("accuracy", "recall", "avg", "f1", "labels_per_clip")
TESTED = ("avg", "f1")
RESAMPLES = 10_000
REPEATS = 10
OUTER = 10
MAIN = "fused for F1, 5 added"
AGAINST = ("concat", MAIN)  # also compared with the best constant lists
SHOWN = ("concat", "majority", "fused", "fused, 5 added", MAIN)  # beyond the lexicon
STRATEGIES = {
    MAIN: fusion.FusionSettings(objective="f1", add=5),
    "fused": fusion.FusionSettings(),
    "fused for F1": fusion.FusionSettings(objective="f1"),
    "fused for clip F1": fusion.FusionSettings(objective="clip_f1"),
    "fused, at most 2": fusion.FusionSettings(cap=2),
    "fused, 5 added": fusion.FusionSettings(add=5),
    "fused, 8 added": fusion.FusionSettings(add=8),
}


each: Callable[..., Iterable[Any]] = map  # over several processes with --jobs


COMMAND = (
    "python benchmarks/fusion_study.py --data data --six-class six_class.jsonl "
    "--out outputs/record/fusion_study.json (six_class.jsonl: python "
    "benchmarks/text_emotion.py --data data/mer2023_text --out text_emotion.json "
    "--predictions six_class.jsonl)"
)


def held_out(clip: str) -> bool:
    """The half on which nothing was worked out: decided by the clip's name alone."""
    return hashlib.sha256(clip.encode()).digest()[0] % 2 == 1


def table(path: Path, key: str) -> dict[str, dict[str, str]]:
    """Rows of a CSV by name."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


@dataclass
class Study:
    """One set of clips, its gold and its sources."""

    gold: Labels
    sources: dict[str, Labels]
    confidences: dict[str, dict[str, dict[str, float]]]
    blocks: dict[str, str]
    strategies: Mapping[str, fusion.FusionSettings] = field(default_factory=lambda: STRATEGIES)

    def fused(
        self, settings: fusion.FusionSettings, seed: int = 0, sure: bool = True
    ) -> fusion.CrossFusion:
        """Our fusion by nested cross-validation."""
        return fusion.cross_predict(
            self.gold,
            self.sources,
            self.confidences if sure else None,
            settings=settings,
            blocks=self.blocks,
            outer=OUTER,
            seed=seed,
        )

    def voted(self, fold_of: Mapping[str, int]) -> dict[str, list[str]]:
        """The fitted vote, on the same outer folds."""
        found: dict[str, list[str]] = {}
        for k in sorted(set(fold_of.values())):
            train = {c: self.gold[c] for c in self.gold if fold_of[c] != k}
            vote = fusion.fit_vote(train, self.sources)
            test = [c for c in self.gold if fold_of[c] == k]
            found |= vote.predict({s: {c: x[c] for c in test} for s, x in self.sources.items()})
        return {c: found[c] for c in self.gold}

    def systems(self) -> tuple[dict[str, Labels], fusion.CrossFusion]:
        """Every source and strategy."""
        rows: dict[str, Labels] = {f"source: {s}": x for s, x in self.sources.items()}
        rows["concat"] = fusion.concat(list(self.sources.values()))
        rows["union of groups"] = fusion.union(self.sources)
        rows["majority"] = fusion.majority(self.sources)
        names = list(self.strategies)
        runs = dict(zip(names, each(self.fused, self.strategies.values()), strict=True))
        rows["fitted vote"] = self.voted(runs[MAIN].fold_of)
        rows |= {name: run.labels for name, run in runs.items()}
        if self.confidences:
            rows[f"{MAIN}, labels only"] = self.fused(self.strategies[MAIN], sure=False).labels
        return rows, runs[MAIN]


def rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: [round(x, 4) for x in v] if isinstance(v, list) else round(v, 4)
        for k, v in values.items()
        if k in METRICS
    }


def compared(
    gold: Labels, systems: Mapping[str, Labels], grouping: Any, clips: Sequence[str] | None = None
) -> dict[str, Any]:
    """Scores of all systems, and every one but the sources against ``concat``."""
    clips = list(gold) if clips is None else clips
    part = {s: {c: rows[c] for c in clips} for s, rows in systems.items()}
    true = {c: gold[c] for c in clips}
    scores = {s: scoring.score(true, x, grouping, resamples=RESAMPLES) for s, x in part.items()}
    rows: dict[str, Any] = {}
    for name, score in scores.items():
        rows[name] = rounded({m: getattr(score, m) for m in METRICS})
        rows[name]["ci95_avg"] = [round(x, 4) for x in score.ci95["avg"]]
        if name != "concat":
            paired = scoring.compare(score, scores["concat"], resamples=RESAMPLES)
            rows[name]["minus_concat"] = {
                "difference": rounded(paired.difference),
                "ci95": rounded({m: paired.ci95[m] for m in TESTED}),
                "p": rounded({m: paired.p_permutation[m] for m in TESTED}),
            }
        if name in AGAINST:
            rows[name]["minus_constant_lists"] = {
                which: {
                    "difference": rounded({m: found.difference[m] for m in TESTED}),
                    "ci95": rounded({m: found.ci95[m] for m in TESTED}),
                    "p": rounded({m: found.p_permutation[m] for m in TESTED}),
                }
                for which, found in scoring.against_constants(score, resamples=RESAMPLES).items()
            }
    constant = scores["concat"].constant_list
    keys = ("accuracy", "recall", "avg", "f1")
    return {
        "n": len(clips),
        "grouping": scores["concat"].grouping,
        "systems": rows,
        "best_constant_list": rounded({k: constant[k] for k in keys})
        | {"labels": len(constant["labels"])},
        "best_constant_list_of_concat_length": rounded(
            {k: constant["same_length"][k] for k in keys}
        ),
        "best_constant_list_for_f1": rounded({k: constant["best_f1"][k] for k in keys})
        | {"labels": len(constant["best_f1"]["labels"])},
    }


def repeats(study: Study, concat: Labels, grouping: Any) -> dict[str, Any]:
    """The lead over concat under other outer folds."""
    base = scoring.score(study.gold, concat, grouping, resamples=0)
    leads = []
    for run in each(partial(study.fused, STRATEGIES[MAIN]), range(REPEATS)):
        score = scoring.score(study.gold, run.labels, grouping, resamples=0)
        leads.append([score.avg - base.avg, score.f1 - base.f1])
    mean, low = np.mean(leads, axis=0), np.min(leads, axis=0)
    return {
        "partitions": REPEATS,
        "lead_avg": {"mean": round(float(mean[0]), 4), "lowest": round(float(low[0]), 4)},
        "lead_f1": {"mean": round(float(mean[1]), 4), "lowest": round(float(low[1]), 4)},
    }


def calibration(study: Study, run: fusion.CrossFusion) -> dict[str, Any]:
    """How far the out-of-fold probabilities can be trusted."""
    group_of = fusion.GroupOf()
    pairs = [
        (v.probability, float(v.group in group_of.set_of(study.gold[clip])))
        for clip, verdicts in run.verdicts.items()
        for v in verdicts
    ]
    p, y = np.array(pairs).T
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [abs(p[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    rate = y.mean()
    return {
        "candidates": len(p),
        "right": round(float(rate), 4),
        "expected_calibration_error": round(float(sum(gaps)), 4),
        "brier": round(float(((p - y) ** 2).mean()), 4),
        "brier_of_the_base_rate": round(float(rate * (1 - rate)), 4),
    }


def weights(run: fusion.CrossFusion) -> dict[str, Any]:
    """Weights on standardised features, mean over the outer fusers."""
    models = [f.views[0].model for f in run.fusers]
    table = np.array([model.weights for model in models])
    return {
        "features": {
            n: round(float(w), 3)
            for n, w in zip(models[0].features, table.mean(axis=0), strict=True)
        },
        "penalties": dict(Counter(str(model.penalty) for model in models)),
        "precision_weights": [f.precision_weight for f in run.fusers],
    }


def complete(cached: CachedGrouping, clips: Sequence[str], systems: Sequence[Labels]) -> Any:
    """The released groups, with labels they do not hold put beside their lexicon synonyms."""
    answers, added, total = {}, 0, 0
    for clip in clips:
        groups: dict[str, list[str]] = {}
        for label, first in cached.partition(clip).items():
            groups.setdefault(first, []).append(label)
        home = {x: g for g, labels in groups.items() for y in labels for x in (y, normalise(y))}
        for label in sorted({x.lower() for rows in systems for x in rows[clip]}):
            total += 1
            if label not in home:
                added += 1
                kin = lexicon.find(label).group
                same = Counter(g for x, g in home.items() if lexicon.find(x).group == kin)
                home[label] = max(sorted(same), key=lambda g, s=same: s[g]) if same else label
        final: dict[str, list[str]] = {}
        for label, group in home.items():
            final.setdefault(group, []).append(label)
        answers[clip] = list(final.values())
    return CachedGrouping(answers), round(added / total, 4)


def text_model(
    data: Path, wanted: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, dict[str, float]], dict[str, str], dict[str, Any]]:
    """Labels and class probabilities from subtitles, of clips the model never saw."""
    words = {
        n: row["chinese"].strip()
        for n, row in table(data / "mer2023_text/transcription-engchi-polish.csv", "name").items()
    }
    emotion = {
        n: row["emo"] for n, row in table(data / "mer2023_text/label-6way.csv", "name").items()
    }
    taken = {words[n] for n in wanted}
    train = [n for n in emotion if n not in set(wanted) and words[n] and words[n] not in taken]
    x, y = [words[n] for n in train], [emotion[n] for n in train]
    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True),
        LogisticRegression(C=2.0, max_iter=2000),
    )
    guess = cross_val_predict(model, x, y, cv=5)
    model.fit(x, y)
    names = [str(c) for c in model.classes_]
    shares = Counter(y)
    prior = np.array([shares[c] / len(y) for c in names])
    spoken = [words[n] for n in wanted]
    p = np.where(
        np.array([bool(s) for s in spoken])[:, None], model.predict_proba(spoken), prior[None]
    )
    six = p.argmax(axis=1)
    p[:, names.index("neutral")] = 0
    p /= p.sum(axis=1, keepdims=True)
    labels = {n: [WORDS[names[i]]] for n, i in zip(wanted, p.argmax(axis=1), strict=True)}
    sure = {
        n: {WORDS[c]: float(v) for c, v in zip(names, row, strict=True) if c != "neutral"}
        for n, row in zip(wanted, p, strict=True)
    }
    record = {
        "trained_on": len(train),
        "six_class_accuracy_5_fold": round(float(np.mean(guess == np.array(y))), 4),
        "six_class_accuracy_here": round(
            float(np.mean([names[i] == emotion[n] for n, i in zip(wanted, six, strict=True)])), 4
        ),
        "five_class_accuracy_here": round(
            float(np.mean([labels[n][0] == WORDS[emotion[n]] for n in wanted])), 4
        ),
        "without_words": sum(not s for s in spoken),
    }
    return labels, sure, {n: s for n, s in zip(wanted, spoken, strict=True) if s}, record


def six_classes(
    file: Path, wanted: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
    """Labels and probabilities of the out-of-fold predictions of ``text_emotion.py``."""
    rows = {row["name"]: row for row in read_jsonl(file) if row["name"] in set(wanted)}
    if odd := [n for n in wanted if n not in rows or not rows[n]["out_of_fold"]]:
        raise SystemExit(f"{file}: no out-of-fold prediction of {odd[0]}")
    labels = {n: [WORDS[x] for x in rows[n]["labels"]] for n in wanted}
    sure = {n: {WORDS[c]: p for c, p in rows[n]["probabilities"].items()} for n in wanted}
    return labels, sure


def spoken_words(data: Path, wanted: Sequence[str]) -> dict[str, str]:
    """Chinese subtitles of the clips that have any; clips with the same share a fold."""
    rows = table(data / "mer2023_text/transcription-engchi-polish.csv", "name")
    return {n: text for n in wanted if (text := rows[n]["chinese"].strip())}


def measured(study: Study, data: Path) -> dict[str, Any]:
    """One study of the 332 clips under every grouping."""
    systems, run = study.systems()
    gold = study.gold
    test = [n for n in gold if held_out(n)]
    lexicon_groups = scoring.open_grouping("lexicon")
    wheels = scoring.open_grouping("ew2026", tables=data / "wheels/2026")
    few = {s: x for s, x in systems.items() if s.startswith("source") or s in SHOWN}
    cached = CachedGrouping.read(data / "mer2024_ov/openset-synonym.zip")
    released, share = complete(cached, list(gold), [gold, *few.values()])
    views = {
        "lexicon": (systems, lexicon_groups, None),
        "lexicon_held_out": (few, lexicon_groups, test),
        "wheels_2026": (few, wheels, None),
        "exact": (few, scoring.open_grouping("exact"), None),
        "released_groups": (few, released, None),
    }
    tables = each(partial(compared, gold), *zip(*views.values(), strict=True))
    found = dict(zip(views, tables, strict=True))
    found["released_groups"]["labels_put_in_by_the_lexicon"] = share
    found |= {
        "other_folds": repeats(study, systems["concat"], lexicon_groups),
        "calibration": calibration(study, run),
        "weights": weights(run),
    }
    return found


def reference_v1(row: Mapping[str, str]) -> list[str]:
    """Gold of an EMER v1 clip: its class and what the last sentence concludes."""
    last = [s for s in re.split(r"[。；]", row["reasons"]) if s.strip()][-1]
    last = last[last.rfind("推测") :] if "推测" in last else last
    return list(dict.fromkeys([CLASSES_ZH[row["emotions"]], *emotion_words(last, "zh").labels]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--six-class", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    if args.jobs == 1:
        study(args)
        return
    global each
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("fork")) as pool:
        each = pool.map
        study(args)


def study(args: argparse.Namespace) -> None:
    data: Path = args.data
    gold = read_labels(data / "mer2024_ov/check-openset.csv").labels
    sample = read_labels(data / "mer2024_ov/predict-openset.csv").labels
    v1 = table(data / "emer/gt-chi.csv", "names")
    v2 = table(data / "emer/final-EMER-reason.csv", "name")
    names = [*gold, *(n for n in v1 if n not in gold)]
    text, text_sure, words, record = text_model(data, names)
    six, six_sure = six_classes(args.six_class, names)
    result: dict[str, Any] = {
        "command": COMMAND,
        "chosen_on_the_working_half": MAIN,
        "lexicon": lexicon.version(),
        "outer_folds": OUTER,
        "resamples": RESAMPLES,
        "text_source": record,
    }
    concluded = {n: reference_v1(row) for n, row in v1.items()}
    description = {n: emotion_words(v2[n]["chinese"], "zh").labels for n in gold}
    both: dict[str, Labels] = {"sample": sample, "six_class": {n: six[n] for n in gold}}
    sure = {"six_class": six_sure}
    texts: dict[str, Labels] = {"sample": sample, "text": {n: text[n] for n in gold}}
    studies = {
        "sample_and_six_class": Study(gold, both, sure, words),
        "sample_and_text": Study(gold, texts, {"text": text_sure}, words),
        "with_descriptions_circular": Study(gold, both | {"description": description}, sure, words),
    }
    result |= {title: measured(one, data) for title, one in studies.items()}
    outputs: dict[str, Labels] = {
        m: {
            n: emotion_words(row["chi_reasons"], "zh").labels
            for n, row in table(data / f"mllm_outputs/{m}.csv", "names").items()
        }
        for m in MLLMS
    }
    outputs["six_class"] = {n: six[n] for n in v1}
    result |= mllm_studies(gold, concluded, outputs, sure, words, sample)
    write_json(args.out, result)
    for title in (*studies, "mllms_emer_v1", "mllms_and_sample"):
        for view in ("lexicon", "lexicon_held_out", "wheels_2026", "exact", "released_groups"):
            for name, row in result[title].get(view, {}).get("systems", {}).items():
                print(title, view, name, row)
        print(title, result[title]["other_folds"], result[title]["calibration"])
    print(result["mllms_official_gold"], record)


def mllm_studies(
    gold: Labels,
    concluded: Labels,
    outputs: dict[str, Labels],
    sure: dict[str, dict[str, dict[str, float]]],
    words: dict[str, str],
    sample: Labels,
) -> dict[str, Any]:
    """The six MLLMs and the six-class model: our gold, and the official gold of 39 clips.

    Args:
        gold: Official gold.
        concluded: Our gold of the EMER v1 clips.
        outputs: System -> clip -> labels.
        sure: The six-class model's probabilities.
        words: Spoken words of a clip.
        sample: The released predictions, of the clips with official gold.
    """
    grouping = scoring.open_grouping("lexicon")
    mllm = Study(concluded, outputs, sure, words)
    systems, run = mllm.systems()
    ours = {
        "lexicon": compared(concluded, systems, grouping),
        "other_folds": repeats(mllm, systems["concat"], grouping),
        "calibration": calibration(mllm, run),
    }
    shared = [n for n in concluded if n in gold]
    rest = {n: x for n, x in concluded.items() if n not in gold}
    part: dict[str, Labels] = {s: {n: x[n] for n in shared} for s, x in outputs.items()}
    fuser = fusion.fit(rest, outputs, sure, settings=STRATEGIES[MAIN], blocks=words)
    plain = fusion.fit(rest, outputs, sure, settings=STRATEGIES["fused"], blocks=words)
    systems = {f"source: {s}": x for s, x in part.items()} | {
        "concat": fusion.concat(list(part.values())),
        "majority": fusion.majority(part),
        "fitted vote": fusion.fit_vote(rest, outputs).predict(part),
        "fused": plain.predict(part, sure),
        MAIN: fuser.predict(part, sure),
    }
    official = {n: gold[n] for n in shared}
    here: dict[str, Labels] = {"sample": {n: sample[n] for n in shared}, **part}
    every = Study(official, here, sure, words)
    nested, every_run = every.systems()
    return {
        "mllms_emer_v1": ours,
        "mllms_official_gold": {
            "trained_on": f"{len(rest)} clips of EMER v1 outside MER2024-OV, with our gold",
            "lexicon": compared(official, systems, grouping),
        },
        "mllms_and_sample": {
            "lexicon": compared(official, nested, grouping),
            "other_folds": repeats(every, nested["concat"], grouping),
            "calibration": calibration(every, every_run),
        },
    }


if __name__ == "__main__":
    main()
