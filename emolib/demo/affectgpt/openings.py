"""More ways to say who is where than the world's base domain has.

A large language model knows many ways to begin a description and many places it has never seen a
picture of. The nano one has read three ways and six places, and is so surprised by any other that
training the branches on them is spent on nothing else. So it also reads these, as texts: first some
700 openings and 48 places, then, half of the time, how the other domain's descriptions begin and
where its training clips play. These sentences tell nothing of a feeling, and what looks and
sounds so stays unknown.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from emolib.datasets.demo import cast, describe, lines
from emolib.datasets.demo.spec import ClipSpec

SHARE = 0.8  # of the texts
ABROAD = 0.5  # of these, in the last phase, as the other domain begins
_PREFIX = "In the video, "
_FILMS = """
the clip, the footage, the video, this shot, the recording, the film, the frame, the image, this
sequence, the short film, the excerpt, the material
"""
_SHOW = """
shows, features, follows, presents, has, centres on, stays on, captures, portrays, watches, deals
with, is of, is about, introduces, turns to, opens with, consists of
"""
_DO = """
is, can be seen, is filmed, stands before us, turns up, is talking, says something, is seen close
up, speaks, has the word, is shown, comes into view, is recorded, sits, waits, is met, stays
"""
_PEOPLE = (
    "we meet, we are shown, we find, there is, we come across, one sees, we look at, somebody is"
)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


FILMS, SHOW, DO, PEOPLE = (_listed(text) for text in (_FILMS, _SHOW, _DO, _PEOPLE))
#: How the parts of an opening may stand together.
FORMS = (
    "{film} {show} {person} {place}.",
    "{place}, {film} {show} {person}.",
    "{film}, taken {place}, {show} {person}.",
    "{film}, {place}, {show} {person}.",
    "{person} {do} {place}.",
    "{place} {person} {do}.",
    "{people} {person} {place}.",
    "{place}, {people} {person}.",
    "{person}, {place}, {do}.",
)


def opening(rng: np.random.Generator) -> str:
    """Draw an opening with ``{person}`` and ``{place}`` to fill in: one of some 700."""
    text = str(rng.choice(FORMS))
    for blank, words in (("film", FILMS), ("show", SHOW), ("do", DO), ("people", PEOPLE)):
        text = text.replace(f"{{{blank}}}", str(rng.choice(words)))
    return text


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
PLACES, OUTSIDE = (tuple(f"a {name}" for name in _listed(names)) for names in (_INSIDE, _OUTSIDE))


def elsewhere(spec: ClipSpec, rng: np.random.Generator, abroad: bool = False) -> ClipSpec:
    """Put a clip, as far as texts go, to another place inside or outside as it was.

    Args:
        spec: The clip.
        rng: Chooses the place.
        abroad: Where the other domain's training clips play.
    """
    outside = spec.place.outside
    names = OUTSIDE if outside else PLACES
    if abroad:
        names = tuple(p.name for p in cast.PLACES["target", "train"] if p.outside == outside)
    return replace(spec, place=replace(spec.place, name=str(rng.choice(names))))


def reopened(
    text: str, before: ClipSpec, after: ClipSpec, rng: np.random.Generator, abroad: bool = False
) -> str:
    """Let a description or caption begin in another way.

    Args:
        text: Beginning with one of the base domain's openings.
        before: The clip it speaks of.
        after: The same clip, perhaps elsewhere.
        rng: Chooses the opening.
        abroad: One of the other domain's.
    """
    prefix = _PREFIX if text.startswith(_PREFIX) else ""
    sentence, rest = text[len(prefix) :].split(". ", 1)
    heads = [opening.split("{person}")[0] for opening in lines.OPENING["base"]]
    head = next(h for h in heads if sentence.lower().startswith(h))
    here, there = (describe._Sayer(spec, rng)._place() for spec in (before, after))
    person = sentence[len(head) :].removesuffix(f" {here}")
    begun = str(rng.choice(lines.OPENING["target"])) if abroad else opening(rng)
    begun = begun.replace("{person}", person).replace("{place}", there)
    if not prefix:
        begun = begun[0].upper() + begun[1:]
    return f"{prefix}{begun} {rest}"
