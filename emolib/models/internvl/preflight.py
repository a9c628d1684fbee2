"""Token counts of a training file, exactly as ms-swift will encode it, without encoding it.

Images are opened for their size only, words are tokenised; no pixel is decoded and no model
library is loaded beyond the tokenizer. Cost: one file header an image and some 1 MB of text a
second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from emolib.errors import DataError
from emolib.files import read_json, read_jsonl
from emolib.models.internvl.budget import Sample, Size, Tiling, preflight, tiling_of
from emolib.models.internvl.prompting import BREAK, Dialect, broken_marks, lay_out


def preflight_rows(folder: Path, rows: Path, max_length: int) -> tuple[int, list[dict[str, Any]]]:
    """Find the tiling at which every row of a training file fits ``max_length``.

    Args:
        folder: Converted model.
        rows: JSON lines ``{"messages": [{"role", "content"}, ...], "images": [path, ...]}``,
            as ``swift sft`` reads them.
        max_length: Most tokens of a row, answer included.

    Returns:
        (``max_num``, one ``{"name": "line N", "tokens", "max_num"}`` a row), see
        :func:`emolib.models.internvl.budget.preflight`.

    Raises:
        TokenBudgetError: a row cannot fit at all; names its line.
        DataError: a row or image that cannot be read; names its line.
    """
    counter = Counter(folder)
    return preflight(counter.samples(rows), counter.tiling, max_length)


class PromptCounter(Protocol):
    """Counts for one model folder.

    Attributes:
        tiling: The model's tiling.
        exact: Whole conversations and training files are counted, not only first questions.
    """

    tiling: Tiling
    exact: bool

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """Tokens of a conversation that are not ``<IMG_CONTEXT>``."""
        ...

    def samples(self, rows: Path) -> Iterator[Sample]:
        """Yield every row of a training file as a sample."""
        ...


def open_counter(folder: Path) -> PromptCounter | None:
    """Open the counter of a converted or published ``-hf`` InternVL folder; else None.

    Raises:
        DataError: the folder's JSON files cannot be read.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "internvl":
        return None
    return Counter(folder) if "chat" in config else HfCounter(folder)


class HfCounter:
    """Counts first questions to an ``-hf`` folder, as ms-swift's ``internvl_hf`` asks them."""

    exact = False

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        processor = read_json(folder / "processor_config.json")
        images = processor.get("image_processor")
        if images is None:  # published before transformers 5
            images = read_json(folder / "preprocessor_config.json")
        self.tiling = Tiling(
            tokens=processor["image_seq_length"],
            tile=images["size"]["height"],
            min_num=images.get("min_patches", 1),
            max_num=images.get("max_patches", 12),
            layout="separate",
        )
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """Tokens of one question that are not ``<IMG_CONTEXT>``."""
        [turn] = messages
        blocks = "<img></img>\n" * images
        text = f"<|im_start|>user\n{blocks}{turn['content']}<|im_end|>\n<|im_start|>assistant\n"
        start = len(self._tokenizer.encode("a").ids) - 1  # a mark that opens every text
        return start + len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def samples(self, rows: Path) -> Iterator[Sample]:
        """Training rows are not counted."""
        return iter(())


class Counter:
    """Counts conversations for one converted model.

    Attributes:
        tiling: The model's tiling.
        exact: True.
    """

    exact = True

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tiling: Tiling = tiling_of(folder)
        self._dialect = Dialect(**read_json(folder / "config.json")["chat"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def samples(self, rows: Path) -> Iterator[Sample]:
        """Yield every row of a training file as a sample named "line N"."""
        for number, row in enumerate(read_jsonl(rows), 1):
            try:
                sizes = tuple(_size(path) for path in row.get("images") or ())
                yield Sample(f"line {number}", sizes, self.other(row["messages"], len(sizes)))
            except (DataError, KeyError, TypeError) as error:
                raise DataError(f"{rows}, line {number}: {error}") from None

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """Tokens of a conversation that are not ``<IMG_CONTEXT>``.

        Args:
            messages: System (optional), then user and assistant in turn; a conversation that
                ends with the user is counted up to where the model would answer.
            images: Images of the conversation.

        Raises:
            DataError: roles out of order, or image marks and images disagree.
        """
        turns, end = list(messages), self._dialect.end
        system = self._dialect.system
        if turns and turns[0]["role"] == "system":
            system = broken_marks(turns.pop(0)["content"])
        roles = [turn["role"] for turn in turns]
        if not roles or roles != [("user", "assistant")[i % 2] for i in range(len(roles))]:
            raise DataError(f"roles {roles}: expected user and assistant in turn")
        first = turns[0]["content"]
        if images and not any("<image>" in t["content"] for t in turns[::2]):
            first = "<image>" * images + first
        # Answers are tokenised by themselves, because only they are learnt.
        parts = [f"<|im_start|>system\n{system}{end}" if system else ""]
        left = images
        for i, turn in enumerate(turns):
            text = turn["content"] if i else first
            if i % 2:
                parts += [broken_marks(text), end]
            else:
                text, taken = lay_out(text, left, self._dialect.layout)
                left -= taken
                parts[-1] += f"<|im_start|>user\n{text}{end}<|im_start|>assistant\n"
        if left:
            raise DataError(f"{left} of {images} images have no <image> mark")
        pieces = [p for part in parts for run in part.split("<image>") for p in run.split(BREAK)]
        return 1 + sum(
            len(self._tokenizer.encode(piece, add_special_tokens=False).ids)
            for piece in pieces
            if piece
        )


def _size(path: str) -> Size:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an image: {error}") from None
