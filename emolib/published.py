"""Results that others have printed (``data/published.csv``), never changed and never mixed.

A row is one number: model, input, set, clips, metric, grouping, value, source. What was not
printed is not there, but for the mean of a printed accuracy and recall (:attr:`Published.avg`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

METRICS = ("accuracy", "recall", "avg", "f1")
SEEN_NOTE = (
    "The published row with the discriminative model: the set such models are trained on holds "
    "all 332 test clips with their classes, so it has very likely seen them."
)


@dataclass(frozen=True, slots=True)
class Published:
    """One system in one publication. Fractions in [0, 1].

    Attributes:
        table: The paper's table; "" for results of others.
        system: As its authors call it, or in our words.
        input: What the system saw; "" when unstated.
        set: Data set.
        n: Clips.
        grouping: Who grouped the synonyms, or which metric stands in place of that.
        values: Metric -> value, as printed: any of "accuracy" (set precision), "recall", "avg"
            and "f1".
        source: Where it is printed.
    """

    table: str
    system: str
    input: str
    set: str
    n: int
    grouping: str
    values: Mapping[str, float]
    source: str

    @property
    def accuracy(self) -> float | None:
        """Set precision, if printed."""
        return self.values.get("accuracy")

    @property
    def recall(self) -> float | None:
        """Set recall, if printed."""
        return self.values.get("recall")

    @property
    def f1(self) -> float | None:
        """F score, if printed."""
        return self.values.get("f1")

    @property
    def avg(self) -> float | None:
        """Mean of accuracy and recall: printed, or else formed from the two if both are.

        None is formed of wheel scores, which are ranked by F alone.
        """
        if "avg" in self.values or self.accuracy is None or self.recall is None:
            return self.values.get("avg")
        if "wheel" in self.grouping:
            return None
        return round((self.accuracy + self.recall) / 2, 4)


def published(number: str | None = "", *, set_name: str = "") -> list[Published]:
    """Published results, in the order of the file.

    Args:
        number: Only this table of the paper; "" = every table of the paper; None = all.
        set_name: Only results on this data set.
    """
    return [
        row
        for row in _all()
        if (number is None or (row.table == number if number else row.table))
        and set_name in ("", row.set)
    ]


@lru_cache(maxsize=1)
def _all() -> list[Published]:
    text = files("emolib").joinpath("data/published.csv").read_text(encoding="utf-8")
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for row in csv.DictReader(text.splitlines()):
        keys = ("table", "model", "input", "set", "n", "grouping", "source")
        values = found.setdefault(tuple(row[key] for key in keys), {})
        if row["metric"] not in METRICS or row["metric"] in values:
            raise ValueError(f"published.csv: {row['model']}: metric {row['metric']!r}")
        values[row["metric"]] = float(row["value"])
    return [
        Published(table, system, seen, where, int(n), grouping, values, source)
        for (table, system, seen, where, n, grouping, source), values in found.items()
    ]


def notes_on(rows: Iterable[Published]) -> list[str]:
    """What must stand beside these results wherever they are shown."""
    return [SEEN_NOTE] if any("discriminative" in row.system for row in rows) else []
