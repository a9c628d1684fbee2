"""How many tokens a sample costs, known from image sizes before anything is decoded.

Pure functions with the model's own rules: dynamic tiling, the thumbnail, ``<img>…</img>``
around each block. A sample that does not fit is an error that says what would fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from emolib.errors import DataError
from emolib.files import read_json

Size = tuple[int, int]  # width, height in pixels


class TokenBudgetError(DataError):
    """A sample is longer than the model may read, whatever its tiling."""


@lru_cache(maxsize=64)
def _grids(min_num: int, max_num: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) of every allowed grid; few tiles first, columns ascending."""
    found = [
        (columns, rows)
        for columns in range(1, max_num + 1)
        for rows in range(1, max_num // columns + 1)
        if columns * rows >= min_num
    ]
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))


@lru_cache(maxsize=4096)
def tile_grid(size: Size, max_num: int, min_num: int = 1, tile: int = 448) -> tuple[int, int]:
    """Choose the grid an image is cut into: the one nearest to its aspect ratio.

    Of equally near grids the largest wins whose area is less than twice the image's.

    Args:
        size: (width, height) of the image, pixels.
        max_num: Most tiles, the thumbnail not counted; >= ``min_num``.
        min_num: Fewest tiles.
        tile: Side of a tile, pixels.

    Returns:
        (columns, rows).

    Raises:
        ValueError: an image without pixels, or no grid allowed.

    Source: InternVL 2410d1d, ``train/dataset.py: find_closest_aspect_ratio``, with its
    floating-point comparisons, which decide exact ties.
    """
    width, height = size
    if width < 1 or height < 1 or not 1 <= min_num <= max_num:
        raise ValueError(f"no grid for size {size}, {min_num} to {max_num} tiles")
    ratio, area = width / height, width * height
    best, best_gap = (1, 1), float("inf")
    for columns, rows in _grids(min_num, max_num):
        gap = abs(ratio - columns / rows)
        wider = gap == best_gap and area > 0.5 * tile * tile * columns * rows
        if gap < best_gap or wider:
            best, best_gap = (columns, rows), gap
    return best


def tile_count(size: Size, max_num: int, min_num: int = 1, tile: int = 448) -> int:
    """Tiles of one image: its grid, and a thumbnail when the grid has more than one tile.

    Never falls when ``max_num`` grows.
    """
    columns, rows = tile_grid(size, max_num, min_num, tile)
    return columns * rows + (columns * rows > 1)


@dataclass(frozen=True, slots=True)
class Tiling:
    """What the token count of a model depends on; read it with :func:`tiling_of`.

    Attributes:
        tokens: Image tokens of one tile (256).
        tile: Side of a tile in pixels (448).
        min_num: Fewest tiles of an image.
        max_num: Most tiles of an image, the thumbnail not counted.
        layout: "joint" or "separate" image blocks, see :class:`prompting.Dialect`.
    """

    tokens: int = 256
    tile: int = 448
    min_num: int = 1
    max_num: int = 12
    layout: str = "joint"

    @property
    def option(self) -> str:
        """The parameter that lowers the cost."""
        return "max_tiles"

    @property
    def own(self) -> int:
        """Most tiles of an image as the model has it."""
        return self.max_num

    def tiles(self, sizes: Sequence[Size], max_num: int = 0) -> list[int]:
        """Tiles of each image at ``max_num`` (0 = the model's own)."""
        top = max_num or self.max_num
        return [tile_count(size, top, min(self.min_num, top), self.tile) for size in sizes]

    def image_tokens(self, sizes: Sequence[Size], max_num: int = 0) -> int:
        """``<IMG_CONTEXT>`` tokens of neighbouring images; block marks not counted."""
        return self.tokens * sum(self.tiles(sizes, max_num))

    def marks(self, images: int) -> int:
        """``<img>`` and ``</img>`` tokens of neighbouring images (line breaks are text)."""
        return 2 * (min(images, 1) if self.layout == "joint" else images)

    def fit(
        self, sizes: Sequence[Size], other: int, max_length: int, max_num: int = 0
    ) -> tuple[int, int]:
        """Find the finest tiling that fits.

        Args:
            sizes: (width, height) of every image of the sample.
            other: All other tokens of the sample: words, roles, block marks, answer.
            max_length: Most tokens in all.
            max_num: Finest tiling tried; 0 = the model's own.

        Returns:
            (largest ``max_num`` that fits, tokens of the sample with it).

        Raises:
            TokenBudgetError: not even one tile an image fits.
        """
        for top in range(max_num or self.max_num, 0, -1):
            total = other + self.image_tokens(sizes, top)
            if total <= max_length:
                return top, total
        raise TokenBudgetError(
            f"{len(sizes)} images of one tile ({self.image_tokens(sizes, 1)} tokens) and {other} "
            f"other tokens are {total} tokens, more than max_length = {max_length}: take fewer "
            "images, a shorter text or a larger max_length"
        )

    def check(self, sizes: Sequence[Size], other: int, max_length: int, max_num: int = 0) -> int:
        """Count a sample at a given tiling.

        Returns:
            Tokens of the sample.

        Raises:
            TokenBudgetError: more than ``max_length``; names the ``max_num`` that would fit.
        """
        top = max_num or self.max_num
        total = other + self.image_tokens(sizes, top)
        if total > max_length:
            fits, tokens = self.fit(sizes, other, max_length, top)
            raise TokenBudgetError(
                f"{total} tokens ({self.image_tokens(sizes, top)} of {len(sizes)} images at "
                f"max_num = {top}) are more than max_length = {max_length}; max_num = {fits} "
                f"fits with {tokens}"
            )
        return total


def tiling_of(folder: Path) -> Tiling:
    """Read a converted folder's tiling (two small JSON files, no model library).

    Raises:
        DataError: not a converted folder.
    """
    config, processor = (read_json(folder / n) for n in ("config.json", "processor_config.json"))
    try:
        images = processor["image_processor"]
        return Tiling(
            tokens=processor["image_seq_length"],
            tile=images["size"]["height"],
            min_num=images["min_patches"],
            max_num=images["max_patches"],
            layout=config["chat"]["layout"],
        )
    except KeyError as error:
        raise DataError(f"{folder}: no {error} in its configuration: not converted here") from None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a preflight: a name, its image sizes and its other tokens."""

    name: str
    sizes: tuple[Size, ...]
    other: int


def preflight(
    samples: Iterable[Sample], tiling: Tiling, max_length: int
) -> tuple[int, list[dict[str, Any]]]:
    """Find the one tiling at which every sample of a data set fits.

    Returns:
        (``max_num``, rows ``{"name", "tokens", "max_num"}``): tokens at the returned tiling,
        and the finest tiling this sample alone could have.

    Raises:
        TokenBudgetError: a sample that cannot fit; names it.
    """
    kept: list[tuple[Sample, int]] = []
    for sample in samples:
        try:
            kept.append((sample, tiling.fit(sample.sizes, sample.other, max_length)[0]))
        except TokenBudgetError as error:
            raise TokenBudgetError(f"{sample.name}: {error}") from None
    # More tiles allowed never means fewer taken, so what the tightest sample needs fits all.
    best = min((alone for _, alone in kept), default=tiling.max_num)
    rows = [
        {
            "name": sample.name,
            "tokens": sample.other + tiling.image_tokens(sample.sizes, best),
            "max_num": alone,
        }
        for sample, alone in kept
    ]
    return best, rows
