"""Our own grouping of emotion words: embedded, versioned, the same on every machine.

``lexicon.csv`` is the whole table, one label a row: group, family (a coarser level for
reading), the published taxonomies that list the label (``extension``: a synonym added by us),
and the version in which the row last changed. The groups follow the categories those
taxonomies share:

============== =====================================================================
shaver1987     Shaver, Schwartz, Kirson, O'Connor: Emotion knowledge. JPSP 52 (1987)
plutchik1980   Plutchik: Emotion: a psychoevolutionary synthesis (1980)
ekman1999      Ekman: Basic emotions. Handbook of cognition and emotion (1999)
russell1980    Russell: A circumplex model of affect. JPSP 39 (1980)
scherer2005    Scherer: What are emotions? (Geneva emotion wheel). SSI 44 (2005)
goemotions2020 Demszky et al.: GoEmotions. ACL (2020)
cowen2017      Cowen, Keltner: 27 distinct categories of experience. PNAS 114 (2017)
panasx1994     Watson, Clark: The PANAS-X (1994)
poms1971       McNair, Lorr, Droppleman: Profile of mood states (1971)
mer2023        the six classes of the MER challenges
============== =====================================================================

A label that is not in the table is looked up by rule, and the rule is named: as an inflected
or derived form of a listed word ("happily", "worrying"), without words that only frame it
("emotional pain", "a feeling of loss"), or by the one group all its known words share. A
negated phrase never takes the group of what it negates. What remains is a group of its own.

The groups do not depend on any system's output, so scores of different systems, papers and
years stay comparable as long as they name the same version.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Literal

from emolib.labels import normalise
from emolib.scoring.grouping import TableGrouping

VERSION = "1.0"
Rule = Literal["listed", "form", "frame", "words", "unknown"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table."""

    label: str
    group: str
    family: str
    sources: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Found:
    """Where a label belongs and why.

    Attributes:
        group: Its group; for "unknown" the normalised label itself.
        rule: "listed", "form" (inflection or derivation), "frame" (framing words removed),
            "words" (its known words share one group) or "unknown".
        via: The listed labels it was found through.
    """

    group: str
    rule: Rule
    via: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def table() -> dict[str, Entry]:
    """The whole table by label."""
    text = files("emolib.scoring").joinpath("lexicon.csv").read_text(encoding="utf-8")
    return {
        row["label"]: Entry(
            row["label"],
            row["group"],
            row["family"],
            tuple(row["sources"].split()),
            row["version"],
        )
        for row in csv.DictReader(text.splitlines())
    }


@lru_cache(maxsize=1)
def version() -> str:
    """Version of table and rules, with the beginning of the table's SHA-256."""
    rows = "\n".join(f"{e.label},{e.group}" for e in table().values())
    return f"{VERSION}+{hashlib.sha256(rows.encode()).hexdigest()[:8]}"


@lru_cache(maxsize=1)
def _unhyphenated() -> dict[str, str]:
    return {label.replace("-", " "): label for label in table()}


# (ending, what may stand in its place). One step undoes one ending; longer ones first.
_ENDINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fulness", ("ful", "")),
    ("iness", ("y",)),
    ("ness", ("",)),
    ("ically", ("ic", "ical")),
    ("ally", ("al", "")),
    ("ably", ("able",)),
    ("ibly", ("ible",)),
    ("fully", ("ful",)),
    ("ily", ("y",)),
    ("ly", ("", "le")),
    ("isation", ("ise", "ize")),
    ("ization", ("ize", "ise")),
    ("ation", ("ate", "e", "")),
    ("ition", ("e", "ite")),
    ("sion", ("d", "se", "ss", "de")),
    ("tion", ("t", "te")),
    ("osity", ("ous",)),
    ("ility", ("le",)),
    ("ity", ("", "e")),
    ("ancy", ("ant",)),
    ("ency", ("ent",)),
    ("ance", ("ant", "", "e")),
    ("ence", ("ent", "", "e")),
    ("ment", ("",)),
    ("ful", ("",)),
    ("ious", ("y",)),
    ("ous", ("", "e", "y")),
    ("able", ("", "e")),
    ("ive", ("", "e", "ion")),
    ("ical", ("ic",)),
    ("ied", ("y",)),
    ("ies", ("y",)),
    ("ier", ("y",)),
    ("iest", ("y",)),
    ("ened", ("", "en")),
    ("ening", ("", "en")),
    ("ed", ("", "e")),
    ("ing", ("", "e")),
    ("er", ("", "e")),
    ("est", ("", "e")),
    ("es", ("", "e")),
    ("s", ("",)),
    ("ish", ("",)),
    ("y", ("", "e")),
)
_NEVER = ("less", "lessly", "lessness")  # the ending turns the meaning round


def reductions(word: str, steps: int = 2) -> dict[str, int]:
    """Give the shorter words that ``word`` may be a form of, and how many endings came off.

    >>> reductions("happily", 1)["happy"]
    1
    """
    found = {word: 0}
    level = [word]
    for step in range(1, steps + 1):
        level = [short for form in level for short in _undo(form) if short not in found]
        for short in level:
            found.setdefault(short, step)
    return found


def _undo(word: str) -> Iterator[str]:
    if word.endswith(_NEVER):
        return
    for ending, stems in _ENDINGS:
        if not word.endswith(ending) or (ending == "s" and word.endswith(("ss", "us", "is"))):
            continue
        base = word[: -len(ending)]
        for stem in stems:
            if len(base + stem) >= 3:
                yield base + stem
        if ending in ("ed", "ing", "er") and len(base) > 3 and base[-1] == base[-2]:
            yield base[:-1]  # regretted, sobbing


@lru_cache(maxsize=1)
def _forms() -> dict[str, tuple[int, str]]:
    """Reduced form -> endings taken off and listed label: fewest endings, then by alphabet."""
    best: dict[str, tuple[int, str]] = {}
    for label in table():
        if label.isascii() and " " not in label:
            for form, steps in reductions(label).items():
                best[form] = min((steps, label), best.get(form, (steps, label)))
    return best


# Words that look like forms of listed words and are not.
_FALSE_FRIENDS = frozenset(("number", "hospital", "series", "heart", "cheek", "longer", "fever"))


_FRAME = re.compile(
    r"\b(?:emotions?|emotional(?:ly)?|feelings?|feels?|moods?|state|states|mental|inner|inward|"
    r"psychological(?:ly)?|expressions?|tone|attitude|reaction|look|a bit|slightly|very|more|"
    r"full of|filled with|sense of|in an?|in|of|with|being|becoming|becomes|getting|some|somewhat|"
    r"a|an|the|his|her|their|towards?|about|to|for|at|and|or|but|yet|own|deep|great|strong|slight|"
    r"mild|intense|extreme|little|self)\b"
)
_NEGATION = re.compile(
    r"\b(?:not|no|never|without|lack(?:ing|s)? of|lacking|lack|don't|doesn't|didn't|can't|cannot|"
    r"isn't|won't|hardly|loss of|free of|free from|anti|non)\b|\bun(?=-)"
)


@lru_cache(maxsize=100_000)
def find(label: str) -> Found:
    """Find the group of a label; cost of a repeated label: one dictionary look-up.

    >>> find("Excitedly").group, find("Excitedly").rule
    ('joy', 'form')
    >>> find("not amused").rule
    'unknown'
    """
    label = normalise(label)
    if (entry := table().get(label)) is not None:
        return Found(entry.group, "listed", (label,))
    plain = label.replace("-", " ")
    if (listed := _unhyphenated().get(plain)) is not None:
        return Found(table()[listed].group, "form", (listed,))
    if _NEGATION.search(label):
        return Found(label, "unknown")
    if " " not in plain:
        return _word(label) or Found(label, "unknown")
    bare = " ".join(_FRAME.sub(" ", plain).split())
    if bare and bare != plain and " " not in bare:
        if found := _word(bare):
            return Found(found.group, "frame", found.via)
    elif (entry := table().get(bare)) is not None:
        return Found(entry.group, "frame", (bare,))
    known = [found for word in bare.split() if (found := _word(word))]
    if len({found.group for found in known}) == 1:
        return Found(known[0].group, "words", tuple(v for found in known for v in found.via))
    return Found(label, "unknown")


def _word(word: str) -> Found | None:
    """A single word: listed, or a form of a listed word."""
    if (entry := table().get(word)) is not None:
        return Found(entry.group, "listed", (word,))
    if word in _FALSE_FRIENDS or not word.isascii():
        return None
    near = []
    for form, steps in reductions(word).items():
        if form in _forms():
            other, label = _forms()[form]
            # The more endings came off on either side, the longer the shared part must be.
            if len(form) >= (3, 4 if other == 0 else 5, 6)[min(steps + other, 2)]:
                near.append((steps + other, -len(form), label))
    if not near:
        return None
    label = min(near)[2]
    return Found(table()[label].group, "form", (label,))


class LexiconGrouping(TableGrouping):
    """The embedded table as a grouping."""

    name = "lexicon"

    def __init__(self) -> None:
        self.version = version()

    def views(self, vocab: Sequence[str]) -> list[list[str | None]]:
        """Group of every label; an unknown label is a group of its own."""
        found = [find(label) for label in vocab]
        return [[f.group if f.rule != "unknown" else f"={f.group}" for f in found]]

    def known(self, vocab: Sequence[str]) -> list[bool]:
        """Whether the table or a rule knows each label."""
        return [find(label).rule != "unknown" for label in vocab]
