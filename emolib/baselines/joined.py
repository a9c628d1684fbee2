"""Several systems as one: an audio model and a video model, joined over their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emolib import fusion
from emolib.errors import DataError
from emolib.params.baselines import Recipe
from emolib.predict import Prediction


def join(recipe: Recipe, parts: Mapping[str, Sequence[Prediction]]) -> list[Prediction]:
    """Join the labels of a combination's parts clip by clip.

    A clip is an error row only when every part failed on it; parts that failed are named in
    ``info["failed"]``.

    Args:
        recipe: A combination.
        parts: Recipe name -> predictions, one a clip, all over the same clips.

    Returns:
        One prediction a clip, in the first part's order; descriptions stand under each other.

    Raises:
        DataError: the parts do not cover the same clips.
    """
    first = next(iter(parts.values()))
    names = [p.name for p in first]
    rows = {part: {p.name: p for p in found} for part, found in parts.items()}
    for part, found in rows.items():
        if set(found) != set(names) or len(parts[part]) != len(names):
            raise DataError(f"{recipe.title}: {part!r} does not cover the same clips")
    labels = {part: {n: found[n].labels for n in names} for part, found in rows.items()}
    if recipe.rule == "union":
        joined = fusion.union(labels)
    elif recipe.rule == "majority":
        joined = fusion.majority(labels)
    else:
        joined = fusion.concat(list(labels.values()))
    return [_row(recipe, name, {p: rows[p][name] for p in rows}, joined[name]) for name in names]


def _row(
    recipe: Recipe, name: str, parts: Mapping[str, Prediction], labels: Sequence[str]
) -> Prediction:
    faults = {part: row.error or "" for part, row in parts.items() if row.status == "error"}
    lost = len(faults) == len(parts)
    described = {p: row.description for p, row in parts.items() if row.description.strip()}
    return Prediction(
        name=name,
        system=recipe.title,
        labels=tuple(labels),
        description="\n".join(f"{part}: {text}" for part, text in described.items()),
        parse="ok" if labels else "empty",
        status="error" if lost else "ok",
        error="; ".join(f"{part}: {fault}" for part, fault in faults.items()) if lost else None,
        prompt="",
        model={
            "engine": "joined",
            "rule": recipe.rule,
            "parts": {part: row.model for part, row in parts.items()},
        },
        finish_reason="",
        seconds=sum(row.seconds for row in parts.values()),
        info={"labels": {part: list(row.labels) for part, row in parts.items()}}
        | ({"failed": faults} if faults else {}),
    )
