"""Texts about a clip, made from the same causes as its media.

Three perspectives, each from its own cues alone (video, audio, text), a summary that names the
labels, and captions of single frames. Every wording is drawn from streams of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emolib.datasets.demo import lines, world
from emolib.datasets.demo.cast import keyed_rng
from emolib.datasets.demo.expression import envelope
from emolib.datasets.demo.spec import ClipSpec, Speech

PERSPECTIVES = ("video", "audio", "text")
FULLY_SHOWN = 0.65  # expression envelope from which strong cues count as visible


def labels(spec: ClipSpec) -> dict[str, tuple[str, ...]]:
    """Give the clip's labels by the factor that causes them."""
    return world.draw_labels(spec.latent, spec.rng("labels"))


def labels_by_perspective(spec: ClipSpec, plan: Speech) -> dict[str, tuple[str, ...]]:
    """Give the labels that can be told from video, audio and text each."""
    found = labels(spec)
    factors = {
        "video": (*(() if spec.turned else ("core",)), "body", "setting"),
        "audio": ("core", "voice"),
        "text": (*(("core",) if plan.interjection else ()), "words"),
    }
    return {
        key: tuple(word for factor in wanted for word in found.get(factor, ()))
        for key, wanted in factors.items()
    }


def perspectives(spec: ClipSpec, plan: Speech) -> dict[str, str]:
    """Describe the clip from each perspective alone, and sum up.

    Returns:
        "video", "audio", "text" and "summary"; sentences.
    """
    say = _Sayer(spec, spec.rng("description"))
    seen = say.opening() + " " + say.seen(spec.latent.concept("core"))
    heard = [say.line(lines.PROSODY[spec.latent.concept("core")])]
    if spec.latent.voice:
        heard.append(say.line(lines.VOICE[spec.latent.voice]))
    read = [f'the subtitle reads: "{plan.subtitle}"']
    if plan.interjection:
        word = plan.interjection.rstrip(",")
        told = _join(labels(spec)["core"])
        read.append(say.line(lines.INTERJECTION).replace("{word}", word).replace("{labels}", told))
    read.append(say.line(lines.WORDS[spec.latent.words]))
    words = [word for group in labels(spec).values() for word in group]
    return {
        "video": f"In the video, {seen}",
        "audio": f"In the audio, {', and '.join(heard)}.",
        "text": f"In the text, {' '.join(read)}",
        "summary": say.line(lines.SUMMARY).replace("{labels}", _join(words)),
    }


def description(parts: dict[str, str]) -> str:
    """Join :func:`perspectives` to the three-perspective description of EMER's kind."""
    return " ".join(parts[key] for key in (*PERSPECTIVES, "summary"))


def caption(spec: ClipSpec, time: float, variant: int = 0) -> str:
    """Describe what one frame shows and what it tells: person, place, face, body, surroundings.

    Args:
        spec: The clip.
        time: Seconds from its start. A strong expression is not yet strong in the first frames.
        variant: Another number, other words.
    """
    key = (spec.seed, spec.domain, spec.split, spec.index, "caption", round(time * 1000), variant)
    say = _Sayer(spec, keyed_rng(*key))
    latent, found = spec.latent, labels(spec)
    core, told = latent.concept("core"), found["core"]
    if latent.degree == "strong" and float(envelope(np.array(time))) < FULLY_SHOWN:
        core = f"core.{latent.core}.mild"
        told = (say.one(world.CONCEPTS[core]),)
    words = [*(() if spec.turned else told), *found.get("body", ()), *found.get("setting", ())]
    opening = say.opening()
    end = (
        say.line(lines.SEEMS).replace("{labels}", _join(words))
        if words
        else say.line(lines.UNCLEAR)
    )
    return f"{opening[0].upper()}{opening[1:]} {say.seen(core)} {end}"


class _Sayer:
    """Chooses wordings and fills in pronouns."""

    def __init__(self, spec: ClipSpec, rng: np.random.Generator) -> None:
        self.spec, self.rng = spec, rng
        he, his = spec.who.pronouns
        him = "him" if he == "he" else "her"
        self._blanks = {
            "{he}": he, "{his}": his, "{He}": he.capitalize(), "{His}": his.capitalize(),
            "{himself}": f"{him}self", "{him}": him,
        }  # fmt: skip

    def one(self, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]

    def line(self, choices: Sequence[str]) -> str:
        text = self.one(choices)
        for blank, value in self._blanks.items():
            text = text.replace(blank, value)
        return text

    def opening(self) -> str:
        """Say who is where."""
        text = self.line(lines.OPENING[self.spec.domain])
        return text.replace("{person}", self._person()).replace("{place}", self._place())

    def seen(self, core: str) -> str:
        """Say what face, body and surroundings show."""
        latent = self.spec.latent
        said = [self.line(lines.TURNED if self.spec.turned else lines.FACE[core])]
        if latent.body:
            said.append(self.line(lines.BODY[latent.body]))
        if latent.setting:
            said.append(self.line(lines.SETTING[latent.setting]))
        return " ".join(said)

    def _person(self) -> str:
        who = self.spec.who
        article = "an" if who.age[0] in "aeio" else "a"
        hair = "a bald head" if who.cut == "bald" else f"{who.hair_name} hair"
        extra = " and glasses" if who.glasses else ""
        article_2 = "an" if who.clothes_name[0] in "aeio" else "a"
        dress = (
            f" in {article_2} {who.clothes_name} {who.garment}" if self.rng.random() < 0.5 else ""
        )
        return f"{article} {who.age} {who.noun} with {hair}{extra}{dress}"

    def _place(self) -> str:
        spec = self.spec
        on = spec.place.name.split()[-1] in ("street", "beach", "hillside", "meadow", "bus")
        name = f"{'on' if on else 'in'} {spec.place.name}"
        if spec.place.outside and spec.weather != "clear":
            name += f" in {'the rain' if spec.weather == 'rainy' else 'falling snow'}"
        return f"{name} {spec.time}" if spec.place.outside else name


def _join(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
