"""A page on which people look at what the judge decided, and what their marks say of it."""

from __future__ import annotations

import base64
import csv
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from emolib.errors import DataError
from emolib.files import write_atomic
from emolib.filtering import Pair
from emolib.media.store import read_picture

MARKS = ("similar", "different", "unusable")
COLUMNS = ("id", "mark", "note")
_WIDEST = 480  # pixels of a picture on the page


def draw_sample(pairs: Sequence[Pair], size: int, *, threshold: float, seed: int) -> list[Pair]:
    """Draw pairs to look at: half of those the rule keeps, half of those it drops.

    Where one half has too few, the other gives more; when both have, pairs without a score fill
    up. The order is random, so that the page does not tell which half a pair is from.

    Args:
        pairs: Judged pairs.
        size: How many at most.
        threshold: The rule's.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    scored = [p for p in pairs if p.similarity is not None]
    sides = [[p for p in scored if _kept(p, threshold) is side] for side in (True, False)]
    wanted = [size - size // 2, size // 2]
    for here, there in ((0, 1), (1, 0)):
        missing = max(0, wanted[here] - len(sides[here]))
        wanted[here] -= missing
        wanted[there] = min(len(sides[there]), wanted[there] + missing)
    drawn = [
        side[i]
        for side, count in zip(sides, wanted, strict=True)
        for i in rng.choice(len(side), size=min(count, len(side)), replace=False)
    ]
    rest = [p for p in pairs if p.similarity is None]
    filling = min(len(rest), size - len(drawn))
    drawn += [rest[i] for i in rng.choice(len(rest), size=filling, replace=False)] if rest else []
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _kept(pair: Pair, threshold: float) -> bool:
    return pair.similarity is not None and pair.similarity >= threshold


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
header { position: sticky; top: 0; background: Canvas; padding: .5rem 0; z-index: 1;
  border-bottom: 1px solid var(--line) }
article { display: grid; grid-template-columns: minmax(12rem, 1fr) 2fr; gap: 1rem;
  border-bottom: 1px solid var(--line); padding: 1rem 0 }
img { width: 100% } h2 { font-size: 1rem; margin: 0 } .score { visibility: hidden }
.shown .score { visibility: visible } article[data-mark] { background: var(--soft) }
fieldset { border: 0; padding: 0 } label { margin-right: 1rem } input[type=text] { width: 60% }
"""
_SCRIPT = """
const key = 'audit ' + document.title, rows = [...document.querySelectorAll('article')];
const saved = JSON.parse(localStorage.getItem(key) || '{}');
const read = a => ({mark: a.querySelector('input:checked')?.value || '',
                    note: a.querySelector('input[type=text]').value});
function tell() {
  const marked = rows.filter(a => read(a).mark);
  rows.forEach(a => read(a).mark ? a.dataset.mark = read(a).mark : delete a.dataset.mark);
  document.querySelector('output').textContent = marked.length + ' of ' + rows.length + ' marked';
}
rows.forEach(a => {
  const old = saved[a.dataset.id];
  if (old) {
    a.querySelectorAll('input[type=radio]').forEach(i => i.checked = i.value === old.mark);
    a.querySelector('input[type=text]').value = old.note;
  }
  a.addEventListener('input', () => {
    saved[a.dataset.id] = read(a); localStorage.setItem(key, JSON.stringify(saved)); tell();
  });
});
const cell = t => '"' + t.replaceAll('"', '""') + '"';
document.querySelector('#save').onclick = () => {
  const lines = rows.filter(a => read(a).mark).map(
    a => [a.dataset.id, read(a).mark, read(a).note].map(cell).join(','));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([['id,mark,note', ...lines, ''].join('\\n')]));
  link.download = 'marks.csv'; link.click();
};
document.querySelector('#show').onclick = () => document.body.classList.toggle('shown');
tell();
"""


def write_page(path: Path, sample: Sequence[Pair], *, title: str) -> Path:
    """Write one HTML file with pictures, captions, the hidden score and a way to mark each pair.

    The page needs no network and no other file. Marks stay in the browser and are saved as a
    CSV with the columns ``id, mark, note``, which :func:`read_marks` reads.

    Args:
        path: The file.
        sample: What to show, in this order.
        title: Head line; marks in one browser are kept apart by it.

    Raises:
        DataError: the file cannot be written.
    """
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style><header><h1>{html.escape(title)}</h1>",
        "<p>Do the two captions name similar emotions? Mark <i>unusable</i> when the picture "
        "shows nobody or a caption says nothing. The judge's score is hidden until you ask for "
        "it, so that it does not lead you.</p><output></output> ",
        "<button id=save>Save marks.csv</button> <button id=show>Show scores</button></header>",
        *(_article(number, pair) for number, pair in enumerate(sample)),
        f"<script>{_SCRIPT}</script></html>\n",
    ]
    return write_atomic(path, "".join(parts))


def _article(number: int, pair: Pair) -> str:
    captions = "".join(
        f"<h2>Caption {place}</h2><p>{html.escape(text)}</p>"
        for place, text in enumerate(pair.texts, start=1)
    )
    score = "no score" if pair.similarity is None else f"{pair.similarity:.4g}"
    marks = "".join(
        f"<label><input type=radio name=m{number} value={mark}> {mark}</label>" for mark in MARKS
    )
    return (
        f"<article data-id='{html.escape(pair.id, quote=True)}'><div>{_picture(Path(pair.image))}"
        f"</div><div>{captions}<fieldset>{marks}<input type=text placeholder=note></fieldset>"
        f"<p class=score>Judge: {score}. {html.escape(pair.answer[:300])}<br>"
        f"{html.escape(' and '.join(pair.models))}, {html.escape(pair.clip)}#{pair.index}</p>"
        "</div></article>"
    )


def _picture(path: Path) -> str:
    try:
        image = read_picture(path)
    except DataError as error:
        return f"<p>{html.escape(str(error))}</p>"
    scale = _WIDEST / image.shape[1]
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}'>"


def read_marks(path: Path, pairs: Sequence[Pair]) -> dict[str, str]:
    """Read a saved ``marks.csv``: pair id -> "similar", "different" or "unusable".

    Raises:
        DataError: not such a file, an unknown mark, or a pair that is not among ``pairs``.
    """
    known = {pair.id for pair in pairs}
    marks: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{path}: expected the columns {','.join(COLUMNS)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if row["mark"] not in MARKS:
                    raise DataError(f"{where}: mark {row['mark']!r}: choose from {list(MARKS)}")
                if row["id"] not in known:
                    raise DataError(f"{where}: no pair {row['id']!r} in these captions")
                marks[row["id"]] = row["mark"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return marks


def agreement(
    pairs: Sequence[Pair], marks: Mapping[str, str], *, threshold: float
) -> list[dict[str, Any]]:
    """What people say of the pairs the rule keeps and of those it drops, apart.

    The sample holds as many of one as of the other, so the two rates must not be averaged.

    Returns:
        Two rows with ``pairs the rule``, ``marked`` (less the unusable), ``unusable``, ``people
        agree`` (share) and its 95 % interval (Wilson) as ``low`` and ``high``.
    """
    rows = []
    for side, right in ((True, "similar"), (False, "different")):
        own = [
            marks[p.id]
            for p in pairs
            if p.id in marks and p.similarity is not None and _kept(p, threshold) is side
        ]
        usable = [mark for mark in own if mark != "unusable"]
        agreed = sum(mark == right for mark in usable)
        low, high = wilson(agreed, len(usable))
        rows.append(
            {
                "pairs the rule": "keeps" if side else "drops",
                "marked": len(usable),
                "unusable": len(own) - len(usable),
                "people agree": round(agreed / len(usable), 4) if usable else None,
                "low": low,
                "high": high,
            }
        )
    return rows


def wilson(hits: int, n: int) -> tuple[float | None, float | None]:
    """95 % interval of a share (Wilson 1927); (None, None) of nothing."""
    if not n:
        return None, None
    z = 1.959964
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)
