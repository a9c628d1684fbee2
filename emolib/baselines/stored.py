"""Descriptions or labels that were made elsewhere, as predictions of a system.

For models that only run in an environment of their own (SALMONN, Qwen-Audio), and for outputs
that others have published.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emolib.baselines.chat import failed, prediction
from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.files import read_jsonl
from emolib.hashing import sha_file
from emolib.labels import parse_labels
from emolib.params.baselines import Recipe
from emolib.predict import Prediction
from emolib.summaries import in_english

NAMES = ("name", "names", "video")
DESCRIPTIONS = ("description", "reason", "reasons", "chi_reasons", "text")
LABELS = ("labels", "openset")


def read(recipe: Recipe, clips: Sequence[Clip]) -> list[Prediction]:
    """Take every clip's row out of a recipe's file.

    Args:
        recipe: With ``file``: CSV or JSONL with a name (``name``, ``names``, ``video``) and a
            description (``description``, ``reasons``, ``chi_reasons``, ``text``) or labels
            (``labels``, ``openset``) a row. Labels win where there are both. Our own prediction
            files are such files; their error rows stay errors.
        clips: The clips that are wanted; one without a row is an error row.

    Raises:
        DataError: no such file, no such columns, or a name twice.
    """
    path = Path(recipe.file).expanduser()
    rows = read_rows(path)
    model = {"engine": "file", "file": path.name, "content": sha_file(path)[:16]}
    return [as_prediction(clip.name, recipe.title, model, rows.get(clip.name)) for clip in clips]


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a CSV or JSONL by name, each with "description" and "labels" (None: not given).

    Raises:
        DataError: no such file, no such columns, or a name twice.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".jsonl":
        raw = list(read_jsonl(path))
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
            raw = [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
        except (UnicodeDecodeError, csv.Error, OSError) as error:
            raise DataError(f"{path}: cannot be read as CSV: {error}") from None
    if not raw:
        raise DataError(f"{path}: no rows in it")
    name, described, labelled = (_column(raw[0], of) for of in (NAMES, DESCRIPTIONS, LABELS))
    if not name or not (described or labelled):
        raise DataError(
            f"{path}: needs a column of names {list(NAMES)} and one of descriptions "
            f"{list(DESCRIPTIONS)} or labels {list(LABELS)}; it has {list(raw[0])}"
        )
    found: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(raw, start=1):
        key = row.get(name)
        if not isinstance(key, str) or not key.strip():
            raise DataError(f"{path}, row {number}: no name in {name!r}")
        if key in found:
            raise DataError(f"{path}, row {number}: {key!r} occurs twice")
        found[key] = {
            "description": row.get(described) or "" if described else "",
            "labels": row.get(labelled) if labelled else None,
            "error": row.get("error") or None,
        }
    return found


def _column(row: dict[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in row), "")


def as_prediction(
    name: str, system: str, model: Mapping[str, Any], row: Mapping[str, Any] | None
) -> Prediction:
    """Make a prediction of what was answered elsewhere about one clip.

    Args:
        name: The clip.
        system: Name in tables.
        model: What is known of the model and its files.
        row: "description", "labels" (None: they are read out of the description) and "error";
            None gives a prediction with an error.
    """
    if row is None:
        return prediction(name, system, model, "", failed("no row in the file"))
    given = {**failed(""), "text": row["description"], "error": row["error"]}
    made = prediction(name, system, model, "", given)
    if row["labels"] is None or row["error"]:
        return made
    parsed = parse_labels(row["labels"])
    return replace(made, labels=in_english(parsed.labels), parse=parsed.status)
