"""Which labels count as the same: the groupings behind the open-vocabulary scores.

======== ============================ =========================== =========================
name     groups come from             same for every system?      needs
======== ============================ =========================== =========================
exact    equal spelling               yes                         nothing
cached   one stored answer a clip     only if it covers both      the answers (``path``)
lexicon  our versioned word table     yes                         nothing
ew2025/6 the official emotion wheels  yes                         the tables (``tables``)
llm      a language model, cached     only if it covers both      a judge (``engine``)
======== ============================ =========================== =========================

``open_grouping`` opens any of them. A grouping answers for all clips at once
(:meth:`Grouping.assign`), so that tables are looked up once per distinct label and models
are asked in one stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from emolib.errors import DataError, ScoreError
from emolib.scoring.encode import LabelSets

if TYPE_CHECKING:
    from emolib.scoring.judge import Judge

NAMES = ("exact", "cached", "lexicon", "ew2025", "ew2026", "llm")


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """One view of the labels as groups.

    Attributes:
        gold: int64 [gold tokens], group of every gold token; -1 = outside the table, dropped.
        pred: int64 [predicted tokens], likewise.
        names: Readable name of every group.
    """

    gold: np.ndarray
    pred: np.ndarray
    names: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """What a grouping makes of a data set.

    Attributes:
        views: What accuracy and recall are computed on and averaged over: one assignment,
            or one a wheel.
        known_gold: bool [gold tokens], the grouping knows the label.
        known_pred: bool [predicted tokens].
        tables: Further scores by name, each the average over its assignments.
    """

    views: Sequence[Assignment]
    known_gold: np.ndarray
    known_pred: np.ndarray
    tables: Mapping[str, Sequence[Assignment]] = field(default_factory=dict)


class Grouping(Protocol):
    """Decides which labels mean the same.

    Attributes:
        name: One of ``NAMES``.
        version: Identifies the content: two scores with equal name and version were made
            with the same groups.
        shared: True when groups depend on the label alone, so that any two systems are
            scored against the same partition.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def shared(self) -> bool: ...  # noqa: D102

    def assign(
        self, clips: Sequence[str], gold: LabelSets, pred: LabelSets, vocab: Sequence[str]
    ) -> Grouped:
        """Group the tokens of all clips.

        Raises:
            ScoreError: a clip has no usable groups.
        """
        ...


class TableGrouping:
    """Base of groupings that look a label up without regard to the clip."""

    name = "table"
    version = "1"
    shared = True

    def views(self, vocab: Sequence[str]) -> list[list[str | None]]:
        """Group name of every label, per view; None = outside the table, dropped."""
        raise NotImplementedError

    def known(self, vocab: Sequence[str]) -> list[bool]:
        """Whether the table holds each label."""
        raise NotImplementedError

    def assign(
        self, clips: Sequence[str], gold: LabelSets, pred: LabelSets, vocab: Sequence[str]
    ) -> Grouped:
        """See :meth:`Grouping.assign`. Cost: one look-up per distinct label."""
        known = np.array(self.known(vocab), bool)
        views = []
        for groups in self.views(vocab):
            index: dict[str, int] = {}
            ids = np.array(
                [-1 if g is None else index.setdefault(g, len(index)) for g in groups], np.int64
            )
            views.append(Assignment(ids[gold.codes], ids[pred.codes], tuple(index)))
        return Grouped(views, known[gold.codes], known[pred.codes])


class ExactGrouping(TableGrouping):
    """Labels are the same when spelled the same (case and outer spaces aside)."""

    name = "exact"
    version = "1"

    def views(self, vocab: Sequence[str]) -> list[list[str | None]]:
        """See :meth:`TableGrouping.views`."""
        return [[" ".join(label.split()) for label in vocab]]

    def known(self, vocab: Sequence[str]) -> list[bool]:
        """Every label is known: its group is itself."""
        return [True] * len(vocab)


class MappingGrouping(TableGrouping):
    """A grouping given as a dictionary; labels outside it stand for themselves."""

    def __init__(
        self, groups: Mapping[str, str], name: str = "mapping", version: str = "1"
    ) -> None:
        self.name, self.version = name, version
        self._groups = {label.lower(): group for label, group in groups.items()}

    def views(self, vocab: Sequence[str]) -> list[list[str | None]]:
        """See :meth:`TableGrouping.views`; a lone label cannot meet a group's name."""
        return [[f"={self._groups[x]}" if x in self._groups else x for x in vocab]]

    def known(self, vocab: Sequence[str]) -> list[bool]:
        """Whether each label is in the dictionary."""
        return [label in self._groups for label in vocab]


def open_grouping(
    name: str,
    path: Path | str | None = None,
    tables: Path | str | None = None,
    engine: Judge | None = None,
    *,
    outside: Literal["drop", "keep"] = "drop",
    votes: int = 1,
) -> Grouping:
    """Open a grouping by its name.

    Args:
        name: "exact", "cached", "lexicon", "ew2025", "ew2026" or "llm".
        path: "cached": the answers (zip, folder of .npy, or JSON). "llm": cache folder.
        tables: "ew2025"/"ew2026": folder with the official tables.
        engine: "llm": a judge, e.g. ``emolib.judging.EngineJudge(engine)``.
        outside: Wheels: words in no table are dropped (official) or kept as singletons.
        votes: "llm": answers per clip.

    Raises:
        ScoreError: unknown name, or something it needs was not given.
        DataError: a file is missing or cannot be read.
    """
    if name == "exact":
        return ExactGrouping()
    if name == "cached":
        from emolib.scoring.cached import CachedGrouping

        if path is None:
            raise ScoreError("grouping 'cached' needs the stored answers: give --groups PATH")
        return CachedGrouping.read(Path(path))
    if name in ("ew2025", "ew2026"):
        from emolib.scoring.wheels import open_wheels

        if tables is None:
            raise ScoreError(
                f"grouping {name!r} needs the official tables, which are not part of this package: "
                "give --tables DIR, the folder emotion_wheel/ of the toolkit of that year"
            )
        return open_wheels(name, Path(tables), outside)
    if name == "lexicon":
        from emolib.scoring.lexicon import LexiconGrouping

        return LexiconGrouping()
    if name == "llm":
        from emolib.scoring.judge import LlmGrouping

        if engine is None:
            raise ScoreError("grouping 'llm' needs a language model: give --judge PARAMS.yaml")
        return LlmGrouping(engine, Path(path) if path is not None else None, votes)
    raise ScoreError(f"unknown grouping {name!r}: choose from {', '.join(NAMES)}")


def open_with_wheels(
    name: str, path: Path | str | None = None, wheels: Path | str | None = None
) -> tuple[list[Grouping], list[str]]:
    """Open a grouping and, where its tables are there, the official wheels of 2026 beside it.

    Args:
        name: See :func:`open_grouping`.
        path: What that grouping needs: stored answers or a folder of tables.
        wheels: Folder of the 2026 tables; "" or None = not asked for.

    Returns:
        The groupings, the named one first, and a line for each that was left out.

    Raises:
        ScoreError: see :func:`open_grouping`; or the tables are known to be another year's.
        DataError: what the named grouping needs is missing or cannot be read.
    """
    found = [open_grouping(name, path or None, path or None)]
    if not wheels or name == "ew2026":
        return found, []
    try:
        return [*found, open_grouping("ew2026", None, Path(wheels).expanduser())], []
    except DataError as error:
        return found, [f"not scored under the emotion wheels: {error}"]
