"""Check the rows of a training file before hours are spent on them."""

from __future__ import annotations

import json
from pathlib import Path

from emolib.errors import DataError
from emolib.models.internvl.budget import TokenBudgetError
from emolib.models.internvl.preflight import open_counter


def check_rows(dataset: Path) -> int:
    """Check that every line is a trainable row and count them.

    Raises:
        DataError: names file, line and fault.
    """
    count = 0
    try:
        with Path(dataset).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    if fault := _row_fault(line):
                        raise DataError(f"{dataset}, line {number}: {fault}")
                    count += 1
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{dataset}: not readable: {error}") from None
    if not count:
        raise DataError(f"{dataset}: no rows")
    return count


def check_budget(folder: Path, dataset: Path, max_length: int, max_tiles: int = 0) -> None:
    """Check that every row of a training file fits; nothing to do for models not counted.

    Args:
        folder: The model's.
        dataset: The rows.
        max_length: Most tokens of a row.
        max_tiles: Most tiles of an image; 0 = the model's own.

    Raises:
        TokenBudgetError: names file, line, and the ``max_tiles`` that would fit.
    """
    counter = open_counter(folder)
    if counter is None or not counter.exact:
        return
    for sample in counter.samples(dataset):
        try:
            counter.tiling.check(sample.sizes, sample.other, max_length, max_tiles)
        except TokenBudgetError as error:
            raise TokenBudgetError(f"{dataset}, {sample.name}: {error} (max_tiles)") from None


def _row_fault(line: str) -> str:
    try:
        row = json.loads(line)
        messages, images = row["messages"], row.get("images") or []
        texts = [(m["role"], m["content"]) for m in messages]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"not a row of messages and images ({type(error).__name__}: {error})"
    if not texts or texts[-1][0] != "assistant":
        return "the last message is not the assistant's"
    for role, text in texts:
        if role not in ("system", "user", "assistant") or not isinstance(text, str):
            return f"a message of role {role!r}; expected system, user, assistant with text"
    if not texts[-1][1].strip():
        return "the answer to learn is empty"
    marks = sum(text.count("<image>") for _, text in texts)
    if marks not in (0, len(images)):
        return f"{marks} <image> marks for {len(images)} images"
    missing = [i for i in images if not (isinstance(i, str) and Path(i).is_file())]
    return f"no such image: {missing[0]}" if missing else ""
