"""What fusing did, to look at: each system's part, cases won and lost, the why of every label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from emolib.baselines.released import AFFECTGPT
from emolib.datasets.clip import Clip
from emolib.errors import ScoreError
from emolib.fusion import Verdict
from emolib.fusion.candidates import Labels
from emolib.report import Cell, table
from emolib.scoring import Comparison, Score, compare
from emolib.strategies.fuse import CONCAT, MAJORITY, OURS, SINGLE, Fused
from emolib.strategies.sources import Source

SYSTEM_COLUMNS = (
    "system",
    "groups/clip",
    "right",
    "only it names",
    "right among these",
    "kept by calibrated fusion",
)


def system_table(title: str, gold: Labels, fused: Fused) -> dict[str, Any]:
    """What each system brings: how much it names, how much of it is right, what it alone names.

    Counted in the fusion's groups over all clips, so "right" is no mean over clips. "-": nothing
    to divide by.
    """
    group_of = fused.group_of
    kept = {c: group_of.set_of(x) for c, x in fused.labels.get(OURS, {}).items()}
    said = {s: {c: group_of.set_of(rows[c]) for c in gold} for s, rows in fused.systems.items()}
    rows: list[list[Cell]] = []
    for system, groups in said.items():
        named = alone = taken = 0
        right = right_alone = 0.0
        for clip in gold:
            others = frozenset().union(*(said[s][clip] for s in said if s != system))
            own, only = groups[clip], groups[clip] - others
            named, alone = named + len(own), alone + len(only)
            right += group_of.correct(own, gold[clip])
            right_alone += group_of.correct(only, gold[clip])
            taken += len(own & kept.get(clip, frozenset()))
        rows.append(
            [
                system,
                named / len(gold),
                _share(right, named),
                _share(alone, named),
                _share(right_alone, alone),
                _share(taken, named) if kept else None,
            ]
        )
    return table(title, SYSTEM_COLUMNS, rows)


def pairs(fused: Fused, scores: Mapping[str, Score]) -> list[tuple[Score, Score, str]]:
    """Choose what is compared.

    Every rule with concatenation; calibrated fusion with every other rule and with every system,
    and concatenation with the systems it is made of. Of more than ten systems, calibrated fusion
    is compared with the best on the other folds instead.

    Args:
        fused: Rules and systems.
        scores: Everything scored, co-judges included.
    """
    rules = [*fused.labels, *(name for name in scores if name.startswith("LLM co-judge"))]
    found = [(rule, CONCAT) for rule in rules if rule != CONCAT]
    if OURS in fused.labels:
        found += [(OURS, rule) for rule in rules if rule not in (OURS, CONCAT)]
    if len(fused.systems) <= 10:
        for rule in (OURS, CONCAT):
            found += [(rule, system) for system in fused.systems if rule in fused.labels]
    return [(scores[a], scores[b], f"{a} - {b}") for a, b in found]


def looked_at(fused: Fused) -> list[str]:
    """Return the systems, of at most ten, and the rules that are tested against constant lists."""
    systems = list(fused.systems) if len(fused.systems) <= 10 else []
    return [*systems, *(rule for rule in fused.labels if rule != "union of groups")]


def kinds(sources: Mapping[str, Source], scores: Mapping[str, Score]) -> dict[str, list[Score]]:
    """Sort the scores of systems by their kind, for a figure.

    Args:
        sources: Systems.
        scores: Title -> score; systems without one are left out.
    """
    found: dict[str, list[Score]] = {}
    for source in sources.values():
        if source.title in scores:
            kind = "other models" if source.family else source.title
            kind = f"{AFFECTGPT}'s epochs" if source.family == AFFECTGPT else kind
            found.setdefault(kind, []).append(scores[source.title])
    return found


def shown_rules(fused: Fused, scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return the scores of the rules that a figure shows."""
    rules = (CONCAT, MAJORITY, SINGLE, OURS)
    return {rule: scores[rule] for rule in rules if rule in fused.labels}


def compare_all(
    pairs: Iterable[tuple[Score, Score, str]], resamples: int, seed: int
) -> tuple[dict[str, Comparison], list[str]]:
    """Paired comparisons by name, and a note where the groups do not allow any.

    Stored groups that do not hold every label give each system a partition of its own.

    Args:
        pairs: (score, score it is compared with, name of the comparison).
        resamples: Bootstrap resamples and permutations.
        seed: Their seed.
    """
    found, notes = {}, []
    for a, b, name in pairs:
        try:
            found[name] = compare(a, b, resamples=resamples, seed=seed)
        except ScoreError as error:
            notes.append(f"not compared: {name}: {error}")
    return found, notes


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def moved(scores: Mapping[str, Score]) -> list[tuple[str, float, float]]:
    """Clip, accuracy and recall of calibrated fusion minus those of concatenation, best first.

    Wheels: means over the five.
    """
    if OURS not in scores:
        return []
    a, b = scores[OURS].per_clip, scores[CONCAT].per_clip
    gaps = [
        (str(name), float(more), float(wider))
        for name, more, wider in zip(
            a["name"], a["accuracy"] - b["accuracy"], a["recall"] - b["recall"], strict=True
        )
    ]
    return sorted(gaps, key=lambda gap: (-(gap[1] + gap[2]), gap[0]))


def best_and_worst(scores: Mapping[str, Score], n: int) -> list[str]:
    """Up to ``n`` clips: half of them the largest gains of calibrated fusion, half losses."""
    gaps = moved(scores)
    won = [name for name, more, wider in gaps if more + wider > 0][: (n + 1) // 2]
    lost = [name for name, more, wider in reversed(gaps) if more + wider < 0][: n // 2]
    return [*won, *lost]


def moved_table(
    title: str, clips: Sequence[Clip], gold: Labels, fused: Fused, scores: Mapping[str, Score]
) -> dict[str, Any]:
    """Cases won and lost: every clip that :func:`best_and_worst` picks, and how many there are."""
    gaps = {name: (more, wider) for name, more, wider in moved(scores)}
    rows: list[list[Cell]] = []
    for clip in clips:
        more, wider = gaps[clip.name]
        lists = (gold, fused.labels[CONCAT], fused.labels[OURS])
        rows.append(
            [
                clip.name,
                clip.subtitle or "",
                *(", ".join(x[clip.name]) for x in lists),
                more,
                wider,
            ]
        )
    columns = ["clip", "words", "gold", CONCAT, OURS, "accuracy +", "recall +"]
    made = table(title, columns, rows)
    signs = [more + wider for more, wider in gaps.values()]
    won, lost = sum(s > 1e-12 for s in signs), sum(s < -1e-12 for s in signs)
    made["notes"] = [
        f"Of {len(signs)} clips calibrated fusion wins {won}, loses {lost} and ties "
        f"{len(signs) - won - lost} against concatenation, by accuracy + recall."
    ]
    return made


def verdict_rows(gold: Labels, fused: Fused) -> Iterator[dict[str, Any]]:
    """Every candidate of every clip, why it was kept or dropped, and whether it was right."""
    if fused.cross is None:
        return
    for clip, verdicts in fused.cross.verdicts.items():
        for found in verdicts:
            right = _is_right(found, clip, gold, fused)
            fold = fused.cross.fold_of[clip]
            yield {"name": clip, "fold": fold, **found.to_json(), "right": right}


def verdict_table(
    title: str, clips: Sequence[str], gold: Labels, fused: Fused, top: int = 3
) -> dict[str, Any]:
    """The judgements of some clips with the ``top`` reasons of each (change of log odds)."""
    rows: list[list[Cell]] = []
    verdicts = {} if fused.cross is None else fused.cross.verdicts
    for clip in clips:
        for found in verdicts.get(clip, ()):
            why = ", ".join(f"{name} {move:+.1f}" for name, move in found.reasons(top))
            rows.append(
                [
                    clip,
                    found.label,
                    found.decision,
                    found.probability,
                    found.gain,
                    "right" if _is_right(found, clip, gold, fused) else "wrong",
                    ", ".join(found.sources) or "nobody",
                    why,
                ]
            )
    columns = ["clip", "label", "decision", "probability", "gain", "gold says", "named by", "why"]
    made = table(title, columns, rows)
    made["notes"] = [
        "probability: that the label's group is in the gold set, by a model fitted on other "
        "clips. gain: expected score it adds, or would. why: log odds moved, from those of an "
        "average candidate."
    ]
    return made


def _is_right(found: Verdict, clip: str, gold: Labels, fused: Fused) -> bool:
    return fused.is_right(found.label, gold[clip])


def gallery_rows(
    clips: Sequence[Clip], gold: Labels, fused: Fused
) -> list[list[tuple[str, list[tuple[str, bool]]]]]:
    """For a gallery, one block of lines a clip: (who says, [(label, right)])."""
    blocks = []
    for clip in clips:
        true = gold[clip.name]
        lists = {**fused.systems, **fused.labels}
        lines = [("gold", [(label, True) for label in true])]
        lines += [
            (who, [(x, fused.is_right(x, true)) for x in rows[clip.name]])
            for who, rows in lists.items()
        ]
        blocks.append(lines)
    return blocks
