"""Who lives in the demo world and where: identities and places, disjoint between splits.

The population is fixed: identity ``base-test-003`` looks and sounds the same in every data set,
whatever its seed. A set's seed only decides who appears. Domains differ in distribution: people
of "base" have natural hair and mostly younger faces, people of "target" are mixed otherwise,
live in other places and are drawn in another style (see ``render``).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]  # blue, green, red in [0, 255], as OpenCV wants it

POOL = {"train": 60, "val": 12, "test": 24}  # identities a domain and split


def keyed_rng(*key: str | int) -> np.random.Generator:
    """Give the generator that belongs to a key: same key, same numbers, in any process."""
    words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


_SKINS: dict[str, Color] = {
    "pale": (196, 214, 242),
    "light": (172, 197, 232),
    "tan": (136, 168, 211),
    "brown": (103, 137, 184),
    "dark brown": (78, 106, 152),
}
_HAIR: dict[str, Color] = {
    "black": (32, 28, 30),
    "brown": (36, 58, 92),
    "blond": (96, 176, 222),
    "red": (38, 80, 176),
    "grey": (165, 165, 168),
    "white": (226, 226, 226),
}
_CLOTHES: dict[str, Color] = {
    "white": (232, 232, 232),
    "blue": (160, 96, 48),
    "green": (82, 128, 62),
    "red": (56, 52, 182),
    "yellow": (70, 190, 232),
    "purple": (136, 66, 118),
    "black": (52, 48, 50),
    "orange": (50, 128, 232),
    "turquoise": (164, 164, 60),
}
_CUTS = {
    "man": ("short", "side parting", "curly", "bald"),
    "woman": ("long", "bun", "bob", "curly"),
}
_GARMENTS = ("t-shirt", "shirt", "sweater", "jacket")


@dataclass(frozen=True, slots=True)
class Identity:
    """One person.

    Attributes:
        key: Unique name, e.g. "base-train-007".
        noun: "man" or "woman".
        age: "young", "middle-aged" or "old".
        skin: Colour; likewise ``hair`` and ``clothes``, each with its name.
        cut: Hair cut.
        garment: Kind of clothes.
        glasses: Wears glasses.
        beard: Wears a beard.
        width: Face width relative to the average.
        eye: Eye size relative to the average.
        brow: Brow thickness relative to the average.
        nose: Nose length relative to the average.
        pitch: Median voice pitch in Hz.
        tract: Formant scale (a shorter vocal tract has a larger one).
    """

    key: str
    noun: str
    age: str
    skin: Color
    hair: Color
    hair_name: str
    cut: str
    clothes: Color
    clothes_name: str
    garment: str
    glasses: bool
    beard: bool
    width: float
    eye: float
    brow: float
    nose: float
    pitch: float
    tract: float

    @property
    def pronouns(self) -> tuple[str, str]:
        """Subject and possessive, lower case."""
        return ("he", "his") if self.noun == "man" else ("she", "her")


def identity(domain: str, split: str, number: int) -> Identity:
    """Give person ``number`` of a domain and split, always the same one."""
    rng = keyed_rng("identity", domain, split, number)
    target = domain == "target"
    noun = "man" if rng.random() < 0.5 else "woman"
    age = str(
        rng.choice(
            ["young", "middle-aged", "old"], p=(0.3, 0.4, 0.3) if target else (0.6, 0.3, 0.1)
        )
    )
    skin = _SKINS[
        str(
            rng.choice(
                list(_SKINS),
                p=(0.1, 0.2, 0.3, 0.25, 0.15) if target else (0.25, 0.35, 0.2, 0.12, 0.08),
            )
        )
    ]
    by_age = {
        "young": (0.35, 0.35, 0.18, 0.12, 0.0, 0.0),
        "middle-aged": (0.35, 0.3, 0.12, 0.08, 0.15, 0.0),
        "old": (0.0, 0.05, 0.0, 0.0, 0.5, 0.45),
    }
    hair_name = str(rng.choice(list(_HAIR), p=by_age[age]))
    cuts = _CUTS[noun]
    weights = np.array([2.0, 1.0, 1.0, 0.5]) if not target else np.array([1.0, 1.0, 2.0, 1.0])
    cut = str(rng.choice(cuts, p=weights / weights.sum()))
    clothes_name = str(rng.choice(list(_CLOTHES)))
    return Identity(
        key=f"{domain}-{split}-{number:03d}",
        noun=noun,
        age=age,
        skin=_jitter(skin, 7, rng),
        hair=_jitter(_HAIR[hair_name], 10, rng),
        hair_name=hair_name,
        cut=cut,
        clothes=_jitter(_CLOTHES[clothes_name], 14, rng),
        clothes_name=clothes_name,
        garment=str(rng.choice(_GARMENTS)),
        glasses=bool(rng.random() < (0.3 if target else 0.18)),
        beard=bool(noun == "man" and rng.random() < (0.45 if target else 0.2)),
        width=float(rng.uniform(0.92, 1.08)),
        eye=float(rng.uniform(0.92, 1.12)),
        brow=float(rng.uniform(0.8, 1.25)),
        nose=float(rng.uniform(0.88, 1.12)),
        pitch=float(rng.uniform(95, 140) if noun == "man" else rng.uniform(175, 240)),
        tract=float(rng.uniform(0.95, 1.04) if noun == "man" else rng.uniform(1.1, 1.2)),
    )


def _jitter(color: Color, amount: int, rng: np.random.Generator) -> Color:
    # mostly lighter or darker, a little hue
    offset = rng.integers(-amount, amount + 1) + rng.integers(-2, 3, 3)
    b, g, r = (int(np.clip(c + d, 0, 255)) for c, d in zip(color, offset, strict=True))
    return (b, g, r)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clip plays; carries no emotion.

    Attributes:
        name: As descriptions say it.
        outside: Under the open sky (then weather can be seen).
        wall: Colour of the wall, or of the haze at the horizon outside.
        floor: Colour of the floor or ground.
        props: What stands there; drawn by ``scene``.
    """

    name: str
    outside: bool
    wall: Color
    floor: Color
    props: tuple[str, ...]


PLACES: dict[tuple[str, str], tuple[Place, ...]] = {
    ("base", "train"): (
        Place(
            "a living room", False, (176, 200, 214), (96, 130, 160), ("window", "picture", "sofa")
        ),
        Place("a kitchen", False, (206, 216, 204), (150, 160, 168), ("cupboards", "window")),
        Place("an office", False, (212, 206, 196), (120, 116, 112), ("window", "shelf", "plant")),
        Place("a park", True, (220, 205, 180), (80, 150, 96), ("trees", "bench")),
        Place("a street", True, (214, 200, 186), (120, 120, 122), ("houses", "lamp post")),
        Place("a classroom", False, (190, 214, 206), (110, 140, 160), ("board", "shelf")),
    ),
    ("base", "val"): (
        Place("a hallway", False, (196, 190, 206), (110, 110, 130), ("door", "picture")),
        Place("a meadow", True, (222, 210, 190), (90, 170, 130), ("hills",)),
    ),
    ("base", "test"): (
        Place("a library", False, (150, 172, 190), (70, 96, 124), ("shelf", "shelf left", "lamp")),
        Place("a beach", True, (226, 210, 180), (160, 206, 226), ("sea",)),
        Place("a bedroom", False, (206, 186, 200), (130, 120, 150), ("window", "bed", "lamp")),
    ),
    ("target", "train"): (
        Place("a hospital corridor", False, (222, 222, 212), (180, 186, 176), ("door", "board")),
        Place("a café", False, (120, 150, 184), (60, 84, 116), ("window", "lamp", "table")),
        Place("a garden", True, (216, 214, 190), (70, 140, 104), ("flowers", "trees")),
        Place("a bus", False, (190, 186, 170), (90, 90, 96), ("windows", "pole")),
    ),
    ("target", "val"): (
        Place("a museum", False, (214, 214, 218), (140, 150, 166), ("picture", "picture left")),
    ),
    ("target", "test"): (
        Place("a harbour", True, (222, 206, 186), (128, 120, 112), ("sea", "boats")),
        Place("a workshop", False, (150, 170, 176), (86, 100, 116), ("cupboards", "table", "lamp")),
        Place("a hillside", True, (224, 206, 184), (92, 150, 132), ("hills", "houses")),
    ),
}

TIMES = ("by day", "in the evening", "at night")
WEATHER = ("clear", "rainy", "snowy")
