"""Token counts of a training file, exactly as ms-swift will encode it, without encoding it.

Images are opened for their size only, words are tokenised; no pixel is decoded and no model
library is loaded beyond the tokenizer. Cost: one file header an image and some 1 MB of text a
second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
    return preflight(counter.samples(rows), counter.images, max_length)


class HfCounter:
    """Counts for an ``-hf`` folder, as ms-swift's ``internvl_hf`` writes its conversations.

    Attributes:
        images: The model's tiling.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        processor = read_json(folder / "processor_config.json")
        images = processor.get("image_processor")
        if images is None:  # published before transformers 5
            images = read_json(folder / "preprocessor_config.json")
        # ``crop_to_patches`` of the folder is not read: published ones say false, and both
        # transformers' InternVLProcessor and ms-swift cut tiles all the same.
        self.images = Tiling(
            tokens=processor["image_seq_length"],
            tile=images["size"]["height"],
            min_num=images.get("min_patches", 1),
            max_num=images.get("max_patches", 12),
            layout="separate",
        )
        self._chat = ChatCounter(Tokenizer.from_file(str(folder / "tokenizer.json")), after="\n")

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """See :meth:`ChatCounter.other`."""
        return self._chat.other(messages, images)

    def samples(self, rows: Path) -> Iterator[Sample]:
        """See :func:`row_samples`."""
        return row_samples(rows, self.other)


class ChatCounter:
    """Counts conversations in ChatML, the format of Qwen and of InternVL's ``-hf`` folders.

    Args:
        tokenizer: Of the package ``tokenizers``.
        system: System message of a conversation that has none; "" = none.
        after: Text behind every image.
    """

    def __init__(self, tokenizer: Any, system: str = "", after: str = "") -> None:
        tokenizer.encode_special_tokens = True  # a mark in a text is text
        self._tokenizer, self._system, self._after = tokenizer, system, after
        # a token that opens every text
        self._start = len(tokenizer.encode("a").ids) - self.text("a")

    def text(self, text: str) -> int:
        """Tokens of a text without special tokens."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else 0

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """Tokens of a conversation that are not image tokens.

        Args:
            messages: System (optional), then user and assistant in turn; a conversation that
                ends with the user is counted up to where the model would answer.
            images: Images of the conversation; without ``<image>`` marks they stand first.

        Raises:
            DataError: roles out of order, or image marks and images disagree.
        """
        turns, system = list(messages), self._system
        if turns and turns[0]["role"] == "system":
            system = turns.pop(0)["content"]
        roles = [turn["role"] for turn in turns]
        if not roles or roles != [("user", "assistant")[i % 2] for i in range(len(roles))]:
            raise DataError(f"roles {roles}: expected user and assistant in turn")
        marked = sum(turn["content"].count("<image>") for turn in turns[::2])
        if marked not in (0, images):
            raise DataError(f"{marked} <image> marks for {images} images")
        end = self.text("\n")  # behind the end of a turn
        count = self._start + (2 + self.text(f"system\n{system}") + end if system else 0)
        for i, turn in enumerate(turns):
            text = turn["content"]
            if i % 2:  # answers are tokenised by themselves, because only they are learnt
                count += self.text(text) + 1 + end
                continue
            if images and not marked and not i:
                text = "<image>" * images + text
            first, *rest = text.split("<image>")
            count += self.text(f"user\n{first}") + end + self.text("assistant\n")
            # start and end of both turns but the last end, and of every image
            count += 3 + sum(2 + self.text(self._after + piece) for piece in rest)
        return count


def row_samples(
    rows: Path, other: Callable[[Sequence[dict[str, str]], int], int]
) -> Iterator[Sample]:
    """Yield every row of a training file as a sample named "line N".

    Args:
        rows: As ``swift sft`` reads them.
        other: Counts a row's tokens but those of its images.

    Raises:
        DataError: a row or image that cannot be read; names its line.
    """
    for number, row in enumerate(read_jsonl(rows), 1):
        try:
            sizes = tuple(image_size(path) for path in row.get("images") or ())
            yield Sample(f"line {number}", sizes, other(row["messages"], len(sizes)))
        except (DataError, KeyError, TypeError) as error:
            raise DataError(f"{rows}, line {number}: {error}") from None


class Counter:
    """Counts conversations for one converted model.

    Attributes:
        images: The model's tiling.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.images: Tiling = tiling_of(folder)
        self._dialect = Dialect(**read_json(folder / "config.json")["chat"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def samples(self, rows: Path) -> Iterator[Sample]:
        """See :func:`row_samples`."""
        return row_samples(rows, self.other)

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


def image_size(path: str) -> Size:
    """Read (width, height) from an image file's header.

    Raises:
        DataError: not an image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an image: {error}") from None
