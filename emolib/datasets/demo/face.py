"""Draw one head: hair, shaded skin, eyes, brows, nose, mouth, from an :class:`Expression`.

Head coordinates: origin between nose bridge and nose tip, one unit is half a face height, y
points down. Points lie on an ellipsoid that yaw and pitch turn, so features foreshorten.
"""

from __future__ import annotations

import cv2
import numpy as np

from emolib.datasets.demo.cast import Color, Identity
from emolib.datasets.demo.expression import Expression
from emolib.datasets.demo.hair import back_of_head, front_hair
from emolib.datasets.demo.paint import curve, disc, fill, line, mix, oval, shade, smooth

AWAY = 0.9  # radians; a head turned further shows no expression
_OUTLINE = np.array(
    [(0, -1.0), (0.34, -0.95), (0.6, -0.74), (0.72, -0.42), (0.74, -0.05), (0.69, 0.3),
     (0.56, 0.63), (0.36, 0.88), (0.14, 1.0), (-0.14, 1.0), (-0.36, 0.88), (-0.56, 0.63),
     (-0.69, 0.3), (-0.74, -0.05), (-0.72, -0.42), (-0.6, -0.74), (-0.34, -0.95)]
)  # fmt: skip


class Head:
    """One head at one moment; the methods draw onto an image in the right order."""

    def __init__(
        self, image: np.ndarray, who: Identity, face: Expression, x: float, y: float, size: float
    ) -> None:
        self.image, self.who, self.face = image, who, face
        self.center, self.size = np.array([x, y]), size
        self._sin = np.sin([face.yaw, face.pitch, face.roll])
        self._cos = np.cos([face.yaw, face.pitch, face.roll])
        warm: Color = (70, 70, 220)
        self.skin = (
            mix(who.skin, warm, 0.16 * face.blush)
            if face.blush > 0.5
            else mix(who.skin, (225, 225, 215), 0.25 * max(0.0, -face.blush))
        )
        self.dark = shade(self.skin, 0.62)
        self.ink = mix(shade(self.skin, 0.3), (20, 20, 30), 0.5)

    def at(self, points: np.ndarray | list[tuple[float, float]], lift: float = 0.0) -> np.ndarray:
        """Turn head coordinates [n, 2] into pixels; ``lift`` raises them off the surface."""
        p = np.asarray(points, dtype=np.float64)
        x, y = p[:, 0] * self.who.width, p[:, 1]
        z = 0.8 * np.sqrt(np.clip(1 - (x / 0.98) ** 2 - (y / 1.25) ** 2, 0.02, 1)) + lift
        sy, sp, _ = self._sin
        cy, cp, _ = self._cos
        turned = np.stack([x * cy + z * sy, y * cp + (z * cy - x * sy) * sp], axis=1)
        return self._place(turned)

    def flat(self, points: np.ndarray | list[tuple[float, float]]) -> np.ndarray:
        """Like :meth:`at` for outlines: moved and tilted with the head, but not turned."""
        p = np.asarray(points, dtype=np.float64) * (self.who.width, 1.0)
        return self._place(p + np.array([self._sin[0] * 0.1, self._sin[1] * 0.12]))

    def _place(self, p: np.ndarray) -> np.ndarray:
        s, c = self._sin[2], self._cos[2]
        return (p @ np.array([[c, s], [-s, c]])) * self.size + self.center

    def px(self, units: float) -> float:
        """Turn a length in head units into pixels."""
        return units * self.size

    def draw(self) -> None:
        """Draw the head in front of neck and body."""
        if abs(self.face.yaw) > AWAY:
            self._away()
            return
        self._ears()
        self._skin()
        self._beard()
        for side in (-1, 1):
            self._eye(side)
            self._brow(side)
        self._nose()
        self._mouth()
        self._marks()
        front_hair(self)
        if self.who.glasses:
            self._glasses()

    def _away(self) -> None:
        """Draw a head turned away: hair, ear and the edge of a cheek, no expression."""
        side = 1.0 if self.face.yaw > 0 else -1.0
        self._skin()
        nose = self.flat([(side * 0.68, 0.0), (side * 0.84, 0.24), (side * 0.7, 0.3)])
        fill(self.image, nose, self.skin)
        line(self.image, nose, self.dark, 1)
        if self.who.beard:
            cheek = [(0.3, 0.3), (0.72, 0.4), (0.6, 0.66), (0.36, 0.96), (0.05, 1.02), (0.1, 0.6)]
            beard = mix(self.skin, shade(self.who.hair, 0.95), 0.85)
            fill(self.image, self.flat(smooth([(side * x, y) for x, y in cheek])), beard)
        if self.who.glasses:
            temple = self.flat([(side * 0.05, -0.06), (side * 0.7, -0.12)])
            line(self.image, temple, (40, 36, 44), self.px(0.04))
        back_of_head(self, side)
        ear = self.flat(oval(side * 0.08, 0.06, 0.12, 0.22))
        if self.who.cut not in ("long", "bob"):
            fill(self.image, ear, shade(self.skin, 0.92))
            line(self.image, ear, self.dark, 1, closed=True)

    def _ears(self) -> None:
        for side in (-1, 1):
            ear = self.flat(oval(side * 0.76, 0.02, 0.12, 0.22))
            fill(self.image, ear, shade(self.skin, 0.88))
            line(self.image, ear, self.dark, 1, closed=True)

    def _skin(self) -> None:
        outline = self.flat(_OUTLINE)
        low = np.floor(outline.min(0) - 3).astype(int)
        high = np.ceil(outline.max(0) + 4).astype(int)
        low, high = np.maximum(low, 0), np.minimum(high, self.image.shape[1::-1])
        roi = self.image[low[1] : high[1], low[0] : high[0]]
        if roi.size == 0:
            return
        patch = np.empty_like(roi)
        patch[:] = self.skin
        light, soft = shade(self.skin, 1.16), shade(self.skin, 0.8)
        for points, color in (
            (
                [(-0.8, -1.1), (-0.5, -1.1), (-0.6, 0.2), (-0.45, 1.1), (-0.9, 1.1)],
                shade(self.skin, 0.84),
            ),
            (
                [(0.8, -1.1), (0.5, -1.1), (0.6, 0.2), (0.45, 1.1), (0.9, 1.1)],
                shade(self.skin, 0.8),
            ),
            (oval(0, -0.62, 0.42, 0.16), light),
            (oval(-0.33, -0.14, 0.25, 0.17), soft),
            (oval(0.33, -0.14, 0.25, 0.17), soft),
            (oval(-0.38, 0.22, 0.18, 0.13), light),
            (oval(0.38, 0.22, 0.18, 0.13), light),
            (oval(0, 0.0, 0.075, 0.3), light),
            (oval(0, 0.37, 0.16, 0.06), soft),
            (oval(0, 0.74, 0.18, 0.05), soft),
            (oval(0, 0.86, 0.16, 0.07), light),
        ):
            fill(patch, self.at(points) - low, color)
        if self.face.blush > 0.1:
            rosy = mix(self.skin, (90, 80, 230), 0.45 * self.face.blush)
            for x in (-0.42, 0.42):
                fill(patch, self.at(oval(x, 0.24, 0.19, 0.13)) - low, rosy)
        k = max(3, int(self.px(0.16)) | 1)
        cv2.blur(patch, (k, k), patch)
        mask = np.zeros(roi.shape[:2], np.uint8)
        fill(mask, outline - low, (255, 255, 255))
        cv2.copyTo(patch, mask, roi)
        line(self.image, outline, self.dark, 1, closed=True)

    def _eye(self, side: int) -> None:
        f, x0, y0 = self.face, side * 0.33, -0.13
        w, lid = 0.18 * self.who.eye, f.lid * (1 - 0.15 * f.nose)
        up, down = 0.105 * lid, 0.075 * min(lid, 1.2) * (1 - 0.55 * f.cheek)
        left, right = (x0 - w, y0 + 0.015), (x0 + w, y0 + 0.015)
        top = curve(left, (x0, y0 - up), right)
        bottom = curve(right, (x0, y0 + 0.015 + down), left)
        if lid > 0.22:
            white = self.at(np.vstack([top, bottom]))
            fill(self.image, white, (238, 240, 240))
            gx = x0 + 0.08 * f.gaze_x
            gy = y0 - 0.005 + 0.045 * f.gaze_y
            iris = min(0.095, (up + down) * 0.62)
            cx, cy = self.at([(gx, gy)])[0]
            disc(self.image, cx, cy, self.px(iris), (44, 52, 70))
            disc(self.image, cx, cy, self.px(iris * 0.58), (14, 12, 14))
            disc(
                self.image, cx - self.px(0.03), cy - self.px(0.035), self.px(0.022), (250, 250, 250)
            )
            line(self.image, self.at(bottom), self.dark, 1)
            line(self.image, self.at(top), self.ink, self.px(0.055))
        else:
            closed = curve(left, (x0, y0 + 0.055), right)
            line(self.image, self.at(closed), self.ink, self.px(0.055))
        if self.who.noun == "woman":
            tip = self.at([(x0 + side * w, y0 + 0.01), (x0 + side * (w + 0.06), y0 - 0.045)])
            line(self.image, tip, self.ink, self.px(0.04))
        if f.cheek > 0.5 or self.who.age == "old":
            bag = curve((x0 - w * 0.8, y0 + 0.15), (x0, y0 + 0.19), (x0 + w * 0.8, y0 + 0.15))
            line(self.image, self.at(bag), self.dark, 1)
        if f.tear > 0.3:
            blue: Color = (250, 226, 190)
            stream = self.at([(x0 + side * 0.03, y0 + 0.1), (x0 + side * 0.06, y0 + 0.3),
                              (x0 + side * 0.05, y0 + 0.52 * f.tear)])  # fmt: skip
            line(self.image, stream, blue, self.px(0.05))
            disc(self.image, stream[-1, 0], stream[-1, 1], self.px(0.05), blue)

    def _brow(self, side: int) -> None:
        f = self.face
        inner = (side * (0.15 - 0.045 * f.frown), -0.4 - f.brow_in)
        outer = (side * 0.55, -0.38 - f.brow_out)
        middle = (side * 0.35, -0.46 - (f.brow_in + f.brow_out) / 2 + 0.02 * f.frown)
        color = mix(shade(self.who.hair, 0.75), self.ink, 0.35)
        width = self.px(0.085 * self.who.brow)
        line(self.image, self.at(curve(inner, middle, outer)), color, width)

    def _nose(self) -> None:
        f, length = self.face, 0.26 * self.who.nose
        low = length + 0.06
        tip = self.at([(-0.1, length), (-0.05, low), (0.05, low), (0.1, length)], lift=0.08)
        line(self.image, tip, self.dark, self.px(0.04))
        lift = 0.03 if f.yaw >= 0 else -0.03
        bridge = self.at(
            [(lift + 0.06 * np.sign(lift), -0.1), (lift * 2.2, length - 0.04)], lift=0.05
        )
        line(self.image, bridge, shade(self.skin, 0.8), 1)
        if f.nose > 0.2:
            for y in (-0.08, -0.01, 0.06):
                wrinkle = curve((-0.08, y), (0, y - 0.035), (0.08, y))
                line(self.image, self.at(wrinkle), mix(self.skin, self.ink, 0.75 * f.nose), 1)
        if f.nose > 0.2 or abs(f.smile) > 0.5 or self.who.age == "old":
            for side in (-1, 1):
                fold = curve((side * 0.15, 0.3), (side * 0.28, 0.42), (side * 0.33, 0.56))
                line(self.image, self.at(fold), self.dark, 1)

    def _mouth(self) -> None:
        f, y = self.face, 0.57
        half = max(0.12, 0.27 + 1.2 * f.wide)
        corner = y - 0.13 * f.smile
        middle = y + 0.055 * f.smile
        gap_up = 0.3 * f.open + 0.07 * f.lip
        gap_down = 0.75 * f.open
        lip_up, lip_down = 0.055 * (1 - 0.7 * f.press), 0.075 * (1 - 0.7 * f.press)
        left, right = (-half, corner), (half, corner)
        rose = mix(self.skin, (74, 66, 190) if self.who.noun == "woman" else (70, 76, 160), 0.5)
        rose = shade(rose, 0.88)
        inner_up = curve(left, (0, middle - gap_up), right)
        inner_down = curve(right, (0, middle + gap_down), left)
        outer_up = curve(left, (0, middle - gap_up - lip_up), right)
        outer_down = curve(right, (0, middle + gap_down + lip_down), left)
        fill(self.image, self.at(np.vstack([outer_up, outer_down])), rose)
        if f.open + f.lip * 0.3 > 0.03:
            hole = self.at(np.vstack([inner_up, inner_down]))
            fill(self.image, hole, (34, 22, 60))
            if f.teeth > 0.2:
                edge = middle - gap_up + (gap_up + gap_down) * (0.3 + 0.25 * f.teeth)
                small_left, small_right = (-half * 0.86, corner), (half * 0.86, corner)
                up = curve(small_left, (0, middle - gap_up + 0.012), small_right)
                low = curve(small_right, (0, edge), small_left)
                fill(self.image, self.at(np.vstack([up, low])), (236, 238, 238))
        else:
            line(self.image, self.at(inner_up), self.ink, self.px(0.04))
        line(
            self.image, self.at(np.vstack([outer_up, outer_down])), shade(rose, 0.6), 1, closed=True
        )

    def _marks(self) -> None:
        f = self.face
        if f.frown > 0.35:
            color = mix(self.skin, self.ink, min(1.0, f.frown))
            for x in (-0.05, 0.05):
                line(self.image, self.at([(x, -0.44 - f.brow_in * 0.5), (x * 0.8, -0.3)]), color, 1)
        if f.brow_in + f.brow_out > 0.16 or self.who.age == "old":
            for y in (-0.72, -0.64):
                wrinkle = curve((-0.28, y), (0, y - 0.03), (0.28, y))
                line(self.image, self.at(wrinkle), self.dark, 1)
        if f.sweat > 0.3:
            for x, y in ((-0.56, -0.55), (0.58, -0.42), (0.5, -0.68)):
                cx, cy = self.at([(x, y)])[0]
                disc(self.image, cx, cy, self.px(0.05), (246, 222, 176))
                line(self.image, [(cx, cy), (cx, cy - self.px(0.1))], (246, 222, 176), 2)

    def _beard(self) -> None:
        if not self.who.beard:
            return
        beard = shade(self.who.hair, 0.95)
        points = [(-0.66, 0.2), (-0.55, 0.42), (-0.34, 0.4), (0, 0.36), (0.34, 0.4), (0.55, 0.42),
                  (0.66, 0.2), (0.6, 0.62), (0.38, 0.93), (0.14, 1.06), (-0.14, 1.06),
                  (-0.38, 0.93), (-0.6, 0.62)]  # fmt: skip
        fill(self.image, (self.at(points) + self.flat(points)) / 2, mix(self.skin, beard, 0.85))

    def _glasses(self) -> None:
        color: Color = (40, 36, 44)
        for x in (-0.33, 0.33):
            rim = self.at(oval(x, -0.11, 0.25, 0.19), lift=0.03)
            line(self.image, rim, color, self.px(0.03), closed=True)
        line(self.image, self.at([(-0.09, -0.14), (0.09, -0.14)], lift=0.05), color, self.px(0.03))
