"""Token counts of prompts and training rows before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from emolib.files import read_json
from emolib.models import qwen
from emolib.models.internvl.budget import Sample, Size
from emolib.models.internvl.preflight import Counter, HfCounter


class ImageCost(Protocol):
    """What images cost a model, and the parameter that lowers it; 0 = the model's own value."""

    @property
    def option(self) -> str:
        """The parameter: "max_tiles" or "max_pixels"."""
        ...

    @property
    def own(self) -> int:
        """The model's own value of it."""
        ...

    def image_tokens(self, sizes: Sequence[Size], top: int = 0, /) -> int:
        """Tokens of images of (width, height) pixels."""
        ...

    def fit(
        self, sizes: Sequence[Size], other: int, max_length: int, top: int = 0, /
    ) -> tuple[int, int]:
        """Find the largest value at which a sample fits, and its tokens then."""
        ...

    def check(self, sizes: Sequence[Size], other: int, max_length: int, top: int = 0, /) -> int:
        """Count a sample; an error names the value that would fit."""
        ...


class PromptCounter(Protocol):
    """Counts for one model folder."""

    @property
    def images(self) -> ImageCost:
        """What images cost."""
        ...

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """Tokens of a conversation that are not image tokens."""
        ...

    def samples(self, rows: Path) -> Iterator[Sample]:
        """Yield every row of a training file as a sample."""
        ...


def open_counter(folder: Path) -> PromptCounter | None:
    """Open the counter of an InternVL folder (converted or ``-hf``) or a Qwen-VL or -Omni one.

    Returns:
        None for any other model.

    Raises:
        DataError: the folder's JSON files cannot be read.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") == "internvl":
        return Counter(folder) if "chat" in config else HfCounter(folder)
    return qwen.QwenCounter(folder) if qwen.is_counted(config, folder) else None
