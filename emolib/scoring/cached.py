"""Groupings answered once and stored: the official ``openset-synonym`` files.

Read without pickle. An answer that is empty, broken or not a partition is an error here; the
official script scores it as if it were fine (an empty answer as exact match, which turns
0.540 into 0.215 on the released files).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from emolib.errors import DataError, ScoreError
from emolib.scoring.columns import parse_groups_column
from emolib.scoring.encode import LabelSets
from emolib.scoring.grouping import Assignment, Grouped

_CELLS = 1 << 20  # size of the look-up table


def parse_groups(answer: str) -> list[list[str]]:
    """Split an answer such as ``[['joyful', 'happy'], ['sad']]`` into groups.

    Behaves as the official parser: cut at brackets, then at quotes; a flat list is one group.

    Source: MERTools 89120b7, ``MER2024/toolkit/utils/functions.py:520`` (behaviour).
    """
    groups = []
    for part in re.split(r"[\[\]]", answer):
        items = [x for x in re.split("['\"]", part) if x.strip() not in ("", ",")]
        if items:
            groups.append(items)
    return groups


def representatives(groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Label -> first member of the last group that holds it, the official rule."""
    return {label: group[0] for group in groups for label in group}


class CachedGrouping:
    """One stored answer a clip.

    Labels that an answer does not hold stand for themselves; ``coverage`` counts them.

    Args:
        answers: Clip name -> answer text, or the groups themselves.
        version: Identifies the answers; default: a hash of them.
        overlap: A label in two groups: "error", or "last" (the official rule, in which the
            last group wins and letter case matters).
        source: Where the answers came from, for messages.

    Raises:
        ScoreError: no answers at all.
    """

    name = "cached"
    shared = False

    def __init__(
        self,
        answers: Mapping[str, str | Sequence[Sequence[str]]],
        version: str = "",
        overlap: Literal["error", "last"] = "error",
        source: str = "cached groups",
    ) -> None:
        if not answers:
            raise ScoreError(f"{source}: no answers in it; expected one .npy file a clip")
        self._answers = dict(answers)
        self._overlap = overlap
        self._source = source
        self._version = version

    @cached_property
    def version(self) -> str:
        """The given version, or a hash of all answers."""
        text = json.dumps(sorted(self._answers.items()), ensure_ascii=False)
        return self._version or hashlib.sha256(text.encode()).hexdigest()[:12]

    @classmethod
    def read(cls, path: Path, overlap: Literal["error", "last"] = "error") -> CachedGrouping:
        """Open a zip of .npy files, a folder of them, or a JSON object name -> answer.

        Raises:
            DataError: missing, not such a file, or a pickled array in it.
        """
        return cls(dict(read_answers(path)), overlap=overlap, source=str(path))

    def partition(self, clip: str) -> dict[str, str]:
        """Label -> representative of one clip.

        Raises:
            ScoreError: no answer, an empty or broken one, or a label in two groups.
        """
        remedy = "have this clip grouped again, or score with --grouping exact or lexicon"
        if clip not in self._answers:
            raise ScoreError(f"{self._source}: no groups for clip {clip!r}: {remedy}")
        answer = self._answers[clip]
        groups = parse_groups(answer) if isinstance(answer, str) else [list(g) for g in answer]
        if not groups or (isinstance(answer, str) and not _closed(answer)):
            raise ScoreError(
                f"{self._source}: clip {clip!r} has an empty or broken answer "
                f"{str(answer)[:60]!r}: {remedy}"
            )
        if self._overlap == "last":
            return representatives(groups)
        groups = [list(dict.fromkeys(x.strip().lower() for x in group)) for group in groups]
        labels = [label for group in groups for label in group]
        if len(labels) != len(set(labels)):
            twice = sorted({x for x in labels if labels.count(x) > 1})
            raise ScoreError(
                f"{self._source}: clip {clip!r} has {twice} in more than one group, which is "
                f"no partition: {remedy}"
            )
        return representatives(groups)

    def assign(
        self, clips: Sequence[str], gold: LabelSets, pred: LabelSets, vocab: Sequence[str]
    ) -> Grouped:
        """See :meth:`~emolib.scoring.grouping.Grouping.assign`. Linear in labels."""
        answers = list(map(self._answers.get, clips))
        if self._overlap == "last":
            answers = [None] * len(answers)
        groups = parse_groups_column(answers)
        names = list(vocab)
        index = {label: code for code, label in enumerate(vocab)}

        def number(label: str) -> int:
            if label not in index:
                index[label] = len(names)
                names.append(label)
            return index[label]

        numbers = np.array([number(label) for label in groups.vocab], np.int64)
        rows, codes, firsts = groups.rows, numbers[groups.codes], numbers[groups.firsts]
        if len(groups.odd):
            found = [
                (row, number(label), number(first))
                for row in groups.odd.tolist()
                for label, first in self.partition(clips[row]).items()
            ]
            extra = np.array(found, np.int64).reshape(-1, 3).T
            order = np.argsort(np.concatenate([rows, extra[0]]), kind="stable")
            rows, codes, firsts = (
                np.concatenate(pair)[order]
                for pair in zip((rows, codes, firsts), extra, strict=True)
            )
        sides = [(side.rows, side.codes) for side in (gold, pred)]
        found_at, repeated = _join(rows, codes, sides, len(clips), len(names))
        if repeated is not None:
            self.partition(clips[repeated])  # names the clip and the label
        ids = [
            np.where(at >= 0, firsts[at] if len(firsts) else -1, side.codes)
            for at, side in zip(found_at, (gold, pred), strict=True)
        ]
        view = Assignment(ids[0], ids[1], names)
        return Grouped([view], found_at[0] >= 0, found_at[1] >= 0)


def _join(
    rows: np.ndarray,
    codes: np.ndarray,
    sides: Sequence[tuple[np.ndarray, np.ndarray]],
    n: int,
    width: int,
) -> tuple[list[np.ndarray], int | None]:
    """Look up (clip, label) pairs among (``rows``, ``codes``), which are sorted by clip.

    A table with one line a clip and one column a label is filled and read block by block, so
    that it stays small; linear in the number of pairs.

    Returns:
        Position of every wanted pair, -1 = absent, for each of ``sides``; and the first clip
        that holds a pair twice, or None.
    """
    block = max(1, _CELLS // max(width, 1))
    table = np.full(block * max(width, 1), -1, np.int32)
    found = [np.empty(len(wanted), np.int64) for wanted, _ in sides]
    bounds = np.arange(0, n + block, block)
    cuts = [np.searchsorted(r, bounds) for r in (rows, *(wanted for wanted, _ in sides))]
    for number, start in enumerate(bounds[:-1].tolist()):
        low, high = cuts[0][number : number + 2].tolist()
        keys = (rows[low:high] - start) * width + codes[low:high]
        table[keys] = np.arange(low, high, dtype=np.int32)
        repeated = np.flatnonzero(table[keys] != np.arange(low, high, dtype=np.int32))
        if len(repeated):
            return found, int(rows[low + repeated[0]])
        for at, cut_at, (wanted, labels) in zip(found, cuts[1:], sides, strict=True):
            a, b = cut_at[number : number + 2].tolist()
            at[a:b] = table[(wanted[a:b] - start) * width + labels[a:b]]
        table[keys] = -1
    return found, None


def _closed(answer: str) -> bool:
    return "[" in answer and answer.count("[") == answer.count("]")


def _read_npy(data: bytes, where: str) -> str:
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{where}: a pickled array, which could run code and is never opened; "
                "save the text itself: np.save(file, np.array(text))"
            ) from None
        raise DataError(f"{where}: not a readable .npy file ({error})") from None
    except (EOFError, OSError) as error:
        raise DataError(f"{where}: not a readable .npy file ({error})") from None
    if array.dtype.kind != "U" or array.size != 1:
        raise DataError(f"{where}: expected one text, found {array.dtype} {list(array.shape)}")
    return str(array.reshape(()).item())


def read_answers(path: Path) -> Iterator[tuple[str, str | list[list[str]]]]:
    """Yield (clip name, answer) from a zip or folder of .npy files, or a JSON object.

    Raises:
        DataError: see :meth:`CachedGrouping.read`.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the cached groups with --groups")
    if path.is_dir():
        for file in sorted(path.rglob("*.npy")):
            yield file.stem, _read_npy(file.read_bytes(), str(file))
    elif path.suffix.lower() == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error})") from None
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected an object name -> groups")
        for name, answer in content.items():
            listed = isinstance(answer, list) and all(isinstance(g, list) for g in answer)
            if not listed and not isinstance(answer, str):
                raise DataError(
                    f"{path}: {name!r} has {answer!r}, expected a list of lists of labels"
                )
            yield name, answer
    elif zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in sorted(archive.namelist()):
                    if entry.endswith(".npy") and "__MACOSX" not in entry:
                        yield Path(entry).stem, _read_npy(archive.read(entry), f"{path}:{entry}")
        except (zipfile.BadZipFile, OSError, RuntimeError) as error:
            raise DataError(f"{path}: broken zip file ({error})") from None
    else:
        raise DataError(f"{path}: expected a zip or folder of .npy files, or a .json file")
