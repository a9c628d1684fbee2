"""What a core emotion does to a face over time: the numbers the face is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from emolib.datasets.demo.spec import FPS, ClipSpec, Speech


@dataclass(frozen=True, slots=True)
class Expression:
    """One moment of a face; 0 is neutral unless noted. Lengths in half face heights.

    Attributes:
        brow_in: Inner brow ends, up is positive.
        brow_out: Outer brow ends, up is positive.
        frown: Brows drawn together, with a furrow, in [0, 1].
        lid: Openness of the eyes: 0 closed, 1 neutral, 1.4 wide.
        cheek: Raised lower lids and cheeks, in [0, 1].
        smile: Mouth corners, -1 down to 1 up.
        wide: Change of the mouth's width.
        open: Parting of the lips, about 0 to 0.4.
        teeth: How much of the teeth shows, in [0, 1].
        lip: Raised upper lip, in [0, 1].
        press: Lips pressed together, in [0, 1].
        nose: Wrinkled nose, in [0, 1].
        blush: Redness of the cheeks (below 0: pale), in [-1, 1].
        tear: Tears, in [0, 1].
        sweat: Beads of sweat, in [0, 1].
        gaze_x: Eyes to the side, in [-1, 1].
        gaze_y: Eyes down, in [-1, 1].
        yaw: Head turn, radians.
        pitch: Head lowered, radians.
        roll: Head tilt, radians.
    """

    brow_in: float = 0.0
    brow_out: float = 0.0
    frown: float = 0.0
    lid: float = 1.0
    cheek: float = 0.0
    smile: float = 0.05
    wide: float = 0.0
    open: float = 0.0
    teeth: float = 0.0
    lip: float = 0.0
    press: float = 0.0
    nose: float = 0.0
    blush: float = 0.0
    tear: float = 0.0
    sweat: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def nodded(self, angle: float) -> Expression:
        """The same face with the head lowered by ``angle`` more."""
        return replace(self, pitch=self.pitch + angle)


_NAMES = tuple(field.name for field in fields(Expression))
_NEUTRAL = Expression()

# Apex of each core, mild and strong.
APEX: dict[str, tuple[Expression, Expression]] = {
    "happy": (
        Expression(smile=0.7, wide=0.06, cheek=0.45, brow_out=0.02, blush=0.25),
        Expression(smile=1.0, wide=0.1, cheek=0.8, open=0.2, teeth=1, lid=0.85, blush=0.6,
                   brow_in=0.04, brow_out=0.06, pitch=-0.06),
    ),
    "sad": (
        Expression(smile=-0.6, brow_in=0.1, brow_out=-0.05, lid=0.75, gaze_y=0.5, pitch=0.1,
                   frown=0.2, wide=-0.02),
        Expression(smile=-0.95, brow_in=0.16, brow_out=-0.07, lid=0.55, gaze_y=0.6, pitch=0.14,
                   frown=0.4, tear=1, roll=0.06, press=0.2),
    ),
    "angry": (
        Expression(brow_in=-0.09, brow_out=0.02, frown=0.8, lid=0.85, smile=-0.3, press=0.7),
        Expression(brow_in=-0.13, brow_out=0.06, frown=1, lid=1.0, smile=-0.45, open=0.22,
                   teeth=1, lip=0.5, nose=0.5, blush=1, wide=0.03, pitch=0.05),
    ),
    "afraid": (
        Expression(brow_in=0.12, brow_out=0.03, frown=0.4, lid=1.25, smile=-0.35, open=0.07,
                   wide=0.05, blush=-0.4, pitch=-0.03),
        Expression(brow_in=0.17, brow_out=0.04, frown=0.6, lid=1.42, smile=-0.5, open=0.2,
                   teeth=0.7, wide=0.09, blush=-1, sweat=1, pitch=-0.06),
    ),
    "surprised": (
        Expression(brow_in=0.12, brow_out=0.12, lid=1.25, open=0.12, wide=-0.07, smile=0.0),
        Expression(brow_in=0.18, brow_out=0.19, lid=1.42, open=0.38, wide=-0.1, smile=0.0,
                   pitch=-0.06),
    ),
    "disgusted": (
        Expression(brow_in=-0.05, brow_out=-0.03, frown=0.4, nose=0.7, lip=0.4, lid=0.7,
                   smile=-0.4, cheek=0.3, yaw=0.12, wide=-0.03),
        Expression(brow_in=-0.09, brow_out=-0.04, frown=0.6, nose=1, lip=1, lid=0.5, open=0.1,
                   teeth=0.4, smile=-0.6, cheek=0.6, yaw=0.2, pitch=-0.08, wide=0.0),
    ),
    "worried": (
        Expression(brow_in=0.1, brow_out=-0.02, frown=0.6, lid=1.0, smile=-0.3, press=0.3,
                   gaze_x=0.6, wide=-0.04, roll=0.03),
        Expression(brow_in=0.13, brow_out=-0.03, frown=0.9, lid=1.05, smile=-0.45, press=0.9,
                   gaze_x=0.9, wide=-0.07, sweat=0.7, roll=0.05),
    ),
    "calm": (
        Expression(smile=0.12),
        Expression(smile=0.35, lid=0.0, cheek=0.1, brow_out=0.01),
    ),
}  # fmt: skip


def envelope(times: np.ndarray) -> np.ndarray:
    """How far an expression has unfolded at ``times`` (s): 0.3 at the start, full after 0.6 s."""
    return 0.3 + 0.7 * np.clip(times / 0.6, 0, 1) ** 0.8


def lips(plan: Speech, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give how far the lips open for speech, in [0, 1], and how wide they are, in [-1, 1]."""
    opened, wide = np.zeros_like(times), np.zeros_like(times)
    for text, start, length in zip(plan.syllables, plan.starts, plan.lengths, strict=True):
        phase = (times - start) / length
        bump = np.where((phase > 0) & (phase < 1), np.sin(np.pi * np.clip(phase, 0, 1)), 0.0)
        vowel = next((c for c in text if c in "aeiouy"), "e")
        opened += bump * {"a": 1.0, "e": 0.65, "i": 0.45, "y": 0.45, "o": 0.8, "u": 0.5}[vowel]
        wide += bump * {"a": 0.1, "e": 0.5, "i": 0.8, "y": 0.6, "o": -0.8, "u": -1.0}[vowel]
    return np.clip(opened, 0, 1), np.clip(wide, -1, 1)


def unfold(spec: ClipSpec, plan: Speech) -> list[Expression]:
    """Give the face of every frame: expression, speech, blinks, small head movements."""
    mild, strong = APEX[spec.latent.core]
    apex = strong if spec.latent.degree == "strong" else mild
    rng = spec.rng("face")
    # within a degree, intensity still scales the expression a little
    inner = (spec.latent.intensity % 0.5) / 0.5
    gain = 0.85 + 0.25 * inner
    side = 1.0 if rng.random() < 0.5 else -1.0
    times = np.arange(plan.frames) / FPS
    shown = envelope(times) * gain
    opened, wide = lips(plan, times)
    blink_at = rng.uniform(0.4, plan.duration - 0.3)
    blink = np.exp(-(((times - blink_at) / 0.07) ** 2))
    drift = np.sin(2 * np.pi * (rng.uniform(0.3, 0.6, 3)[:, None] * times + rng.random((3, 1))))
    base_yaw = float(rng.uniform(-0.12, 0.12))
    if spec.turned:
        base_yaw = side * float(rng.uniform(1.1, 1.3))
        apex, opened, wide = _NEUTRAL, np.zeros_like(opened), np.zeros_like(wide)
    moments = []
    for i in range(plan.frames):
        values = {
            name: getattr(_NEUTRAL, name)
            + (getattr(apex, name) - getattr(_NEUTRAL, name)) * float(shown[i])
            for name in _NAMES
        }
        face = Expression(**values)
        speak = float(opened[i])
        gaze = face.gaze_x * side * (float(np.sign(drift[2, i])) if face.gaze_x else 1.0)
        moments.append(
            replace(
                face,
                lid=max(0.0, face.lid * (1 - float(blink[i]))),
                open=face.open * (0.7 + 0.3 * speak) + 0.14 * speak,
                press=face.press * (1 - speak),
                wide=face.wide + 0.05 * float(wide[i]),
                gaze_x=gaze,
                yaw=face.yaw * side + base_yaw + 0.05 * float(drift[0, i]),
                pitch=face.pitch + 0.03 * float(drift[1, i]) + 0.02 * speak,
                roll=face.roll * side + 0.03 * float(drift[2, i]),
            )
        )
    return moments
