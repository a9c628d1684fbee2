"""Hair of a :class:`~emolib.datasets.demo.face.Head`: what falls behind the body, and the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emolib.datasets.demo.paint import curve, disc, fill, line, oval, shade, smooth

if TYPE_CHECKING:
    from emolib.datasets.demo.face import Head


def back_hair(head: Head) -> None:
    """Draw what of the hair lies behind neck and shoulders."""
    hair, cut = shade(head.who.hair, 0.82), head.who.cut
    if cut == "long":
        points = [(-0.86, -0.6), (-0.5, -1.2), (0.5, -1.2), (0.86, -0.6), (0.95, 0.5),
                  (0.9, 1.4), (0.4, 1.5), (-0.4, 1.5), (-0.9, 1.4), (-0.95, 0.5)]  # fmt: skip
        fill(head.image, head.flat(smooth(smooth(points))), hair)
    elif cut == "bob":
        fill(head.image, head.flat(oval(0, -0.08, 0.95, 1.0)), hair)
    elif cut == "curly":
        for a in np.linspace(-0.1, np.pi + 0.1, 11):
            x, y = head.flat([(0.78 * np.cos(a), -0.28 - 0.72 * np.sin(a))])[0]
            disc(head.image, x, y, head.px(0.3), hair)
    elif cut == "bun":
        x, y = head.flat([(0, -1.22)])[0]
        disc(head.image, x, y, head.px(0.36), hair)


def back_of_head(head: Head, side: float) -> None:
    """Draw the hair of a head turned away to ``side`` (1: the right of the picture)."""
    if head.who.cut == "bald":
        return
    hair = head.who.hair
    low = 1.0 if head.who.cut in ("long", "bob") else 0.6
    shape = [(-0.84, -0.4), (-0.6, -1.0), (0, -1.2), (0.5, -1.02), (0.68, -0.6), (0.4, -0.45),
             (0.26, -0.1), (0.24, low - 0.4), (0.1, low), (-0.6, low), (-0.84, 0.1)]  # fmt: skip
    fill(head.image, head.flat(smooth(smooth([(side * x, y) for x, y in shape]))), hair)
    shine = head.flat(curve((-0.45 * side, -0.85), (-0.1 * side, -1.02), (0.3 * side, -0.95)))
    line(head.image, shine, shade(hair, 1.18), head.px(0.07))
    if head.who.cut == "curly":
        for a in np.linspace(0.2, np.pi + 0.3, 10):
            x, y = head.flat([(side * 0.66 * np.cos(a), -0.34 - 0.58 * np.sin(a))])[0]
            disc(head.image, x, y, head.px(0.22), hair)


def front_hair(head: Head) -> None:
    """Draw crown, fringe and side strands."""
    hair, cut = head.who.hair, head.who.cut
    if cut == "bald":
        return
    hairline = {"short": -0.7, "side parting": -0.66, "bob": -0.56}.get(cut, -0.68)
    rise = -1.16 if cut != "short" else -1.12
    cap = [(-0.8, -0.15), (-0.82, -0.55), (-0.6, -0.95), (-0.25, rise), (0.25, rise),
           (0.6, -0.95), (0.82, -0.55), (0.8, -0.15), (0.68, -0.35)]  # fmt: skip
    fringe = {
        "side parting": [
            (0.55, hairline),
            (0.1, hairline + 0.08),
            (-0.3, hairline - 0.06),
            (-0.62, hairline + 0.15),
        ],
        "bob": [
            (0.6, hairline + 0.1),
            (0.3, hairline),
            (0, hairline + 0.03),
            (-0.3, hairline),
            (-0.6, hairline + 0.1),
        ],
        "long": [
            (0.6, hairline + 0.1),
            (0.2, hairline - 0.14),
            (0, hairline - 0.2),
            (-0.2, hairline - 0.14),
            (-0.6, hairline + 0.1),
        ],
    }.get(cut, [(0.55, hairline + 0.05), (0, hairline - 0.07), (-0.55, hairline + 0.05)])
    points = head.flat(smooth([*cap, *fringe, (-0.68, -0.35)]))
    fill(head.image, points, hair)
    shine = head.flat(curve((-0.5, -0.85), (-0.1, -1.02), (0.3, -0.95)))
    line(head.image, shine, shade(hair, 1.18), head.px(0.07))
    if cut == "curly":
        for a in np.linspace(0.25, np.pi - 0.25, 8):
            x, y = head.flat([(0.66 * np.cos(a), -0.38 - 0.56 * np.sin(a))])[0]
            disc(head.image, x, y, head.px(0.2), hair)
    if cut in ("long", "bob"):
        for side in (-1, 1):
            strand = [(side * 0.7, -0.5), (side * 0.86, -0.3), (side * 0.9, 0.6),
                      (side * 0.68, 0.75), (side * 0.66, 0.0)]  # fmt: skip
            fill(head.image, head.flat(smooth(strand)), hair)
