"""Tables for the terminal and one self-contained HTML page over finished runs."""

from __future__ import annotations

import base64
import html
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from emolib import runs
from emolib.files import write_atomic

Cell = str | int | float | None


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> dict[str, Any]:
    """A table as stages put it under ``tables`` in their ``result.json``.

    Raises:
        ValueError: a row has another number of cells than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{title}: a row has {len(row)} cells for {len(columns)} columns")
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


def format_cell(value: Cell) -> str:
    """A cell as people read it: four decimals, "-" for nothing."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def one_line(text: str) -> str:
    """Text as it may go to a terminal: nothing in it moves the cursor, colours or turns words.

    Control characters, line breaks and marks of writing direction become spaces.
    """
    return "".join(" " if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def format_table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, widest: int = 60
) -> str:
    """Lay out a table in monospaced text; wide (Chinese) characters count as two columns.

    Args:
        columns: Heads.
        rows: Cells; long ones are cut to ``widest`` columns with an ellipsis.
        widest: In terminal columns.
    """
    columns = [one_line(head) for head in columns]
    texts = [[_cut(one_line(format_cell(c)), widest) for c in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(columns))
    ]
    widths = [
        max([_width(head), *(_width(row[i]) for row in texts)]) for i, head in enumerate(columns)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = [
            " " * (w - _width(c)) + c if right else c + " " * (w - _width(c))
            for c, w, right in zip(cells, widths, numeric, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(columns), "  ".join("-" * w for w in widths), *map(line, texts)])


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cut(text: str, widest: int) -> str:
    if _width(text) <= widest:
        return text
    kept = ""
    for char in text:
        if _width(kept + char) > widest - 1:
            break
        kept += char
    return kept + "…"


def text_tables(folders: Sequence[Path]) -> str:
    """The tables of finished runs, as ``emolib run`` prints them."""
    parts = []
    for folder in folders:
        for one in runs.read_result(folder).get("tables", []):
            title = one_line(one["title"])
            parts.append(f"\n{title}\n{format_table(one['columns'], one['rows'])}")
            parts += [f"  {one_line(note)}" for note in one.get("notes", [])]
    return "\n".join(parts)


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 }
h2 { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1rem 0 } img { max-width: 100%; background: white }
.meta, figcaption { opacity: .75; font-size: .9em }
.note { background: var(--soft); padding: .3rem .7rem }
"""


def write_report(
    outputs: Path,
    profile: str,
    folders: Sequence[Path],
    first: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``outputs/<profile>/report.html``: tables, figures and provenance of each run.

    Args:
        outputs: The project's output folder.
        profile: Its profile.
        folders: Finished runs.
        first: Tables over all of them, above the runs' own.

    The page needs no network and no other file; it links to the executed notebooks.
    """
    body = [
        f"<h1>emolib: profile {html.escape(profile)}</h1>",
        f"<p class=meta>{len(folders)} finished stages. Every number below was computed by the "
        "linked notebook, or is published and says where.</p>",
        *map(_html_table, first),
    ]
    target = outputs / profile / "report.html"
    for folder in folders:
        body += _section(folder, target.parent)
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>emolib {html.escape(profile)}</title><style>{_STYLE}</style>"
        f"{''.join(body)}</html>\n"
    )
    return write_atomic(target, page)


def _section(folder: Path, beside: Path) -> list[str]:
    manifest, result = runs.read_manifest(folder), runs.read_result(folder)
    notebook = folder / "notebook.ipynb"
    parts = [f"<h2>{html.escape(manifest.get('stage', folder.name))}</h2>", _meta(manifest)]
    if notebook.is_file():
        link = os.path.relpath(notebook.absolute(), beside.absolute())
        address = html.escape(quote(link))
        parts.append(f"<p class=meta>Notebook: <a href='{address}'>{html.escape(link)}</a></p>")
    parts += [f"<p class=note>{html.escape(note)}</p>" for note in result.get("notes", [])]
    parts += [_html_table(one) for one in result.get("tables", [])]
    for image in sorted((folder / "figures").glob("*.png")):
        data = base64.b64encode(image.read_bytes()).decode()
        name = html.escape(image.stem.replace("_", " "))
        parts.append(
            f"<figure><img alt='{name}' src='data:image/png;base64,{data}'>"
            f"<figcaption>{name}</figcaption></figure>"
        )
    return parts


def _meta(manifest: Mapping[str, Any]) -> str:
    git = manifest.get("git") or {}
    revision = (git.get("revision") or "no git")[:10] + (
        " (changed files)" if git.get("dirty") else ""
    )
    facts = [
        manifest.get("finished", ""),
        f"{manifest.get('seconds', 0):.0f} s",
        f"{manifest.get('peak_memory_mb', 0)} MB",
        f"revision {revision}",
    ]
    return f"<p class=meta>{html.escape(' · '.join(facts))}</p>"


def _html_table(one: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in one["columns"])
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=number' if isinstance(c, int | float) else ''}>"
            f"{html.escape(format_cell(c))}</td>"
            for c in row
        )
        + "</tr>"
        for row in one["rows"]
    )
    notes = "".join(f"<p class=meta>{html.escape(n)}</p>" for n in one.get("notes", []))
    caption = html.escape(one["title"])
    return f"<table><caption>{caption}</caption><tr>{head}</tr>{rows}</table>{notes}"
