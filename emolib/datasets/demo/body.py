"""Draw neck, torso, arms and hands: the gesture is what the ``body`` state causes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emolib.datasets.demo.cast import Color, Identity
from emolib.datasets.demo.paint import disc, fill, line, mix, oval, shade, smooth

Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Gesture:
    """A posture. Lengths in shoulder half widths, origin at the pit of the neck, y down.

    Attributes:
        elbows: Left and right (as seen).
        hands: Likewise.
        shape: Hands: "open", "fist" or "relaxed".
        rise: Raised (positive) or sunken shoulders.
        bounce: How far the arms move, with what frequency in Hz.
        front: Arms in front of the face (else behind the chin, before the torso).
        head: Change of the head: (x, y, pitch in radians).
    """

    elbows: tuple[Spot, Spot]
    hands: tuple[Spot, Spot]
    shape: str = "relaxed"
    rise: float = 0.0
    bounce: tuple[float, float] = (0.01, 0.5)
    front: bool = False
    head: tuple[float, float, float] = (0.0, 0.0, 0.0)


GESTURES: dict[str, Gesture] = {
    "": Gesture(((-1.16, 1.3), (1.16, 1.3)), ((-1.02, 2.2), (1.02, 2.2))),
    "defensive": Gesture(((-1.2, 1.3), (1.2, 1.3)), ((0.62, 1.02), (-0.62, 1.2)), "fist",
                         rise=0.05, head=(0, 0, -0.05)),
    "thoughtful": Gesture(((-1.15, 1.45), (0.85, 1.5)), ((0.55, 1.42), (0.16, -0.1)), "fist",
                          front=True, head=(0.06, 0, 0.02)),
    "determined": Gesture(((-1.16, 1.3), (1.5, 0.75)), ((-1.02, 2.2), (1.3, -0.55)), "fist",
                          rise=0.04, bounce=(0.06, 1.6)),
    "confident": Gesture(((-1.75, 1.05), (1.75, 1.05)), ((-0.95, 1.75), (0.95, 1.75)), "fist",
                         rise=0.05, head=(0, -0.03, -0.06)),
    "helpless": Gesture(((-1.25, 1.15), (1.25, 1.15)), ((-1.95, 0.55), (1.95, 0.55)), "open",
                        rise=0.24, bounce=(0.05, 0.9), head=(0, 0.06, 0)),
    "ashamed": Gesture(((-1.16, 1.3), (1.42, -0.2)), ((-1.02, 2.2), (0.08, -0.9)), "open",
                       rise=-0.06, front=True, head=(0, 0.1, 0.22)),
    "excited": Gesture(((-1.62, 0.1), (1.62, 0.1)), ((-1.5, -1.15), (1.5, -1.15)), "open",
                       rise=0.14, bounce=(0.12, 2.2)),
    "insecure": Gesture(((-1.2, 1.25), (1.2, 1.25)), ((0.92, 0.5), (-0.92, 0.56)), "open",
                        rise=0.14, bounce=(0.02, 1.4), head=(0, 0.08, 0.06)),
}  # fmt: skip


class Body:
    """One body at one moment."""

    def __init__(
        self,
        image: np.ndarray,
        who: Identity,
        gesture: Gesture,
        x: float,
        y: float,
        size: float,
        time: float,
        phase: float,
    ) -> None:
        self.image, self.who, self.gesture = image, who, gesture
        self.x, self.y, self.size = x, y, size
        amount, rate = gesture.bounce
        self._swing = amount * np.sin(2 * np.pi * (rate * time + phase))
        self._breath = 0.012 * np.sin(2 * np.pi * (0.35 * time + phase))
        self._cloth, self._fold = who.clothes, shade(who.clothes, 0.7)

    def at(self, points: np.ndarray | list[Spot]) -> np.ndarray:
        """Turn body coordinates [n, 2] into pixels."""
        return np.asarray(points, dtype=np.float64) * self.size + (self.x, self.y)

    def torso(self) -> None:
        """Draw neck, shoulders and chest."""
        top = 0.2 - self.gesture.rise - self._breath
        skin = shade(self.who.skin, 0.84)
        neck = [(-0.3, -0.75), (0.3, -0.75), (0.34, 0.1), (0, 0.3), (-0.34, 0.1)]
        shape = [(-0.36, 0.02), (-0.75, top - 0.06), (-1.06, top + 0.12), (-1.1, 0.8), (-0.9, 1.6),
                 (-0.92, 3.2), (0.92, 3.2), (0.9, 1.6), (1.1, 0.8), (1.06, top + 0.12),
                 (0.75, top - 0.06), (0.36, 0.02), (0, 0.3)]  # fmt: skip
        chest = self.at(smooth(shape))
        fill(self.image, chest, self._cloth)
        line(self.image, chest, self._fold, 1, closed=True)
        fill(self.image, self.at(neck), skin)
        self._garment()

    def _garment(self) -> None:
        light = shade(self._cloth, 1.25)
        if self.who.garment == "shirt":
            for s in (-1, 1):
                fill(self.image, self.at([(s * 0.36, -0.05), (0, 0.3), (s * 0.22, 0.52)]), light)
            for y in (0.65, 1.05, 1.45):
                px, py = self.at([(0, y)])[0]
                disc(self.image, px, py, 1.5, self._fold)
        elif self.who.garment == "jacket":
            fill(self.image, self.at([(-0.34, 0), (0, 0.25), (0.34, 0), (0.12, 1.6), (-0.12, 1.6)]),
                 (226, 226, 222))  # fmt: skip
            for s in (-1, 1):
                line(self.image, self.at([(s * 0.38, 0), (s * 0.34, 0.6), (0, 1.6)]), self._fold, 2)
        elif self.who.garment == "sweater":
            line(
                self.image,
                self.at([(-0.36, 0.0), (-0.2, 0.26), (0.2, 0.26), (0.36, 0.0)]),
                light,
                4,
            )
            for y in (0.9, 1.1):
                line(self.image, self.at([(-1.0, y), (1.0, y)]), light, 2)
        else:
            line(self.image, self.at([(-0.36, 0.02), (0, 0.34), (0.36, 0.02)]), self._fold, 2)

    def arms(self) -> None:
        """Draw both arms with hands."""
        for i, side in enumerate((-1, 1)):
            self._arm(i, side)

    def _arm(self, i: int, side: int) -> None:
        g = self.gesture
        shoulder = (side * 0.95, 0.32 - g.rise - self._breath)
        elbow = (g.elbows[i][0] + 0.3 * self._swing * side, g.elbows[i][1] + 0.4 * self._swing)
        hand = (g.hands[i][0] + 0.5 * self._swing * side, g.hands[i][1] + self._swing)
        path = self.at([shoulder, elbow, hand])
        bare = self.who.garment == "t-shirt"
        thick = 0.36 * self.size
        line(self.image, path[:2], self._fold, thick + 2)
        line(self.image, path[:2], self._cloth, thick)
        lower: Color = self.who.skin if bare else self._cloth
        line(self.image, path[1:], shade(lower, 0.7), thick * 0.82 + 2)
        line(self.image, path[1:], lower, thick * 0.82)
        if not bare:
            line(self.image, path[:2][1:], self._cloth, thick)
        direction = path[2] - path[1]
        direction = direction / max(1e-6, float(np.hypot(*direction)))
        self._hand(path[2], direction, side)

    def _hand(self, wrist: np.ndarray, direction: np.ndarray, side: int) -> None:
        skin, edge = self.who.skin, shade(self.who.skin, 0.6)
        u = self.size
        angle = float(np.arctan2(direction[1], direction[0]))
        palm = wrist + direction * 0.12 * u
        if self.gesture.shape == "open":
            for k, spread in enumerate((-0.55, -0.2, 0.12, 0.45)):
                a = angle + spread
                tip = palm + np.array([np.cos(a), np.sin(a)]) * u * (0.36 if 0 < k < 3 else 0.3)
                line(self.image, np.stack([palm, tip]), edge, 0.14 * u)
                line(self.image, np.stack([palm, tip]), skin, 0.14 * u - 2)
            thumb = angle + 1.15 * side * (1 if direction[1] < 0 else -1)
            tip = palm + np.array([np.cos(thumb), np.sin(thumb)]) * u * 0.26
            line(self.image, np.stack([palm, tip]), skin, 0.12 * u)
        shape = oval(palm[0], palm[1], 0.21 * u, 0.17 * u, angle)
        fill(self.image, shape, skin)
        line(self.image, shape, edge, 1, closed=True)
        if self.gesture.shape == "fist":
            across = np.array([-direction[1], direction[0]])
            for offset in (-0.07, 0.0, 0.07):
                start = palm + across * offset * u + direction * 0.05 * u
                knuckle = np.stack([start, start + direction * 0.12 * u])
                line(self.image, knuckle, mix(skin, edge, 0.8), 1)
