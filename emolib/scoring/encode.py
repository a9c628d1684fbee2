"""Label lists as integer arrays: what every score computes on.

A million lists become three arrays in a few hundred milliseconds; nothing after this step
loops over clips in Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import pyarrow as pa

from emolib.errors import ScoreError


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Ragged lists of label codes, one list a clip.

    Attributes:
        codes: int64 [tokens], index into the vocabulary; a clip's tokens lie together.
        offsets: int64 [clips + 1]; clip i owns ``codes[offsets[i]:offsets[i + 1]]``.
    """

    codes: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def rows(self) -> np.ndarray:
        """Clip index of every token, int64 [tokens]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def once(self) -> LabelSets:
        """The same lists without the labels that a list has already given."""
        repeats = repeats_in(self.rows, self.codes)
        if not len(repeats):
            return self
        lost = np.bincount(self.rows[repeats], minlength=len(self))
        offsets = self.offsets - np.concatenate([[0], np.cumsum(lost)])
        return LabelSets(np.delete(self.codes, repeats), offsets)


def _any_repeat(rows: np.ndarray, codes: np.ndarray) -> bool:
    """Whether any clip gives a label twice: each label against the following ones."""
    for step in range(1, len(codes)):
        near = rows[step:] == rows[:-step]
        if not near.any():
            return False
        if (near & (codes[step:] == codes[:-step])).any():
            return True
    return False


def repeats_in(rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Positions of labels that their clip has already given.

    Args:
        rows: int64 [tokens], clip of each.
        codes: int64 [tokens].
    """
    if not _any_repeat(rows, codes):
        return np.zeros(0, np.int64)
    keys = rows * (int(codes.max(initial=0)) + 1) + codes
    order = np.argsort(keys, kind="stable")
    return order[1:][keys[order[1:]] == keys[order[:-1]]]


def encode(
    gold: Iterable[Sequence[str]], pred: Iterable[Sequence[str]]
) -> tuple[LabelSets, LabelSets, list[str]]:
    """Turn gold and predicted lists into codes over one shared, lower-cased vocabulary.

    Time and memory grow linearly with the number of labels.

    Returns:
        Gold sets, predicted sets, vocabulary.

    Raises:
        ScoreError: a list is a bare string, or an item is not a string.
    """
    gold, pred = list(gold), list(pred)
    for side, lists in (("gold", gold), ("predicted", pred)):
        if any(issubclass(kind, str | bytes) for kind in set(map(type, lists))):
            raise ScoreError(
                f"{side} labels must be lists of strings, found a bare string: "
                "parse it first with emolib.labels.parse_labels"
            )
    lengths = np.fromiter(map(len, chain(gold, pred)), np.int64, len(gold) + len(pred))
    try:
        flat = pa.array(list(chain.from_iterable(chain(gold, pred))), pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError) as error:
        raise ScoreError(f"labels must be strings: {error}") from None
    if flat.null_count:
        raise ScoreError("labels must be strings, found None: leave such items out")
    return encode_flat(flat, lengths, len(gold))


def encode_flat(
    flat: pa.Array, lengths: np.ndarray, n_gold: int
) -> tuple[LabelSets, LabelSets, list[str]]:
    """Encode labels that already lie in one Arrow array, gold clips first.

    Args:
        flat: Arrow strings [tokens].
        lengths: int64 [clips of gold + clips of pred], tokens of every clip.
        n_gold: Number of gold clips.
    """
    coded = flat.dictionary_encode()
    raw = [str(x).lower() for x in coded.dictionary.to_pylist()]
    index: dict[str, int] = {}
    merged = np.fromiter((index.setdefault(x, len(index)) for x in raw), np.int64, len(raw))
    codes = coded.indices.to_numpy(zero_copy_only=False)
    codes = merged[codes] if len(raw) else np.zeros(0, np.int64)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    cut = ends[n_gold]
    return (
        LabelSets(codes[:cut], ends[: n_gold + 1]),
        LabelSets(codes[cut:], ends[n_gold:] - cut),
        list(index),
    )


def distinct(rows: np.ndarray, codes: np.ndarray, size: int) -> np.ndarray:
    """Sorted distinct (clip, code) pairs as single keys ``clip * size + code``.

    Args:
        rows: int64 [tokens], clip of each token.
        codes: int64 [tokens], -1 = token is left out.
        size: More than the largest code.

    Returns:
        int64 [pairs], strictly increasing. Cost: one sort of the tokens.
    """
    keep = codes >= 0
    if not keep.all():
        rows, codes = rows[keep], codes[keep]
    keys = np.sort(rows * size + codes)
    first = np.empty(len(keys), bool)
    first[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Keys that are in both of two strictly increasing arrays."""
    both = np.sort(np.concatenate([a, b]))
    return both[:-1][both[1:] == both[:-1]]
