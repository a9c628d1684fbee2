"""Anti-aliased shapes in float coordinates on an OpenCV image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from emolib.datasets.demo.cast import Color

_SHIFT = 4  # sub-pixel bits of OpenCV's fixed-point coordinates
_CIRCLE = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 20, endpoint=False)), np.sin(t)], axis=1)

Points = np.ndarray | Sequence[tuple[float, float]]


def _fixed(points: Points) -> np.ndarray:
    return np.rint(np.asarray(points, dtype=np.float64) * (1 << _SHIFT)).astype(np.int32)


def fill(image: np.ndarray, points: Points, color: Color) -> None:
    """Fill a polygon, float [n, 2] in pixels."""
    cv2.fillPoly(image, [_fixed(points)], color, cv2.LINE_AA, _SHIFT)


def line(
    image: np.ndarray, points: Points, color: Color, width: float, closed: bool = False
) -> None:
    """Draw a polyline ``width`` pixels thick (at least 1), with round ends."""
    cv2.polylines(image, [_fixed(points)], closed, color, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def oval(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0) -> np.ndarray:
    """Give an ellipse as a polygon, float64 [20, 2]; ``angle`` in radians."""
    points = _CIRCLE * (rx, ry)
    if angle:
        c, s = np.cos(angle), np.sin(angle)
        points = points @ np.array([[c, s], [-s, c]])
    return points + np.array([cx, cy])


def disc(image: np.ndarray, cx: float, cy: float, radius: float, color: Color) -> None:
    """Fill a circle."""
    scale = 1 << _SHIFT
    cv2.circle(
        image,
        (round(cx * scale), round(cy * scale)),
        max(1, round(radius * scale)),
        color,
        -1,
        cv2.LINE_AA,
        _SHIFT,
    )


def box(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
    """Fill an upright rectangle (whole pixels)."""
    cv2.rectangle(image, (round(x0), round(y0)), (round(x1), round(y1)), color, -1)


def mix(a: Color, b: Color, share: float) -> Color:
    """Blend two colours: ``share`` of ``b`` in [0, 1], the rest of ``a``."""
    blue, green, red = (
        int(min(255, max(0, x + (y - x) * share))) for x, y in zip(a, b, strict=True)
    )
    return (blue, green, red)


def shade(color: Color, factor: float) -> Color:
    """Darken (< 1) or lighten (> 1) a colour."""
    return mix((0, 0, 0), color, factor) if factor <= 1 else mix(color, (255, 255, 255), factor - 1)


def curve(*points: tuple[float, float], steps: int = 7) -> np.ndarray:
    """Sample a smooth curve through 3 points (corner, middle, corner), float64 [steps, 2]."""
    a, m, b = (np.asarray(p, dtype=np.float64) for p in points)
    t = np.linspace(0, 1, steps)[:, None]
    control = 2 * m - (a + b) / 2  # the Bézier curve then passes through m at t = 1/2
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * control + t**2 * b


def smooth(points: Points) -> np.ndarray:
    """Round a closed polygon's corners (Chaikin, one pass), float64 [2n, 2]."""
    p = np.asarray(points, dtype=np.float64)
    following = np.roll(p, -1, axis=0)
    return np.stack([0.75 * p + 0.25 * following, 0.25 * p + 0.75 * following], 1).reshape(-1, 2)
