"""More ways to say who is where than the world's base domain has.

A large language model knows many ways to begin a description and many places it has never seen a
picture of. The nano one has read three ways and six places, and is so surprised by any other that
training the branches on them is spent on nothing else. So it also reads these, as texts. No opening
is one of the other domain's; three of the places ("museum", "workshop", "harbour") are, as words.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emolib.datasets.demo import describe, lines
from emolib.datasets.demo.spec import ClipSpec

SHARE = 0.8  # of the texts
_PREFIX = "In the video, "
OPENINGS = (
    "{person} can be seen {place}.",
    "{person} is filmed {place}.",
    "{person} stands before us {place}.",
    "{person} turns up {place}.",
    "{person} is {place}.",
    "{place} there is {person}.",
    "{place}, we meet {person}.",
    "{place}, somebody is filmed: {person}.",
    "a shot of {person} {place}.",
    "a clip, set {place}, with {person}.",
    "it shows {person}, who is {place}.",
    "here we have {person} {place}.",
    "the picture, taken {place}, has {person} in it.",
    "the shot, {place}, is of {person}.",
    "the film cuts to {person} {place}.",
    "the view is of {person} {place}.",
)
# Names of places; a note of a place is all but its first word.
_INSIDE = """
museum, church, theatre, station, shop, bakery, workshop, barn, cellar, bathroom, waiting room,
meeting room, hotel room, dining room, tent, train, tunnel, lift, stable, gym, laboratory,
restaurant, bar, studio, staircase, corridor, sports hall, greenhouse
"""
_OUTSIDE = """
harbour, bridge, car park, courtyard, field, quarry, farm, terrace, playground, vineyard, lake,
valley, roof, market, river bank, clearing, ruin, pier, campsite, crossing
"""
PLACES, OUTSIDE = (
    tuple(f"a {name}" for name in " ".join(names.split()).split(", "))
    for names in (_INSIDE, _OUTSIDE)
)


def elsewhere(spec: ClipSpec, rng: np.random.Generator) -> ClipSpec:
    """Put a clip, as far as texts go, to another place inside or outside as it was."""
    names = OUTSIDE if spec.place.outside else PLACES
    return replace(spec, place=replace(spec.place, name=str(rng.choice(names))))


def reopened(text: str, before: ClipSpec, after: ClipSpec, rng: np.random.Generator) -> str:
    """Let a description or caption begin in another way.

    Args:
        text: Beginning with one of the base domain's openings.
        before: The clip it speaks of.
        after: The same clip, perhaps elsewhere.
        rng: Chooses the opening.
    """
    prefix = _PREFIX if text.startswith(_PREFIX) else ""
    sentence, rest = text[len(prefix) :].split(". ", 1)
    heads = [opening.split("{person}")[0] for opening in lines.OPENING["base"]]
    head = next(h for h in heads if sentence.lower().startswith(h))
    here, there = (describe._Sayer(spec, rng)._place() for spec in (before, after))
    person = sentence[len(head) :].removesuffix(f" {here}")
    opening = str(rng.choice(OPENINGS)).replace("{person}", person).replace("{place}", there)
    if not prefix:
        opening = opening[0].upper() + opening[1:]
    return f"{prefix}{opening} {rest}"
