"""Whole columns of cells parsed at once.

Nearly every cell of a label file is a plain Python or JSON list. Such cells are cut at their
quotes by Arrow, their labels are numbered, and only the few hundred *distinct* pieces are
looked at in Python. Every cell that is not exactly of that form goes through the ordinary
parser one by one, so the result is the same as without this module (tested).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emolib.labels import Mode, Status, parse_labels
from emolib.scoring.encode import repeats_in

T = TypeVar("T")

CHUNK = 1 << 15  # cells worked on at once: their arrays stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Labels of many cells.

    Attributes:
        codes: int64 [tokens], index into ``vocab``; a cell's tokens lie together, in order.
        lengths: int64 [cells], tokens of every cell.
        vocab: Distinct labels.
        statuses: Number of cells by parse status.
        unparsed: Cells with status "unparsed", in order.
    """

    codes: np.ndarray
    lengths: np.ndarray
    vocab: list[str]
    statuses: dict[Status, int]
    unparsed: list[int]

    def lists(self) -> list[tuple[str, ...]]:
        """The labels of every cell."""
        flat = np.array(self.vocab, dtype=object)[self.codes].tolist() if self.vocab else []
        ends = np.cumsum(self.lengths).tolist()
        starts = [0, *ends[:-1]] if ends else []
        return [tuple(flat[s:e]) for s, e in zip(starts, ends, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """Cells cut between their labels.

    Attributes:
        codes: int32 [tokens], index into ``vocab``.
        sizes: int64 [cells], tokens of each cell; 0 where the cell is not good.
        vocab: Distinct labels.
        good: bool [cells], the cell is exactly a list of quoted clean labels, or ``[]``.
    """

    codes: np.ndarray
    sizes: np.ndarray
    vocab: list[str]
    good: np.ndarray


def cut(cells: pa.Array, opening: str, between: str, clean: Callable[[str], bool]) -> Cut:
    """Cut plain cells into labels; Python looks at each distinct label once.

    Args:
        cells: Arrow strings.
        opening: What a cell begins with, e.g. ``['``; it ends with the mirror image.
        between: What stands between two labels, e.g. ``', '``.
        clean: Whether a piece is a label to be taken as it is.
    """
    good, inside = _frame(cells, opening)
    parts = pc.split_pattern(inside, between)
    starts = parts.offsets.to_numpy()
    coded = parts.values.dictionary_encode()
    vocab = [piece.decode() for piece in coded.dictionary.to_pylist()]
    codes = coded.indices.to_numpy(zero_copy_only=False)
    sizes = np.diff(starts).astype(np.int64)
    quote = opening[-1]
    odd = np.array([quote in piece or not clean(piece) for piece in vocab], bool)
    if odd.any():
        good[np.searchsorted(starts, np.flatnonzero(odd[codes]), side="right") - 1] = False
        codes = codes[np.repeat(good, sizes)]
        sizes[~good] = 0
    if not good.all():
        good = good | pc.equal(cells, "[]").to_numpy(zero_copy_only=False)
    return Cut(codes, sizes, vocab, good)


def _frame(cells: pa.Array, opening: str) -> tuple[np.ndarray, pa.Array]:
    """Which cells begin with ``opening`` and end with its mirror image; and what is between."""
    closing = opening[::-1].replace("[", "]")
    width = len(opening)
    framed = pc.and_(pc.starts_with(cells, opening), pc.ends_with(cells, closing))
    framed = pc.and_(framed, pc.greater_equal(pc.binary_length(cells), 2 * width))
    inside = pc.binary_slice(cells.cast(pa.binary()), width, -width)
    if not pc.all(framed).as_py():
        inside = pc.if_else(framed, inside, None)
    return framed.to_numpy(zero_copy_only=False).copy(), inside


def _cleaner(mode: Mode) -> Callable[[str], bool]:
    """Whether the parser of ``mode`` takes a quoted piece as exactly one label, unchanged."""
    if mode == "tolerant":
        return _is_normal
    if mode == "mer2024":
        return lambda piece: not set(piece) & set("[]'\"") and piece.strip() not in ("", ",")
    return lambda piece: not set(piece) & set("[]'\",") and piece == piece.strip() != ""


@lru_cache(maxsize=100_000)
def _is_normal(piece: str) -> bool:
    return parse_labels([piece]).labels == (piece,)


def parse_column(cells: Sequence[object], mode: Mode) -> Column:
    """Parse many cells; the same labels and statuses as :func:`parse_labels` on each.

    Cost: about half a microsecond for a plain list, some 20 for any other cell; chunks of
    cells are worked on by all processors.
    """
    parts = _in_chunks(lambda chunk: _parse_chunk(chunk, mode), cells)
    if len(parts) == 1:
        return parts[0]
    index: dict[str, int] = {}
    statuses: dict[Status, int] = dict.fromkeys(("ok", "repaired", "empty", "unparsed"), 0)
    codes, unparsed = [], []
    for number, part in enumerate(parts):
        merged = [index.setdefault(label, len(index)) for label in part.vocab]
        codes.append(np.array(merged, np.int64)[part.codes])
        unparsed += [row + number * CHUNK for row in part.unparsed]
        for status, count in part.statuses.items():
            statuses[status] += count
    lengths = [part.lengths for part in parts]
    return Column(_join(codes), _join(lengths), list(index), statuses, unparsed)


def _in_chunks(work: Callable[[Sequence[object]], T], cells: Sequence[object]) -> list[T]:
    chunks = [cells[start : start + CHUNK] for start in range(0, len(cells), CHUNK)]
    if len(chunks) < 2:
        return [work(chunk) for chunk in chunks]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(work, chunks))


def _join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.int64)


def _texts(cells: Sequence[object]) -> Sequence[str]:
    """The cells with a text that is no list in place of everything that is no string."""
    if set(map(type, cells)) <= {str}:
        return cells  # type: ignore[return-value]
    return [cell if type(cell) is str else "\0" for cell in cells]


def _parse_chunk(cells: Sequence[object], mode: Mode) -> Column:
    texts = _texts(cells)
    index: dict[str, int] = {}
    statuses: dict[Status, int] = dict.fromkeys(("ok", "repaired", "empty", "unparsed"), 0)
    lengths = np.zeros(len(texts), np.int64)
    rows: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    todo = np.arange(len(texts))
    clean = _cleaner(mode)
    for quote in ("'", '"'):
        if not len(todo):
            break
        chosen = texts if len(todo) == len(texts) else [texts[i] for i in todo.tolist()]
        pieces = cut(pa.array(chosen, pa.string()), f"[{quote}", f"{quote}, {quote}", clean)
        numbers = np.array([index.setdefault(p.lower(), len(index)) for p in pieces.vocab], int)
        found, counts = numbers[pieces.codes], pieces.sizes.copy()
        statuses["empty"] += int((pieces.good & (counts == 0)).sum())
        if mode != "tolerant" and len(chosen) == len(texts) and pieces.good.all():
            statuses["ok"] += int((counts > 0).sum())
            return Column(found, counts, list(index), statuses, [])
        owners = np.repeat(np.arange(len(chosen)), counts)
        if mode == "tolerant" and len(repeats := repeats_in(owners, found)):
            repaired = len(np.unique(owners[repeats]))
            statuses["repaired"] += repaired
            statuses["ok"] -= repaired
            counts -= np.bincount(owners[repeats], minlength=len(counts))
            found, owners = np.delete(found, repeats), np.delete(owners, repeats)
        statuses["ok"] += int((counts > 0).sum())
        lengths[todo] = counts
        codes.append(found)
        rows.append(todo[owners])
        todo = todo[~pieces.good]
    unparsed = []
    for row in todo.tolist():
        parsed = parse_labels(cells[row], mode)
        statuses[parsed.status] += 1
        if parsed.status == "unparsed":
            unparsed.append(row)
        lengths[row] = len(parsed.labels)
        labels = [index.setdefault(label, len(index)) for label in parsed.labels]
        codes.append(np.array(labels, np.int64))
        rows.append(np.full(len(labels), row))
    flat = _join(codes)
    if len(codes) > 1:
        flat = flat[np.argsort(_join(rows), kind="stable")]
    return Column(flat, lengths, list(index), statuses, unparsed)


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Partitions of many clips.

    Attributes:
        rows: int64 [members], clip of every grouped label, increasing.
        codes: int64 [members], the label, index into ``vocab``.
        firsts: int64 [members], first label of its group.
        vocab: Distinct labels.
        odd: int64, clips whose answer is not plainly a list of lists.
    """

    rows: np.ndarray
    codes: np.ndarray
    firsts: np.ndarray
    vocab: list[str]
    odd: np.ndarray


def parse_groups_column(answers: Sequence[object]) -> Groups:
    """Parse many answers such as ``[['a', 'b'], ['c']]``; the others are named in ``odd``."""
    parts = _in_chunks(_groups_chunk, answers)
    if len(parts) == 1:
        return parts[0]
    index: dict[str, int] = {}
    rows, codes, firsts, odd = [], [], [], []
    for number, part in enumerate(parts):
        merged = np.array([index.setdefault(x, len(index)) for x in part.vocab], np.int64)
        rows.append(part.rows + number * CHUNK)
        odd.append(part.odd + number * CHUNK)
        codes.append(merged[part.codes])
        firsts.append(merged[part.firsts])
    return Groups(_join(rows), _join(codes), _join(firsts), list(index), _join(odd))


def _groups_chunk(answers: Sequence[object]) -> Groups:
    cells = pa.array(_texts(answers), pa.string())
    framed, inside = _frame(cells, "[['")
    clips = pc.split_pattern(inside, "'], ['")
    groups = pc.split_pattern(clips.values, "', '")
    coded = groups.values.dictionary_encode()
    vocab = [piece.decode() for piece in coded.dictionary.to_pylist()]
    index: dict[str, int] = {}
    numbers = np.array([index.setdefault(p.lower(), len(index)) for p in vocab], np.int64)
    codes = numbers[coded.indices.to_numpy(zero_copy_only=False)]
    starts = groups.offsets.to_numpy()
    firsts = np.repeat(codes[starts[:-1]], np.diff(starts))
    clip_starts = starts[clips.offsets.to_numpy()]
    rows = np.repeat(np.arange(len(cells)), np.diff(clip_starts))
    odd = np.array([not _is_group_label(piece) for piece in vocab], bool)
    if odd.any():
        framed[rows[odd[coded.indices.to_numpy(zero_copy_only=False)]]] = False
        keep = framed[rows]
        rows, codes, firsts = rows[keep], codes[keep], firsts[keep]
    return Groups(rows, codes, firsts, list(index), np.flatnonzero(~framed))


@lru_cache(maxsize=100_000)
def _is_group_label(piece: str) -> bool:
    return piece == piece.strip() != "" and not set(piece) & set("[]'\",")
