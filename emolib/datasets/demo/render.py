"""Put place, setting, body and head together: the frames of a clip."""

from __future__ import annotations

from collections.abc import Container, Iterator

import cv2
import numpy as np

from emolib.datasets.demo.body import GESTURES, Body
from emolib.datasets.demo.expression import unfold
from emolib.datasets.demo.face import Head
from emolib.datasets.demo.hair import back_hair
from emolib.datasets.demo.place import SIZE, paint_place
from emolib.datasets.demo.setting import Motion, decorate
from emolib.datasets.demo.spec import FPS, ClipSpec, Speech

_HEAD = 39.0  # half face height in pixels
_BODY = 50.0  # half shoulder width in pixels
_NECK_Y = 137.0  # pit of the neck, pixels from the top

# The "target" domain looks like another production: warmer, darker edges, cinema bars.
_FILM = np.array([[0.8, 0.08, 0.0], [0.02, 0.93, 0.02], [0.0, 0.1, 0.98]])
_BAR = 10


def _vignette() -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    mask = np.clip(255 * (1.06 - 0.34 * (x**2 + y**2) / 2), 0, 255).astype(np.uint8)
    return np.repeat(mask[..., None], 3, axis=2)


def head_place(spec: ClipSpec) -> tuple[float, float, float]:
    """Give where the head is at rest: middle x and y, half face height, in pixels."""
    _, lowered, _ = GESTURES[spec.latent.body].head
    neck = _NECK_Y + 40 * (spec.zoom - 1)
    return SIZE * (0.5 + spec.shift), neck + (lowered - 1.27) * _HEAD * spec.zoom, _HEAD * spec.zoom


def arm_places(spec: ClipSpec) -> np.ndarray:
    """Give where elbows and hands are at rest: float64 [4, 2], left before right, in pixels."""
    gesture = GESTURES[spec.latent.body]
    pit = SIZE * (0.5 + spec.shift), _NECK_Y + 40 * (spec.zoom - 1)
    return np.array([*gesture.elbows, *gesture.hands]) * _BODY * spec.zoom + pit


def frames(
    spec: ClipSpec, plan: Speech, only: Container[int] | None = None
) -> Iterator[np.ndarray]:
    """Draw a clip's frames, uint8 [224, 224, 3], blue-green-red.

    Depends on the states core, body and setting and on the sentence, never on the voice.
    Cost: about 2 ms a frame on one core.

    Args:
        spec: The clip.
        plan: What is said and when.
        only: Numbers of the frames to draw, in the clip's order; None = all.
    """
    back = paint_place(spec.place, spec.time, spec.weather, spec.rng("furniture"))
    back = decorate(back, spec.latent.setting, spec.rng("decoration"))
    outdoor = spec.weather if spec.place.outside else ""
    motion = Motion(spec.latent.setting, outdoor, spec.rng("motion"))
    phase = float(spec.rng("stance").random())
    gesture = GESTURES[spec.latent.body]
    film = _vignette() if spec.domain == "target" else None

    size = spec.zoom
    x = SIZE * (0.5 + spec.shift)
    neck = _NECK_Y + 40 * (size - 1)
    dx, dy, nod = gesture.head
    for i, face in enumerate(unfold(spec, plan)):
        if only is not None and i not in only:
            continue
        t = i / FPS
        image = back.copy()
        motion.behind(image, t)
        sway = 1.6 * np.sin(2 * np.pi * (0.3 * t + phase))
        body = Body(image, spec.who, gesture, x + 0.6 * sway, neck, _BODY * size, t, phase)
        hx = x + sway + dx * _HEAD * size + 6 * np.sin(face.yaw)
        hy = neck - 1.27 * _HEAD * size + dy * _HEAD * size + 4 * np.sin(face.pitch)
        if nod:
            face = face.nodded(nod)
        head = Head(image, spec.who, face, hx, hy, _HEAD * size)
        back_hair(head)
        if not gesture.front:
            body.torso()
            body.arms()
            head.draw()
        else:
            body.torso()
            head.draw()
            body.arms()
        motion.before(image, t)
        if film is not None:
            image = cv2.multiply(cv2.transform(image, _FILM), film, scale=1 / 255)
            image[:_BAR] = image[-_BAR:] = 0
        yield image
