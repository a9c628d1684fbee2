"""Draw one clip of the demo world: everything that decides its media and texts.

Each clip has random streams of its own, keyed by (seed, domain, split, index, purpose), so a
clip depends neither on how many are made nor on their order, and a change of one hidden state
(``dataclasses.replace`` on ``latent``) leaves every channel alone that the state does not cause.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emolib.datasets.demo import cast, phrases, world
from emolib.datasets.demo.cast import Identity, Place

FPS = 12.5
RATE = 16_000  # audio samples a second
UNIT_S = 0.32  # both 4 frames and 5 AAC blocks of 1024 samples: tracks end together
SHORTEST, LONGEST = 7, 10  # clip length in units: 2.24 to 3.2 s
LEAD_S, TAIL_S = 0.42, 0.18  # before the first and after the last syllable
SPLIT_PATTERN = (
    "train", "train", "test", "train", "train", "val", "train", "train", "test", "train",
)  # fmt: skip
TURNED_RATE = 0.12  # clips in which the face is turned away

# Syllables a second at full intensity; neutral is 4.4.
_TEMPO = {
    "happy": 5.2, "sad": 3.2, "angry": 5.4, "afraid": 6.0,
    "surprised": 4.8, "disgusted": 3.5, "worried": 4.9, "calm": 4.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """All that decides one clip.

    Attributes:
        seed: Seed of the data set.
        domain: "base" or "target".
        split: "train", "val" or "test".
        index: Number within (seed, domain, split).
        latent: Hidden states.
        who: The person.
        place: Where it plays.
        time: One of ``cast.TIMES``.
        weather: One of ``cast.WEATHER``; seen outside and through windows.
        turned: The head is turned away, so the face shows little.
        zoom: Size of the person relative to the average.
        shift: Horizontal place of the person, fraction of the width, 0 = middle.
    """

    seed: int
    domain: str
    split: str
    index: int
    latent: world.Latent
    who: Identity
    place: Place
    time: str
    weather: str
    turned: bool
    zoom: float
    shift: float

    @property
    def name(self) -> str:
        """Unique over all domains and splits of one seed."""
        return f"{self.domain}-{self.split}-{self.index:05d}"

    def rng(self, purpose: str) -> np.random.Generator:
        """Give this clip's own random stream for one purpose."""
        return cast.keyed_rng(self.seed, self.domain, self.split, self.index, purpose)


@dataclass(frozen=True, slots=True)
class Speech:
    """What is said and when; shared by lips, voice and texts.

    Attributes:
        subtitle: The sentence.
        clause: The template it was made from.
        interjection: The core's interjection, or "".
        syllables: Lower-case letters of each syllable.
        starts: Seconds, one each.
        lengths: Seconds, one each.
        duration: Seconds of the whole clip, a multiple of :data:`UNIT_S`.
    """

    subtitle: str
    clause: str
    interjection: str
    syllables: tuple[str, ...]
    starts: tuple[float, ...]
    lengths: tuple[float, ...]
    duration: float

    @property
    def frames(self) -> int:
        """Number of video frames."""
        return round(self.duration * FPS)

    @property
    def samples(self) -> int:
        """Number of audio samples."""
        return round(self.duration * RATE)


def draw(seed: int, domain: str, split: str, index: int) -> ClipSpec:
    """Draw clip ``index`` of a split."""

    def rng(purpose: str) -> np.random.Generator:
        return cast.keyed_rng(seed, domain, split, index, purpose)

    person, scene = rng("person"), rng("scene")
    places = cast.PLACES[domain, split]
    return ClipSpec(
        seed=seed,
        domain=domain,
        split=split,
        index=index,
        latent=world.draw_latent(rng("latent")),
        who=cast.identity(domain, split, int(person.integers(cast.POOL[split]))),
        place=places[int(scene.integers(len(places)))],
        time=str(scene.choice(cast.TIMES, p=(0.6, 0.25, 0.15))),
        weather=str(scene.choice(cast.WEATHER, p=(0.7, 0.2, 0.1))),
        turned=bool(person.random() < TURNED_RATE),
        zoom=float(person.uniform(0.9, 1.12)),
        shift=float(person.uniform(-0.06, 0.06)),
    )


def draw_set(seed: int, domain: str, clips: int) -> list[ClipSpec]:
    """Draw the first ``clips`` clips of a world: of ten, seven train, one val, two test.

    A larger set begins with the smaller one.
    """
    counts: dict[str, int] = {}
    specs = []
    for i in range(clips):
        split = SPLIT_PATTERN[i % len(SPLIT_PATTERN)]
        specs.append(draw(seed, domain, split, counts.get(split, 0)))
        counts[split] = counts.get(split, 0) + 1
    return specs


def speech(spec: ClipSpec) -> Speech:
    """Plan the sentence and its timing from the ``words`` state and the core alone.

    Tempo follows the core. A sentence too long for the longest clip is spoken faster.
    """
    latent = spec.latent
    subtitle, clause, interjection = phrases.draw_subtitle(
        latent.core, latent.words, spec.domain, spec.split, spec.rng("sentence")
    )
    parts = phrases.syllables(subtitle)
    tempo = 4.4 + (_TEMPO[latent.core] - 4.4) * (0.5 + 0.5 * latent.intensity)
    rng = spec.rng("timing")
    marks, lengths, starts = {",", "."}, [], []
    now = 0.0
    for i, part in enumerate(parts):
        wobble = float(rng.uniform(0.85, 1.15))
        if part in marks:
            now += 0.16 / tempo * 4.4 if i < len(parts) - 1 else 0.0
            continue
        last = all(p in marks for p in parts[i + 1 :])
        length = wobble / tempo * (1.35 if last else 1.0)
        starts.append(now)
        lengths.append(length)
        now += length
    room = LONGEST * UNIT_S - LEAD_S - TAIL_S
    squeeze = min(1.0, room / now)
    total = LEAD_S + now * squeeze + TAIL_S
    units = int(np.clip(np.ceil(total / UNIT_S - 1e-9), SHORTEST, LONGEST))
    return Speech(
        subtitle=subtitle,
        clause=clause,
        interjection=interjection,
        syllables=tuple(p for p in parts if p not in marks),
        starts=tuple(round(LEAD_S + s * squeeze, 5) for s in starts),
        lengths=tuple(round(x * squeeze, 5) for x in lengths),
        duration=round(units * UNIT_S, 2),
    )
