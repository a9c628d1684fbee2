"""Decorate a place as the ``setting`` state causes it: things and light behind the person.

``decorate`` paints what stands still; ``animate`` what moves, frame by frame, still behind the
person; ``foreground`` the few things before them, below the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from emolib.datasets.demo.cast import Color
from emolib.datasets.demo.paint import box, disc, fill, line, oval, shade, smooth
from emolib.datasets.demo.place import SIZE

_PARTY: tuple[Color, ...] = (
    (60, 60, 230), (220, 140, 40), (60, 200, 250), (90, 190, 70), (200, 80, 200),
)  # fmt: skip

# Light of the surroundings: factor of each channel (blue, green, red), saturation.
_LIGHT: dict[str, tuple[tuple[float, float, float], float]] = {
    "festive": ((1.02, 1.04, 1.06), 1.1),
    "mournful": ((0.7, 0.68, 0.68), 0.15),
    "threatened": ((0.52, 0.36, 0.34), 0.5),
    "lonely": ((0.86, 0.6, 0.5), 0.5),
    "pressured": ((0.62, 0.62, 0.64), 0.8),
    "romantic": ((0.92, 0.8, 1.06), 0.9),
    "overwhelmed": ((0.95, 0.98, 0.98), 0.8),
    "relaxed": ((0.62, 0.84, 1.04), 0.9),
}


def decorate(image: np.ndarray, setting: str, rng: np.random.Generator) -> np.ndarray:
    """Give the place with the setting's light and its resting things, uint8 [224, 224, 3]."""
    if not setting:
        return image
    factors, saturation = _LIGHT[setting]
    grey = np.full((3, 3), 1 / 3) * (1 - saturation) + np.eye(3) * saturation
    image = cv2.transform(image, np.diag(factors) @ grey)
    o = float(rng.uniform(-6, 6))
    {
        "festive": _festive, "mournful": _mournful, "threatened": _threatened,
        "lonely": _lonely, "pressured": _pressured, "romantic": _romantic,
        "overwhelmed": _overwhelmed, "relaxed": _relaxed,
    }[setting](image, o)  # fmt: skip
    return image


def _festive(image: np.ndarray, o: float) -> None:
    for row, y in enumerate((6, 26)):
        line(image, [(0, y), (112, y + 12), (224, y)], (90, 90, 90), 1)
        for k in range(9):
            x = k * 26 + 6 + 13 * row
            top = y + 12 * (1 - abs(x - 112) / 112)
            fill(image, [(x - 8, top), (x + 8, top), (x, top + 16)], _PARTY[(k + row) % 5])
    for k, (x, y) in enumerate(((22, 70), (44, 92), (14, 112), (202, 74), (182, 98), (210, 116))):
        line(image, [(x + o, y + 16), (x + o + 4, y + 60)], (120, 120, 120), 1)
        fill(image, oval(x + o, y, 14, 17), _PARTY[k % 5])
        disc(image, x + o - 4, y - 6, 3, shade(_PARTY[k % 5], 1.6))


def _mournful(image: np.ndarray, o: float) -> None:
    cx = 182 + o
    for k in range(18):
        a = k * np.pi / 9
        disc(image, cx + 26 * np.cos(a), 74 + 26 * np.sin(a), 9, (60, 84 + 10 * (k % 3), 58))
    for k in range(6):
        a = k * np.pi / 3
        disc(image, cx + 26 * np.cos(a), 74 + 26 * np.sin(a), 4, (220, 220, 226))
    fill(
        image, [(cx - 4, 96), (cx + 4, 96), (cx + 16, 140), (cx + 6, 136), (cx, 142)], (24, 22, 24)
    )
    for x, h in ((14, 52), (32, 70), (50, 44)):
        box(image, x + o, 168 - h, x + o + 10, 176, (214, 222, 228))


def _threatened(image: np.ndarray, o: float) -> None:
    cloud: Color = (60, 44, 44)
    for x, y, r in ((20, 10, 30), (70, 4, 34), (130, 8, 36), (190, 6, 34), (224, 20, 26)):
        disc(image, x, y, r, cloud)
    # a large shadow with pale eyes looms beside the person
    cx = 184 + o
    dark: Color = (18, 12, 12)
    fill(image, smooth(smooth([(cx - 40, 224), (cx - 44, 120), (cx - 20, 86), (cx - 22, 44),
                               (cx, 26), (cx + 22, 44), (cx + 20, 86), (cx + 44, 120),
                               (cx + 40, 224)])), dark)  # fmt: skip
    for s in (-1, 1):
        fill(image, oval(cx + s * 9, 58, 5, 3.2, 0.4 * s), (120, 220, 250))


def _lonely(image: np.ndarray, o: float) -> None:
    disc(image, 196 + o, 28, 11, (214, 216, 206))
    for k, x in enumerate((12, 48, 168, 200)):
        y, wood = 128 + 4 * (k % 2), (74, 66, 66)
        box(image, x + o, y - 44, x + o + 4, y + 50, wood)
        box(image, x + o, y, x + o + 28, y + 5, wood)
        box(image, x + o + 24, y, x + o + 28, y + 50, wood)
        for rung in (y - 40, y - 26, y - 12):
            box(image, x + o, rung, x + o + 14, rung + 3, wood)


def _pressured(image: np.ndarray, o: float) -> None:
    skins: tuple[Color, ...] = ((110, 130, 160), (90, 110, 140), (120, 140, 166), (76, 92, 120))
    for row, (y, r, n) in enumerate(((46, 13, 8), (80, 16, 6), (122, 20, 5))):
        for k in range(n):
            x = (k + 0.5) * SIZE / n + (o if row % 2 else -o)
            fill(
                image,
                oval(x, y + r * 2.1, r * 1.3, r * 1.3),
                shade((96, 80, 76), 0.7 + 0.15 * ((k + row) % 3)),
            )
            fill(image, oval(x, y, r * 0.82, r), skins[(k + row) % 4])
            toward = 0.25 * np.sign(112 - x)  # all look at the person
            for s in (-1, 1):
                ex = x + s * r * 0.34
                fill(image, oval(ex, y - r * 0.1, r * 0.24, r * 0.2), (236, 236, 236))
                disc(image, ex + toward * r * 0.4, y - r * 0.06, max(1.0, r * 0.11), (20, 20, 20))
            line(image, [(x - r * 0.25, y + r * 0.5), (x + r * 0.25, y + r * 0.5)], (50, 50, 70), 1)


def _heart(image: np.ndarray, x: float, y: float, r: float, color: Color) -> None:
    t = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    px = 16 * np.sin(t) ** 3
    py = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    fill(image, np.stack([px, py], 1) * (r / 16) + (x, y), color)


def _romantic(image: np.ndarray, o: float) -> None:
    for y in (8, 30):
        line(image, [(0, y), (112, y + 10), (224, y)], (120, 110, 160), 1)
        for k in range(8):
            x = k * 30 + 10
            _heart(image, x, y + 14 * (1 - abs(x - 112) / 112) + 4, 8, (110, 70, 230))
    for x, y in ((20, 186), (42, 196), (196, 190), (178, 200)):
        line(image, [(x + o, y), (x + o, 224)], (70, 130, 60), 2)
        for r, c in ((9, (50, 40, 190)), (6, (70, 60, 220)), (3, (100, 90, 240))):
            disc(image, x + o, y, r, c)


def _overwhelmed(image: np.ndarray, o: float) -> None:
    for x, n in ((4, 17), (44, 11), (172, 19), (140, 8)):
        for k in range(n):
            y, slip = 216 - k * 9, (k * 5 + x) % 7 - 3
            box(image, x + slip + o, y, x + 40 + slip + o, y + 7, (226, 232, 236))
            box(image, x + slip + o, y + 7, x + 40 + slip + o, y + 8, (130, 136, 140))
    disc(image, 40 + o, 34, 24, (60, 60, 66))
    disc(image, 40 + o, 34, 21, (240, 242, 242))
    for k in range(12):
        a = k * np.pi / 6
        disc(image, 40 + o + 17 * np.cos(a), 34 + 17 * np.sin(a), 1.4, (60, 60, 66))


def _relaxed(image: np.ndarray, o: float) -> None:
    glow = np.zeros(image.shape[:2], np.float32)
    cv2.circle(glow, (36 + round(o), 70), 70, 1.0, -1)
    glow = cv2.blur(glow, (61, 61))[..., None]
    image[:] = np.clip(image + glow * np.array([30, 70, 84]), 0, 255)
    line(image, [(36 + o, 78), (36 + o, 200)], (60, 80, 100), 3)
    fill(image, [(16 + o, 80), (56 + o, 80), (46 + o, 52), (26 + o, 52)], (150, 226, 255))
    for x in (176, 206):
        line(image, [(x, 0), (x, 26)], (80, 90, 100), 1)
        fill(image, [(x - 11, 26), (x + 11, 26), (x + 8, 44), (x - 8, 44)], (80, 110, 170))
        for a in np.linspace(0.3, 2.8, 6):
            fill(image, oval(x + 12 * np.cos(a), 40 + 16 * np.sin(a), 13, 3.4, a), (80, 150, 90))


class Motion:
    """What moves in the surroundings: weather, confetti, flames, lightning, hands of a clock.

    Costs some 0.1 ms a frame.
    """

    def __init__(self, setting: str, outdoor_weather: str, rng: np.random.Generator) -> None:
        self.setting, self.weather = setting, outdoor_weather
        self._xy = rng.random((28, 2)) * SIZE
        self._speed = rng.uniform(0.8, 1.25, 28)
        self._flash = float(rng.uniform(0.7, 1.6))

    def behind(self, image: np.ndarray, t: float) -> None:
        """Paint what moves behind the person at ``t`` seconds."""
        if self.weather in ("rainy", "snowy"):
            fast = 330.0 if self.weather == "rainy" else 38.0
            for (x, y0), s in zip(self._xy, self._speed, strict=True):
                y = (y0 + fast * s * t) % SIZE
                if self.weather == "rainy":
                    line(image, [(x + 3, y - 9), (x, y)], (214, 206, 198), 1)
                else:
                    disc(image, x + 4 * np.sin(2 * t + y0), y, 2, (246, 246, 246))
        if self.setting == "festive":
            for k, ((x, y0), s) in enumerate(zip(self._xy, self._speed, strict=True)):
                y = (y0 + 60 * s * t) % SIZE
                lean = 3 * np.sin(7 * s * t + k)
                line(image, [(x, y), (x + lean, y + 4)], _PARTY[k % 5], 3)
        elif self.setting == "mournful":
            for k, (x, top) in enumerate(((19, 116), (37, 98), (55, 124))):
                sway = 1.5 * np.sin(9 * t + 2 * k)
                fill(image, [(x - 4, top), (x + 4, top), (x + sway, top - 13)], (90, 190, 250))
        elif self.setting == "threatened" and abs(t - self._flash) < 0.13:
            cv2.convertScaleAbs(image, image, alpha=1.25, beta=34)
            bolt = [(52, 0), (38, 44), (56, 42), (34, 92), (78, 32), (58, 34), (74, 0)]
            fill(image, bolt, (220, 250, 255))
        elif self.setting == "overwhelmed":
            for length, rate, width in ((14, 4.0, 2), (9, 0.7, 3)):
                a = rate * t - 1
                tip = (40 + length * np.cos(a), 34 + length * np.sin(a))
                line(image, [(40, 34), tip], (40, 40, 46), width)
        elif self.setting == "romantic":
            for k in range(5):
                x, y = self._xy[k][0], (self._xy[k][1] - 26 * self._speed[k] * t) % SIZE
                _heart(image, x, y, 6, (140, 110, 240))

    def before(self, image: np.ndarray, t: float) -> None:
        """Paint what moves before the person, at the lower edge."""
        if self.setting == "relaxed":
            box(image, 168, 196, 194, 224, (60, 70, 190))
            line(image, [(194, 202), (202, 206), (194, 216)], (60, 70, 190), 4)
            for k in (0, 1):
                y = np.linspace(192, 170, 6)
                x = 176 + 9 * k + 3 * np.sin(y / 4 + 4 * t + k)
                line(image, np.stack([x, y], 1), (226, 230, 232), 1)
