"""Check the rows of a training file before hours are spent on them."""

from __future__ import annotations

import json
from pathlib import Path

from emolib.errors import DataError
from emolib.models.counting import open_counter
from emolib.models.internvl.budget import TokenBudgetError
from emolib.params.schemas import ModelParams
from emolib.processes import cores, side_by_side


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


def check_images(dataset: Path) -> None:
    """Decode every image of a training file once, on all cores (some 10 ms an image and core).

    A row whose image turns out to be damaged would otherwise end the training when it comes up.

    Raises:
        DataError: names file, line and image.
    """
    places: dict[str, int] = {}
    for number, line in enumerate(Path(dataset).read_text(encoding="utf-8").splitlines(), 1):
        for image in (json.loads(line).get("images") or []) if line.strip() else []:
            places.setdefault(image, number)
    for image, fault in side_by_side(_decoded, places, cores()):
        if fault:
            raise DataError(f"{dataset}, line {places[image]}: {image}: not an image: {fault}")


def _decoded(image: str) -> tuple[str, str]:
    from PIL import Image

    try:
        with Image.open(image) as opened:
            opened.load()
    except Exception as error:  # a damaged file can raise nearly anything
        return image, f"{type(error).__name__}: {error}"
    return image, ""


def check_budget(folder: Path, dataset: Path, max_length: int, model: ModelParams) -> bool:
    """Check that every row of a training file fits; nothing to do for models not counted.

    Args:
        folder: The model's.
        dataset: The rows.
        max_length: Most tokens of a row.
        model: Its ``max_tiles``, ``max_pixels`` and ``template`` are read.

    Returns:
        Whether the rows were counted.

    Raises:
        TokenBudgetError: names file, line, and the value that would fit.
    """
    counter = None if model.template else open_counter(folder)
    if counter is None:
        return False
    top = getattr(model, counter.images.option)
    for sample in counter.samples(dataset):
        try:
            counter.images.check(sample.sizes, sample.other, max_length, top)
        except TokenBudgetError as error:
            hint = counter.images.option
            raise TokenBudgetError(f"{dataset}, {sample.name}: {error} ({hint})") from None
    return True


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
    for mark in ("<video>", "<audio>"):  # ms-swift would look for such media
        if any(mark in text for _, text in texts):
            return f"a {mark} mark, but rows have images only: write it in another way"
    missing = [i for i in images if not (isinstance(i, str) and Path(i).is_file())]
    return f"no such image: {missing[0]}" if missing else ""
