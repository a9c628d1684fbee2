"""A small source-filter voice: glottal pulses or breath through vowel formants.

The core moves prosody (pitch, range, loudness, slope; its tempo is in the speech plan), the
``voice`` state changes how sound is produced (tremor, breath, whisper, monotone, hard attacks,
breaks, a chuckle or sigh before speaking). The sentence decides vowels and consonants, the
person pitch and vocal tract.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.signal import lfilter

from emolib.datasets.demo.spec import LEAD_S, RATE, ClipSpec, Speech


@dataclass(frozen=True, slots=True)
class Prosody:
    """How a sentence is spoken.

    Attributes:
        pitch: Factor on the person's median pitch.
        range: Pitch movement of a stressed syllable, in semitones.
        slope: Pitch change over the sentence, in semitones (rising is positive).
        energy: Loudness relative to neutral.
        tilt: Brightness of the source in [0, 1]: 0 soft, 1 shouted.
        breath: Share of breath noise in [0, 1]; 1 is a whisper.
        tremor: Depth of the 6.5 Hz tremor, in semitones.
        creak: Depth of the half-pitch roughness in [0, 1].
        attack: Hardness of syllable onsets in [0, 1].
        breaks: How many syllables in ten break off.
        before: "", "chuckle", "sigh" or "sniff", heard before the first word.
    """

    pitch: float = 1.0
    range: float = 2.0
    slope: float = -2.0
    energy: float = 1.0
    tilt: float = 0.45
    breath: float = 0.06
    tremor: float = 0.0
    creak: float = 0.0
    attack: float = 0.3
    breaks: int = 0
    before: str = ""


NEUTRAL = Prosody()
#: Core -> prosody at full intensity.
CORE: dict[str, Prosody] = {
    "happy": Prosody(pitch=1.28, range=5.0, slope=1.0, energy=1.35, tilt=0.6),
    "sad": Prosody(pitch=0.86, range=0.9, slope=-4.0, energy=0.5, tilt=0.2, breath=0.12),
    "angry": Prosody(pitch=1.16, range=3.6, slope=-3.0, energy=2.2, tilt=0.95, attack=0.5),
    "afraid": Prosody(pitch=1.5, range=1.6, slope=2.5, energy=0.9, tilt=0.5, breath=0.1),
    "surprised": Prosody(pitch=1.36, range=7.0, slope=5.0, energy=1.3, tilt=0.55),
    "disgusted": Prosody(pitch=0.82, range=2.4, slope=-5.0, energy=0.9, tilt=0.5, creak=0.6),
    "worried": Prosody(pitch=1.1, range=1.4, slope=1.5, energy=0.75, tilt=0.35),
    "calm": Prosody(pitch=0.97, range=1.4, slope=-1.5, energy=0.8, tilt=0.3),
}


def prosody(spec: ClipSpec) -> Prosody:
    """Combine core (scaled by intensity) and voice state."""
    share = 0.55 + 0.45 * spec.latent.intensity
    full = CORE[spec.latent.core]
    p = Prosody(
        **{
            name: getattr(NEUTRAL, name) + share * (getattr(full, name) - getattr(NEUTRAL, name))
            for name in ("pitch", "range", "slope", "energy", "tilt", "breath", "creak", "attack")
        }
    )
    match spec.latent.voice:
        case "nervous":
            return replace(p, tremor=1.1)
        case "tired":
            return replace(p, breath=0.5, energy=0.6 * p.energy, before="sigh", tilt=0.15)
        case "amused":
            return replace(p, before="chuckle")
        case "impatient":
            return replace(p, attack=1.0, energy=1.25 * p.energy)
        case "bored":
            return replace(p, range=0.0, slope=0.0)
        case "cautious":
            return replace(p, breath=1.0, energy=0.55 * p.energy)
        case "moved":
            return replace(p, breaks=4, before="sniff")
        case _:
            return p


# Formants (Hz) of an average male vocal tract.
_VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (280, 2250, 2890),
           "o": (570, 840, 2410), "u": (310, 870, 2240), "y": (300, 2050, 2700)}  # fmt: skip
_BANDWIDTHS = (80.0, 100.0, 140.0)
_HISS = {
    "s": (5200, 1.0),
    "z": (5000, 0.6),
    "f": (3800, 0.5),
    "v": (3000, 0.3),
    "c": (3600, 0.5),
    "h": (1500, 0.3),
    "t": (4200, 0.8),
    "k": (2400, 0.7),
    "p": (1200, 0.6),
    "x": (4800, 0.8),
    "b": (600, 0.3),
    "d": (3000, 0.4),
    "g": (1800, 0.4),
    "j": (3200, 0.5),
    "q": (2400, 0.5),
}


def _resonator(x: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    r = np.exp(-np.pi * bandwidth / RATE)
    a1, a2 = -2 * r * np.cos(2 * np.pi * frequency / RATE), r * r
    return lfilter([1 + a1 + a2], [1, a1, a2], x)


def _smooth(x: np.ndarray, seconds: float) -> np.ndarray:
    """Low-pass with a one-pole filter run both ways (no delay)."""
    c = np.exp(-1 / (seconds * RATE))
    forward = lfilter([1 - c], [1, -c], x)
    return lfilter([1 - c], [1, -c], forward[::-1])[::-1]


def synthesise(spec: ClipSpec, plan: Speech) -> np.ndarray:
    """Speak the sentence.

    Returns:
        float32 [samples], mono, 16 kHz, within [-1, 1].

    Cost: about 15 ms a clip on one core.
    """
    p, n = prosody(spec), plan.samples
    rng, room = spec.rng("voice"), spec.rng("room")
    t = np.arange(n) / RATE
    noise = rng.standard_normal(n)
    level, voiced = np.zeros(n), np.zeros(n)
    semitones = np.zeros(n)
    weight = {v: np.zeros(n) for v in _VOWELS}
    hiss = np.zeros(n)
    spoken = plan.starts[-1] + plan.lengths[-1] - LEAD_S
    stress = rng.random(len(plan.syllables))
    broken = rng.permutation(len(plan.syllables))[: round(len(plan.syllables) * p.breaks / 10)]
    for k, (text, start, length) in enumerate(
        zip(plan.syllables, plan.starts, plan.lengths, strict=True)
    ):
        a, b = round(start * RATE), min(n, round((start + length) * RATE))
        vowel_at = next((i for i, c in enumerate(text) if c in _VOWELS), 0)
        onset = a + round((b - a) * (0.26 if vowel_at else 0.06))
        if k in broken:
            b = onset + (b - onset) // 2
        hard = 1.0 if stress[k] > 0.5 else 0.78
        level[onset:b] = hard
        voiced[onset:b] = 1.0
        progress = (start - LEAD_S) / max(spoken, 1e-6)
        rise = np.sin(np.pi * np.linspace(0, 1, max(1, b - a)))
        lift = p.range * (0.3 + stress[k]) * rise + p.slope * (progress - 0.5)
        semitones[a:b] = lift
        weight[text[vowel_at] if text[vowel_at] in _VOWELS else "e"][a:b] = 1.0
        for c in text[:vowel_at]:
            if c in _HISS:
                centre, amount = _HISS[c]
                burst = noise[a:onset] * np.hanning(max(1, onset - a)) * amount
                hiss[a:onset] += _resonator(burst, min(centre * spec.who.tract, 7200), 900) * 0.5
        if text[-1] in "sz" and k not in broken:
            c0 = max(onset, b - round(0.06 * RATE))
            hiss[c0:b] += _resonator(noise[c0:b] * np.hanning(b - c0), 5000, 900) * 0.5
    # loudness: hard attacks are short ramps, soft ones long
    ramp = 0.030 - 0.026 * p.attack
    level = _smooth(level, ramp)
    if p.attack > 0.8:  # staccato: each syllable dies away early
        level *= _smooth(voiced, 0.004) ** 2
    semitones = _smooth(semitones, 0.02) + p.tremor * np.sin(2 * np.pi * 6.5 * t)
    semitones += 0.12 * _smooth(rng.standard_normal(n), 0.01) * 10
    f0 = spec.who.pitch * p.pitch * 2 ** (semitones / 12)
    phase = np.cumsum(f0) / RATE
    cycle = phase % 1.0
    # a Rosenberg-like pulse: open for 0.6 of the cycle, sharper with tilt
    opened = 0.62 - 0.2 * p.tilt
    pulse = np.where(cycle < opened, np.sin(np.pi * cycle / opened) ** 2, 0.0)
    if p.creak:
        pulse *= 1 - 0.7 * p.creak * (np.floor(phase) % 2)
    source = np.diff(pulse, prepend=0.0) * 6
    source = source * (0.35 + 0.65 * p.tilt) + 0.25 * (1 - p.tilt) * (pulse - pulse.mean())
    air = np.diff(noise, prepend=0.0) * 0.16 + noise * 0.05
    source = source * (1 - p.breath) + air * (0.12 + p.breath * 1.4) * (p.breath > 0.05)
    if p.tremor:
        source = source * (1 + 0.3 * np.sin(2 * np.pi * 6.5 * t + 0.6))
    source = source * level
    speech = np.zeros(n)
    total = sum(weight.values()) + 1e-6
    for vowel, w in weight.items():
        if not w.any():
            continue
        y = source * _smooth(w / total, 0.012)
        for frequency, bandwidth in zip(_VOWELS[vowel], _BANDWIDTHS, strict=True):
            y = _resonator(y, frequency * spec.who.tract, bandwidth) * (
                1.6 if frequency > 1500 else 1.0
            )
        speech += y
    speech = lfilter([1, -0.72], [1], speech)  # sound leaving the lips loses its lows
    speech *= 0.16 / max(1e-6, float(np.sqrt(np.mean(speech[level > 0.3] ** 2))))
    if p.breath >= 1:
        speech *= 0.8
    speech += 0.06 * hiss
    speech *= p.energy * 0.62
    speech += _before(spec, p, t, noise)
    speech += _room(room, n)
    return np.tanh(speech).astype(np.float32)


def _before(spec: ClipSpec, p: Prosody, t: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Give what is heard in the lead-in."""
    if not p.before:
        return np.zeros_like(t)
    u = np.clip(t / (LEAD_S - 0.02), 0, 1)
    inside = (u > 0) & (u < 1)
    if p.before == "sigh":
        shape = inside * np.sin(np.pi * u**0.6) ** 1.5
        return _resonator(noise * shape, 900 * spec.who.tract, 500) * 0.09
    if p.before == "sniff":
        shape = inside * (np.abs(np.sin(2 * np.pi * u)) ** 6)
        return _resonator(noise * shape, 3200, 1800) * 0.16
    shape = inside * np.clip(np.sin(2 * np.pi * 4 * u), 0, 1) * (1.1 - 0.5 * u)
    f0 = spec.who.pitch * p.pitch * (1.35 - 0.2 * u)
    tone = np.sign(np.sin(2 * np.pi * np.cumsum(f0) / RATE)) * 0.5 + noise * 0.25
    return (
        _resonator(_resonator(tone * shape, 750 * spec.who.tract, 160), 1250 * spec.who.tract, 200)
        * 0.12
    )


def _room(rng: np.random.Generator, n: int) -> np.ndarray:
    """Give the room's quiet hum: carries nothing."""
    hum = lfilter([1], [1, -0.96], rng.standard_normal(n))
    return hum * float(rng.uniform(0.0008, 0.002))
