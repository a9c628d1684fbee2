"""Everything that was scored, in one table: ours, the baselines, and what others have published.

Numbers are ranked within a block only: one data set, its clips, one metric, one grouping of
synonyms. A published row therefore never stands above or below one of ours unless both were
computed the same way on as many clips of the same set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emolib import runs
from emolib.published import Published, notes_on, published
from emolib.report import Cell, table

COLUMNS = (
    *("set", "n", "grouping", "metric", "system", "kind", "value", "95 %"),
    *("accuracy", "recall", "F1", "labels/clip", "source"),
)
BASELINES = "08_baselines"
_SETS = {
    "mer2024-ov": "MER2024-OV",
    "emer-v1": "EMER v1",
    "emer-v2": "EMER v2",
}
_FIRST = "constant list, no model"


@dataclass(frozen=True, slots=True)
class Row:
    """One system in one block.

    Attributes:
        set: Data set, with the split where there is one.
        n: Clips.
        grouping: Who grouped the synonyms.
        metric: What ``value`` is, and what the block is ranked by.
        system: Name.
        kind: "ours", "baseline", "published" or "no model".
        value: Fraction in [0, 1].
        more: Further cells by column.
    """

    set: str
    n: int
    grouping: str
    metric: str
    system: str
    kind: str
    value: float
    more: Mapping[str, Cell]

    @property
    def block(self) -> tuple[str, int, str, str]:
        """What may be ranked together."""
        return self.set, self.n, self.grouping, self.metric


def set_name(data: Mapping[str, Any], split: str = "") -> str:
    """What a run's ``data`` parameters call its set."""
    kind = str(data.get("kind", "demo"))
    if kind == "demo":
        name = f"demo ({data.get('clips')} clips made, seed {data.get('seed')})"
        name += f", {data['domain']}" if data.get("domain", "base") != "base" else ""
    else:
        name = _SETS.get(kind, f"{kind} {Path(str(data.get('root', ''))).name}".strip())
    return f"{name}, {split}" if split else name


def rows_of(folder: Path) -> list[Row]:
    """What a finished run scored; nothing for runs without scores of label lists."""
    manifest, result = runs.read_manifest(folder), runs.read_result(folder)
    file = folder / runs.PARAMS
    params = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    name = set_name(params.get("data", {}), params.get("split") or params["data"].get("split", ""))
    kind = "baseline" if manifest.get("stage") == BASELINES else "ours"
    found = []
    for system, score in result.get("scores", {}).items():
        if not {"n", "avg", "grouping"} <= score.keys():
            continue
        found.append(_ours(name, kind, system, score, manifest.get("stage", folder.name)))
    if found:
        first = next(s for s in result["scores"].values() if "constant_list" in s)
        found.append(_constant(name, first, manifest.get("stage", folder.name)))
    return found


def _ours(name: str, kind: str, system: str, score: Mapping[str, Any], stage: str) -> Row:
    low, high = score.get("ci95", {}).get("avg", (None, None))
    more: dict[str, Cell] = {
        "95 %": f"{low:.4f}-{high:.4f}" if low is not None else None,
        "accuracy": score["accuracy"],
        "recall": score["recall"],
        "F1": score["f1"],
        "labels/clip": round(float(score["labels_per_clip"]), 2),
        "source": stage,
    }
    grouping = f"{score['grouping']['name']} {score['grouping']['version']}".strip()
    return Row(name, score["n"], grouping, "Avg", system, kind, score["avg"], more)


def _constant(name: str, score: Mapping[str, Any], stage: str) -> Row:
    best = score["constant_list"]
    more: dict[str, Cell] = {
        "accuracy": best["accuracy"],
        "recall": best["recall"],
        "F1": best["f1"],
        "labels/clip": float(len(best["labels"])),
        "source": f"{stage}, chosen knowing the gold",
    }
    grouping = f"{score['grouping']['name']} {score['grouping']['version']}".strip()
    return Row(name, score["n"], grouping, "Avg", _FIRST, "no model", best["avg"], more)


def _theirs(one: Published) -> list[Row]:
    """A row a metric: some authors print the one, some the other."""
    more: dict[str, Cell] = {
        "accuracy": one.accuracy,
        "recall": one.recall,
        "F1": one.f1,
        "source": one.source,
    }
    system = f"{one.system}, {one.input}" if one.input else one.system
    return [
        Row(one.set, one.n, one.grouping, metric, system, "published", value, more)
        for metric, value in (("Avg", one.avg), ("F1", one.f1))
        if value is not None
    ]


def overview(folders: Sequence[Path], theirs: Iterable[Published] | None = None) -> dict[str, Any]:
    """The one table over finished runs and published results.

    A system that several stages scored alike stands there once, from the first of them.

    Args:
        folders: Finished runs.
        theirs: Published results; None = all there are.
    """
    ours = [row for folder in folders for row in rows_of(folder)]
    once: dict[tuple[object, ...], Row] = {}
    for row in ours:
        once.setdefault((*row.block, row.system, row.value), row)
    rows = list(once.values())
    others = list(published(None) if theirs is None else theirs)
    rows += [row for one in others for row in _theirs(one)]
    blocks = list(dict.fromkeys(row.block for row in rows))  # ours first, then as published
    rows.sort(key=lambda row: (blocks.index(row.block), -row.value))
    cells = [_cells(row) for row in rows]
    made = table("Ours, baselines and published results", COLUMNS, cells)
    made["notes"] = [
        "Ranked within a block of one set, number of clips, grouping and metric; numbers of "
        "different blocks are not comparable.",
        "A published Avg that was not printed is the mean of the printed accuracy and recall.",
        *notes_on(others),
    ]
    return made


def _cells(row: Row) -> list[Cell]:
    own: dict[str, Cell] = {
        "set": row.set,
        "n": row.n,
        "grouping": row.grouping,
        "metric": row.metric,
        "system": row.system,
        "kind": row.kind,
        "value": row.value,
    }
    return [own.get(column, row.more.get(column)) for column in COLUMNS]
