"""Other cameras: the same picture in other colours, with dark edges and cinema bars.

The base domain has one camera. A tower that has seen no other takes a warm light or a black bar
for a cause; a large one has seen thousands. All numbers are drawn from wide ranges, none is the
other domain's.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

SHARE = 0.75  # of the pictures


def filmed(pixels: np.ndarray, rng: np.random.Generator, share: float = SHARE) -> np.ndarray:
    """Take pictures with a camera drawn for each.

    Args:
        pixels: uint8 [n, side, side, 3].
        rng: Of the draws.
        share: Of the pictures; the others stay as they are.

    Returns:
        uint8, as ``pixels``.
    """
    taken = pixels.copy()
    side = pixels.shape[1]
    for row in np.flatnonzero(rng.random(len(pixels)) < share):
        own, mixed = rng.uniform(0.75, 1.1, 3), rng.uniform(-0.12, 0.12, (3, 3))
        np.fill_diagonal(mixed, own)
        image = cv2.transform(pixels[row], mixed)
        light = rng.uniform(0.95, 1.1) - rng.uniform(0, 0.5) * _from_middle(side)
        image = np.clip(image * np.clip(light, 0, 1.1)[..., None], 0, 255).astype(np.uint8)
        if rng.random() < 0.6 and (bar := int(rng.integers(0, 8 * side // 100))):
            image[:bar] = image[-bar:] = 0
        taken[row] = image
    return taken


@cache
def _from_middle(side: int) -> np.ndarray:
    """Half the squared distance from the middle, 1 in the corners: float [side, side]."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return (x**2 + y**2) / 2
