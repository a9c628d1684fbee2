"""Paint the place a clip plays in: walls, sky, weather and furniture. Carries no emotion."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from emolib.datasets.demo.cast import Color, Place
from emolib.datasets.demo.paint import box, disc, fill, line, mix, oval, shade

SIZE = 224  # pixels, both ways
_GROUND = 150  # horizon or skirting board, pixels from the top

_SKY: dict[str, tuple[Color, Color]] = {  # top and bottom
    "by day": ((236, 190, 130), (250, 232, 212)),
    "in the evening": ((128, 84, 96), (130, 170, 240)),
    "at night": ((66, 34, 22), (110, 72, 50)),
}
_LIGHT = {"by day": 1.0, "in the evening": 0.86, "at night": 0.68}


def paint_place(place: Place, time: str, weather: str, rng: np.random.Generator) -> np.ndarray:
    """Paint the background of a clip.

    Returns:
        uint8 [224, 224, 3], blue-green-red.
    """
    image = np.empty((SIZE, SIZE, 3), np.uint8)
    if place.outside:
        _sky(image, time, weather, 0, 0, SIZE, _GROUND)
        _gradient(image, shade(place.floor, 1.08), shade(place.floor, 0.86), 0, _GROUND, SIZE, SIZE)
        if time == "at night":
            disc(image, 186, 30, 12, (210, 236, 244))
        elif weather == "clear" and time == "by day":
            disc(image, 190, 28, 14, (150, 226, 252))
    else:
        _gradient(image, shade(place.wall, 1.06), shade(place.wall, 0.93), 0, 0, SIZE, _GROUND + 22)
        box(image, 0, _GROUND + 20, SIZE, SIZE, place.floor)
        box(image, 0, _GROUND + 18, SIZE, _GROUND + 22, shade(place.wall, 0.75))
    offset = int(rng.integers(-8, 9))
    for prop in place.props:
        _PROPS[prop](image, offset, time, weather)
    light = _LIGHT[time] if place.outside else 0.5 + 0.5 * _LIGHT[time]
    if light < 1:
        image = cv2.convertScaleAbs(image, alpha=light)
    return image


def _gradient(
    image: np.ndarray, top: Color, bottom: Color, x0: int, y0: int, x1: int, y1: int
) -> None:
    t = np.linspace(0, 1, max(1, y1 - y0))[:, None, None]
    image[y0:y1, x0:x1] = np.array(top) * (1 - t) + np.array(bottom) * t


def _sky(image: np.ndarray, time: str, weather: str, x0: int, y0: int, x1: int, y1: int) -> None:
    top, bottom = _SKY[time]
    if weather != "clear":
        grey: Color = (170, 166, 162) if time == "by day" else (96, 88, 84)
        top, bottom = mix(top, grey, 0.75), mix(bottom, grey, 0.6)
    _gradient(image, top, bottom, x0, y0, x1, y1)


def _window(image: np.ndarray, o: int, time: str, weather: str) -> None:
    _pane(image, 14 + o, 26, 74 + o, 100, time, weather)


def _windows(image: np.ndarray, o: int, time: str, weather: str) -> None:
    for x in (6, 80, 154):
        _pane(image, x, 34, x + 64, 110, time, weather)


def _pane(image: np.ndarray, x0: int, y0: int, x1: int, y1: int, time: str, weather: str) -> None:
    x0, x1 = max(2, x0), min(SIZE - 2, x1)
    box(image, x0 - 3, y0 - 3, x1 + 3, y1 + 3, (220, 224, 226))
    _sky(image, time, weather, x0, y0, x1, y1)
    if weather == "rainy":
        for x in range(x0 + 4, x1 - 4, 9):
            line(image, [(x + 4, y0 + 8 + x % 21), (x, y0 + 20 + x % 21)], (226, 216, 206), 1)
    elif weather == "snowy":
        for k, x in enumerate(range(x0 + 6, x1 - 4, 9)):
            disc(image, x, y0 + 10 + (k * 37) % (y1 - y0 - 18), 1.6, (248, 248, 248))
    line(image, [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)], (220, 224, 226), 3)
    line(image, [(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)], (220, 224, 226), 3)


def _shelf(image: np.ndarray, o: int, *_: str, x: int = 150) -> None:
    x += o
    box(image, x, 30, x + 62, 172, (60, 88, 122))
    books: tuple[Color, ...] = (
        (60, 60, 170),
        (150, 100, 50),
        (80, 140, 80),
        (60, 150, 190),
        (120, 70, 120),
    )
    for row, y in enumerate((36, 70, 104, 138)):
        box(image, x + 3, y, x + 59, y + 28, (44, 64, 92))
        for k in range(8):
            tall = 18 + (k * 7 + row * 5) % 9
            box(
                image, x + 4 + k * 7, y + 28 - tall, x + 9 + k * 7, y + 28, books[(k + row * 2) % 5]
            )


def _shelf_left(image: np.ndarray, o: int, *_: str) -> None:
    _shelf(image, o, x=14)


def _sofa(image: np.ndarray, o: int, *_: str) -> None:
    box(image, 120 + o, 122, 224, 176, (96, 92, 150))
    box(image, 112 + o, 140, 130 + o, 184, (84, 80, 134))
    box(image, 128 + o, 158, 224, 184, (108, 104, 164))


def _picture(image: np.ndarray, o: int, *_: str, x: int = 162) -> None:
    x = min(x + o, SIZE - 52)
    box(image, x, 30, x + 48, 66, (50, 80, 110))
    box(image, x + 4, 34, x + 44, 62, (214, 200, 150))
    fill(
        image, [(x + 4, 62), (x + 18, 44), (x + 28, 54), (x + 36, 46), (x + 44, 62)], (96, 130, 84)
    )


def _picture_left(image: np.ndarray, o: int, *_: str) -> None:
    _picture(image, o, x=18)


def _cupboards(image: np.ndarray, o: int, *_: str) -> None:
    for k in range(3):
        x = 98 + k * 42 + o
        box(image, x, 16, x + 40, 64, (128, 160, 186))
        cv2.rectangle(image, (x, 16), (x + 40, 64), (90, 118, 140), 1)
        disc(image, x + 34, 52, 2, (70, 80, 90))
    box(image, 0, 146, SIZE, 156, (110, 120, 130))
    box(image, 0, 156, SIZE, SIZE, (140, 166, 186))


def _plant(image: np.ndarray, o: int, *_: str) -> None:
    fill(image, [(84 + o, 190), (112 + o, 190), (108 + o, 214), (88 + o, 214)], (60, 90, 160))
    for a in np.linspace(-2.6, -0.5, 6):
        fill(image, oval(98 + o + 20 * np.cos(a), 178 + 26 * np.sin(a), 18, 5, a), (70, 130, 70))


def _trees(image: np.ndarray, o: int, *_: str) -> None:
    for x, y, r in ((28 + o, 84, 30), (196 + o, 92, 26), (150 + o, 112, 14)):
        box(image, x - r / 7, y, x + r / 7, _GROUND + r / 3, (50, 76, 100))
        for dx, dy in ((-0.5, 0.2), (0.5, 0.2), (0, -0.4), (0, 0.25)):
            disc(image, x + dx * r, y + dy * r, r * 0.72, (66, 122, 74))


def _bench(image: np.ndarray, o: int, *_: str) -> None:
    for y in (150, 158, 170):
        box(image, 8 + o, y, 84 + o, y + 5, (60, 100, 140))
    for x in (14, 76):
        box(image, x + o, 150, x + 4 + o, 190, (60, 60, 64))


def _houses(image: np.ndarray, o: int, time: str, *_: str) -> None:
    lit: Color = (120, 216, 250) if time != "by day" else (190, 170, 150)
    walls: tuple[Color, ...] = ((150, 170, 206), (170, 190, 190), (128, 150, 190), (186, 176, 170))
    for k, color in enumerate(walls):
        x, top = k * 58 - 6 + o, 56 + (k * 29) % 34
        box(image, x, top, x + 54, _GROUND, color)
        fill(image, [(x - 3, top), (x + 27, top - 22), (x + 57, top)], (70, 80, 140))
        for wy in range(top + 10, _GROUND - 20, 24):
            for wx in (x + 9, x + 33):
                box(image, wx, wy, wx + 11, wy + 14, lit)


def _lamp_post(image: np.ndarray, o: int, time: str, *_: str) -> None:
    box(image, 198 + o, 60, 201 + o, 180, (60, 60, 60))
    disc(image, 199.5 + o, 58, 8, (150, 230, 255) if time != "by day" else (210, 214, 214))


def _board(image: np.ndarray, o: int, *_: str) -> None:
    box(image, 10 + o, 26, 106 + o, 92, (90, 130, 170))
    box(image, 14 + o, 30, 102 + o, 88, (70, 92, 60))
    for y in (44, 56, 68):
        line(image, [(22 + o, y), (60 + o + y % 24, y)], (210, 220, 214), 1)


def _door(image: np.ndarray, o: int, *_: str) -> None:
    box(image, 16 + o, 34, 74 + o, 172, (90, 124, 156))
    cv2.rectangle(image, (24 + o, 44), (66 + o, 96), (70, 98, 126), 1)
    disc(image, 66 + o, 112, 3, (90, 200, 220))


def _hills(image: np.ndarray, o: int, *_: str) -> None:
    for x, r, color in ((40 + o, 74, (120, 168, 120)), (180 + o, 90, (100, 150, 104))):
        fill(image, oval(x, _GROUND + 22, r, 52), color)
    box(image, 0, _GROUND + 14, SIZE, SIZE, (86, 150, 104))


def _sea(image: np.ndarray, o: int, *_: str) -> None:
    _gradient(image, (176, 136, 70), (206, 180, 120), 0, 112, SIZE, _GROUND + 6)
    for k, y in enumerate((120, 130, 142)):
        for x in range(k * 13, SIZE, 46):
            line(image, [(x + o, y), (x + 16 + o, y)], (226, 214, 186), 1)


def _boats(image: np.ndarray, o: int, *_: str) -> None:
    for x, s in ((40 + o, 1.0), (186 + o, 1.3)):
        hull = [(x - 24 * s, 126), (x + 24 * s, 126), (x + 16 * s, 138), (x - 16 * s, 138)]
        fill(image, hull, (60, 60, 150))
        fill(image, [(x, 122), (x, 122 - 44 * s), (x + 20 * s, 122)], (236, 238, 240))
        line(image, [(x, 126), (x, 122 - 46 * s)], (60, 70, 80), 2)


def _bed(image: np.ndarray, o: int, *_: str) -> None:
    box(image, 128 + o, 118, 224, 170, (100, 140, 170))
    box(image, 128 + o, 148, 224, 200, (206, 190, 226))
    box(image, 134 + o, 136, 182 + o, 158, (240, 240, 240))


def _lamp(image: np.ndarray, o: int, time: str, *_: str) -> None:
    box(image, 101 + o, 56, 103 + o, 170, (70, 70, 74))
    shade_: Color = (150, 226, 250) if time != "by day" else (190, 214, 226)
    fill(image, [(88 + o, 60), (116 + o, 60), (110 + o, 36), (94 + o, 36)], shade_)


def _table(image: np.ndarray, o: int, *_: str) -> None:
    box(image, 134 + o, 158, 224, 166, (70, 104, 146))
    box(image, 170 + o, 166, 176 + o, 224, (50, 76, 110))
    box(image, 186 + o, 144, 198 + o, 158, (226, 226, 226))


def _flowers(image: np.ndarray, o: int, *_: str) -> None:
    colors: tuple[Color, ...] = ((90, 90, 226), (200, 120, 226), (90, 210, 240), (236, 236, 240))
    for k in range(22):
        x, y = (k * 47 + 11) % SIZE, 158 + (k * 29) % 62
        disc(image, x + o, y, 4, colors[k % 4])
        disc(image, x + o, y, 1.6, (60, 190, 230))


def _pole(image: np.ndarray, o: int, *_: str) -> None:
    box(image, 196 + o, 0, 201 + o, SIZE, (60, 180, 220))
    box(image, 0, 18, SIZE, 22, (60, 180, 220))


_PROPS: dict[str, Callable[[np.ndarray, int, str, str], None]] = {
    "window": _window, "windows": _windows, "shelf": _shelf,
    "shelf left": _shelf_left, "sofa": _sofa, "picture": _picture, "picture left": _picture_left,
    "cupboards": _cupboards, "plant": _plant, "trees": _trees, "bench": _bench,
    "houses": _houses, "lamp post": _lamp_post, "board": _board, "door": _door,
    "hills": _hills, "sea": _sea, "boats": _boats, "bed": _bed, "lamp": _lamp,
    "table": _table, "flowers": _flowers, "pole": _pole,
}  # fmt: skip
