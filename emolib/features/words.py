"""Words as hashed n-grams: works for any language, needs no vocabulary and no weights.

Chinese (and any text without spaces) gives its characters one, two and three at a time;
words in letters give themselves, pairs of them, and their inner character n-grams. Each n-gram
goes to one of ``size`` columns by a fixed hash and with a sign from the same hash, so that
collisions cancel on average. A few columns count what the marks and the length say.

Cost: proportional to the characters, about 3 microseconds an n-gram.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from emolib.features.table import FeatureTable

SIZE = 2048
MARKS = ("question", "exclamation", "ellipsis", "pause", "laugh", "sigh", "length", "blank")
_WIDE = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_WIDE}]+|[^\W{_WIDE}_]+(?:'[^\W{_WIDE}_]+)?|[?!.,…~]+")
_IS_WIDE = re.compile(rf"[{_WIDE}]")
_FORMS = str.maketrans({"？": "?", "！": "!", "。": ".", "，": ",", "、": ",", "～": "~", "’": "'"})


def ngrams(text: str) -> Iterator[str]:
    """Yield every n-gram of a text: of characters in wide scripts, of words and their letters."""
    tokens = _TOKEN.findall(_uniform(text))
    before = ""
    for token in tokens:
        if _IS_WIDE.match(token):
            padded = f"<{token}>"
            yield from token
            for n in (2, 3):
                yield from (padded[k : k + n] for k in range(len(padded) - n + 1))
        elif token[0].isalnum():
            yield f"w:{token}"
            padded = f"<{token}>"
            for n in (3, 4):
                yield from (f"c:{padded[k : k + n]}" for k in range(len(padded) - n + 1))
        else:
            yield f"p:{token[:2]}"
        if before and not _IS_WIDE.match(token):
            yield f"b:{before} {token}"
        before = token


def text_counts(texts: Sequence[str | None], size: int = SIZE) -> tuple[np.ndarray, ...]:
    """Count hashed n-grams; the sparse form of :func:`text_features` without marks.

    Args:
        texts: None and blank texts give empty rows.
        size: Columns, a power of two.

    Returns:
        ``data`` float32 [entries] (signed, sublinear: 1 + log count), ``columns`` int32
        [entries], ``starts`` int64 [texts + 1]: the arrays of a CSR matrix [texts, size]. A
        column may occur more than once in a row; its entries add up.

    Raises:
        ValueError: ``size`` is no power of two.
    """
    if size < 2 or size & (size - 1):
        raise ValueError(f"size {size}: give a power of two")
    data: list[float] = []
    columns: list[int] = []
    starts = [0]
    for text in texts:
        for gram, count in Counter(ngrams(text or "")).items():
            code = zlib.crc32(gram.encode())
            columns.append(code & (size - 1))
            data.append((1 + np.log(count)) * (1 if code >> 31 else -1))
        starts.append(len(columns))
    return (
        np.asarray(data, dtype=np.float32),
        np.asarray(columns, dtype=np.int32),
        np.asarray(starts, dtype=np.int64),
    )


def text_features(texts: Sequence[str | None], size: int = SIZE) -> np.ndarray:
    """Hashed n-grams of unit length, then :data:`MARKS`.

    Args:
        texts: None and blank texts give zeros, but for the mark "blank".
        size: Columns of n-grams, a power of two.

    Returns:
        float32 [texts, size + 8]; n-gram part of Euclidean length 1 (0 for blank texts), marks
        in [0, 1].
    """
    data, columns, starts = text_counts(texts, size)
    rows = np.repeat(np.arange(len(texts)), np.diff(starts))
    table = np.zeros((len(texts), size), dtype=np.float64)
    np.add.at(table, (rows, columns), data)
    table /= np.maximum(np.sqrt(np.square(table).sum(axis=1, keepdims=True)), 1e-12)
    marks = [text_marks(text) for text in texts]
    return np.hstack([table, np.reshape(marks, (len(texts), len(MARKS)))]).astype(np.float32)


def count_table(name: str, texts: Sequence[str | None], size: int = 2**16) -> FeatureTable:
    """Sparse n-gram counts of many texts, for the linear model, which weighs them itself.

    Args:
        name: What the table is called.
        texts: None and blank texts are empty rows, marked missing.
        size: Columns, a power of two.
    """
    from scipy.sparse import csr_matrix

    data, columns, starts = text_counts(texts, size)
    matrix = csr_matrix((data, columns, starts), shape=(len(texts), size))
    matrix.sum_duplicates()
    blank = np.array([not (text or "").strip() for text in texts])
    return FeatureTable(name, "text", matrix, None, blank, {}, {"kind": "counts", "size": size})


def text_marks(text: str | None) -> list[float]:
    """Punctuation, laughter, sighs and length of one text, each in [0, 1]."""
    uniform = _uniform(text or "")
    letters = sum(c.isalnum() for c in uniform)
    return [
        min(uniform.count("?"), 2) / 2,
        min(uniform.count("!"), 2) / 2,
        float("…" in (text or "") or ".." in uniform),
        min(uniform.count(","), 4) / 4,
        float(bool(re.search(r"哈哈|呵呵|嘿嘿|嘻嘻|\bha(ha)+\b", uniform))),
        float(bool(re.search(r"唉|哎|\b(sigh|alas)\b", uniform))),
        min(letters, 60) / 60,
        float(letters == 0),
    ]


def _uniform(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_FORMS).lower()
