"""Token counts of Qwen's vision-language models, from image sizes and texts alone.

An image is scaled to a number of pixels and costs one token for every ``factor * factor`` of them
(28 * 28 in Qwen2-VL, Qwen2.5-VL and Qwen2.5-Omni, 32 * 32 in Qwen3-VL and Qwen3-Omni): a 1080p
frame is 2,691 or 2,040 tokens unless ``max_pixels`` lowers that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.errors import DataError
from emolib.files import read_json
from emolib.models.internvl.budget import Sample, Size, TokenBudgetError
from emolib.models.internvl.preflight import ChatCounter, row_samples

_LEAST = 4  # tokens of the smallest image, qwen_vl_utils.IMAGE_MIN_TOKEN_NUM
_MOST = 16_384  # of the largest, IMAGE_MAX_TOKEN_NUM
_DEFAULT_SYSTEM = "You are a helpful assistant."
# model_type of config.json -> the system message that ms-swift's template begins with.
_SYSTEMS = {
    "qwen2_vl": _DEFAULT_SYSTEM,
    "qwen2_5_vl": _DEFAULT_SYSTEM,
    "qwen2_5_omni": _DEFAULT_SYSTEM,
    "qwen3_vl": "",
    "qwen3_vl_moe": "",
    "qwen3_omni_moe": "",
}


def is_counted(config: dict[str, Any], folder: Path) -> bool:
    """Whether a folder is a model that :class:`QwenCounter` counts."""
    # MiMo-VL has Qwen2.5-VL's architecture and another template.
    return (
        config.get("model_type") in _SYSTEMS
        and "mimo" not in folder.name.lower()
        and (folder / "tokenizer.json").is_file()
    )


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many tokens images cost a model.

    Attributes:
        factor: Side of the square of pixels that becomes a token (28 or 32).
        own: Most pixels of an image as the folder says.
    """

    factor: int
    own: int

    @property
    def option(self) -> str:
        """The parameter that lowers the cost."""
        return "max_pixels"

    def tokens(self, size: Size, max_pixels: int = 0) -> int:
        """Tokens of one image, (width, height) in pixels; ``max_pixels`` 0 = the model's own.

        Never falls when ``max_pixels`` grows.

        Raises:
            DataError: an image so long that Qwen's rule leaves nothing of its short edge.

        Source: qwen_vl_utils 0.0.14, ``vision_process.py: smart_resize``.
        """
        (width, height), side, most = size, self.factor, max_pixels or self.own
        rows, columns = (max(1, round(length / side)) for length in (height, width))
        if rows * columns * side**2 > most:
            shrink = math.sqrt(height * width / most)
            rows, columns = (int(length / shrink / side) for length in (height, width))
        elif rows * columns < _LEAST:
            grow = math.sqrt(_LEAST * side**2 / (height * width))
            rows, columns = (math.ceil(length * grow / side) for length in (height, width))
        if max(size) > 200 * min(size) or not rows * columns:
            raise DataError(f"an image of {width} x {height} pixels is too long at {most} pixels")
        return rows * columns

    def image_tokens(self, sizes: Sequence[Size], max_pixels: int = 0) -> int:
        """Tokens of several images; marks around them not counted."""
        return sum(self.tokens(size, max_pixels) for size in sizes)

    def fit(
        self, sizes: Sequence[Size], other: int, max_length: int, max_pixels: int = 0
    ) -> tuple[int, int]:
        """Find the most pixels at which a sample fits.

        Args:
            sizes: (width, height) of every image of the sample.
            other: All other tokens of the sample.
            max_length: Most tokens in all.
            max_pixels: Most pixels tried; 0 = the model's own.

        Returns:
            (largest ``max_pixels`` that fits, a multiple of ``factor ** 2`` if it is not what
            was tried first, tokens of the sample with it).

        Raises:
            TokenBudgetError: not even the smallest images fit.
        """
        top = max_pixels or self.own
        if (total := other + self.image_tokens(sizes, top)) <= max_length:
            return top, total
        # tokens of an image: low fits, high does not; with fewer a long image would vanish
        low = max([_LEAST, *(2 + max(size) // min(size) for size in sizes)])
        high = top // self.factor**2 + 1
        total = other + self.image_tokens(sizes, low * self.factor**2)
        if total > max_length or low >= high:
            raise TokenBudgetError(
                f"{len(sizes)} images of at most {low} tokens and {other} other tokens are {total} "
                f"tokens, more than max_length = {max_length}: take fewer images, a shorter text "
                "or a larger max_length"
            )
        while high - low > 1:
            middle = (low + high) // 2
            fits = other + self.image_tokens(sizes, middle * self.factor**2) <= max_length
            low, high = (middle, high) if fits else (low, middle)
        best = low * self.factor**2
        return best, other + self.image_tokens(sizes, best)

    def check(self, sizes: Sequence[Size], other: int, max_length: int, max_pixels: int = 0) -> int:
        """Count a sample at given pixels.

        Returns:
            Tokens of the sample.

        Raises:
            TokenBudgetError: more than ``max_length``; names the ``max_pixels`` that would fit.
        """
        top = max_pixels or self.own
        total = other + self.image_tokens(sizes, top)
        if total > max_length:
            fits, tokens = self.fit(sizes, other, max_length, top)
            raise TokenBudgetError(
                f"{total} tokens ({self.image_tokens(sizes, top)} of {len(sizes)} images at "
                f"max_pixels = {top}) are more than max_length = {max_length}; max_pixels = "
                f"{fits} fits with {tokens}"
            )
        return total


def scaling_of(folder: Path) -> Scaling:
    """Read how a published folder scales images (one or two small JSON files).

    Raises:
        DataError: no image processor in the folder.
    """
    for name in ("processor_config.json", "preprocessor_config.json"):
        if not (folder / name).is_file():
            continue
        settings = read_json(folder / name)
        images = settings.get("image_processor", settings)
        if "patch_size" in images:
            own = images.get("max_pixels") or (images.get("size") or {}).get("longest_edge")
            factor = images["patch_size"] * images.get("merge_size", 2)
            most = _MOST * factor**2
            return Scaling(factor, min(int(own or most), most))
    raise DataError(f"{folder}: no patch_size in processor_config.json or preprocessor_config.json")


class QwenCounter:
    """Counts prompts and training rows as ms-swift's templates of these models write them.

    Attributes:
        images: The model's scaling.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.images = scaling_of(folder)
        self._kind = read_json(folder / "config.json")["model_type"]
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._chat = ChatCounter(tokenizer, _SYSTEMS[self._kind])

    def other(self, messages: Sequence[dict[str, str]], images: int) -> int:
        """See :meth:`emolib.models.internvl.preflight.ChatCounter.other`."""
        return self._chat.other(messages, images)

    def audio(self, seconds: float) -> int:
        """Most tokens of one audio input of so many seconds, its marks included.

        Raises:
            DataError: the model takes no audio.

        Source: transformers 5.19, ``_get_feat_extract_output_lengths`` of Qwen2.5-Omni (25 tokens
        a second) and Qwen3-Omni (13).
        """
        mels = math.ceil(100 * seconds)
        if self._kind == "qwen2_5_omni":
            return 2 + ((mels - 1) // 2 + 1 - 2) // 2 + 1
        if self._kind == "qwen3_omni_moe":
            return 2 + 13 * math.ceil(mels / 100)
        raise DataError("this model takes no audio")

    def samples(self, rows: Path) -> Iterator[Sample]:
        """See :func:`emolib.models.internvl.preflight.row_samples`."""
        return row_samples(rows, self.other)
