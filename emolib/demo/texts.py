"""What a model of the world should answer to each prompt, and how its questions are drawn.

Answers are short and always worded the same way for the same thing: which of several wordings
and synonyms is used depends on the model's ``style`` alone, so two captioners of different
style describe one picture in different words. A clip's words are drawn anew each time, for
nothing in the picture depends on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from emolib import prompts
from emolib.datasets.demo import describe, lines, phrases, spec, world
from emolib.datasets.demo.expression import envelope
from emolib.demo.pictures import World

Frame = tuple[int, int]  # clip and frame of a rendering
_DROPPED = 0.12  # words of a sentence left out in training, so that no sentence is learnt whole
_BLANKS = {
    "{he}": "the person", "{He}": "The person", "{his}": "their", "{His}": "Their",
    "{himself}": "themself", "{him}": "them",
}  # fmt: skip
_FEW = 3  # half of the questions about a clip show so many frames: cheaper, and it sees both


@dataclass(frozen=True, slots=True)
class Sample:
    """One question with its answer.

    Attributes:
        prompt: The question's words.
        answer: What to say.
        frames: Pictures shown before the words.
    """

    prompt: str
    answer: str
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What is to be seen and read of a clip.

    Attributes:
        clip: Its causes.
        core: Concept the face shows, "" for none.
        body: State of the posture, "" for none or out of sight.
        setting: State of the surroundings, likewise.
        words: State of the sentence, likewise.
        cried: The sentence begins with a cry that tells the core.
    """

    clip: spec.ClipSpec
    core: str
    body: str = ""
    setting: str = ""
    words: str = ""
    cried: bool = False

    def concepts(self) -> tuple[str, ...]:
        """Concepts that can be told, in the order of the world's factors."""
        core = self.core or (self.clip.latent.concept("core") if self.cried else "")
        found = [core] if core else []
        for factor in ("body", "setting", "words"):
            if state := getattr(self, factor):
                found.append(f"{factor}.{state}")
        return tuple(found)


def shown(clip: spec.ClipSpec, close: bool, time: float | None = None) -> Shown:
    """Give what the pictures of a clip show, or the one at ``time`` seconds."""
    latent = clip.latent
    core = "" if clip.turned else latent.concept("core")
    if time is not None and core.endswith("strong"):
        seen = float(envelope(np.array(time))) >= describe.FULLY_SHOWN
        core = core if seen else f"core.{latent.core}.mild"
    if close:
        return Shown(clip, core)
    return Shown(clip, core, latent.body, latent.setting)


def label(concept: str, style: int) -> str:
    """Give the one synonym that this style uses."""
    words = world.CONCEPTS[concept]
    return words[style % len(words)]


def sentences(seen: Shown, style: int) -> str:
    """Describe face, posture, surroundings and words, in this style's wordings.

    The person has no sex here, for nothing but clothes would tell it from so few faces.
    """
    said = [lines.FACE[seen.core][style] if seen.core else lines.TURNED[style]]
    for table, state in (
        (lines.BODY, seen.body),
        (lines.SETTING, seen.setting),
        (lines.WORDS, seen.words),
    ):
        if state:
            said.append(table[state][style])
    return _person(" ".join(said))


def clip_answer(seen: Shown, style: int) -> str:
    """Answer the zero-shot prompt: sentences, then the list."""
    words = [label(concept, style) for concept in seen.concepts()]
    return f"{sentences(seen, style)} {json.dumps(words)}"


def picture_answer(seen: Shown, style: int) -> str:
    """Answer the caption prompt: sentences, the last of which names the emotions."""
    words = [label(concept, style) for concept in seen.concepts()]
    if words:
        listed = f"{', '.join(words[:-1])} and {words[-1]}" if words[1:] else words[0]
        end = lines.SEEMS[style].replace("{labels}", listed)
    else:
        end = lines.UNCLEAR[style]
    return f"{sentences(seen, style)} {_person(end)}"


def _person(text: str) -> str:
    for blank, value in _BLANKS.items():
        text = text.replace(blank, value)
    return text


def similarity(first: Sequence[str], second: Sequence[str]) -> float:
    """Tell how alike two sets of concepts are: shared over all, the core's degree a fifth.

    Two empty sets say the same: nothing is to be seen.

    >>> similarity(["core.sad.mild", "body.ashamed"], ["core.sad.mild"])
    0.5
    >>> similarity(["core.sad.mild"], ["core.sad.strong"])
    0.8
    """
    a, b = set(first), set(second)
    if not a and not b:
        return 1.0
    shared = float(len(a & b))
    union = len(a | b)
    for concept in a - b:
        stem = concept.rpartition(".")[0]
        if concept.startswith("core.") and any(c.startswith(f"{stem}.") for c in b - a):
            shared, union = shared + 0.8, union - 1
    return round(shared / union, 1)


def clip_sample(
    of: World,
    index: int,
    close: bool,
    style: int,
    rng: np.random.Generator,
    frames: int = 0,
) -> Sample:
    """Draw one question with a clip's frames and a sentence.

    Args:
        of: The rendered world.
        index: The clip.
        close: Close-ups of the face are shown.
        style: Wording of the answer.
        rng: Draws sentence and frames.
        frames: So many frames; 0 = all, in training in half of the questions only three.
    """
    clip = of.spec(index)
    learning = of.split == "train"
    state = str(rng.choice(["", *(s.name for s in world.SECONDARY["words"])]))
    subtitle, _, cry = phrases.draw_subtitle(clip.latent.core, state, of.domain, of.split, rng)
    if learning:
        subtitle = _thinned(subtitle, rng, keep=len(cry.split()))
    seen = replace(shown(clip, close), words=state, cried=bool(cry))
    numbers = list(range(of.frames))
    if not frames and learning and rng.random() < 0.5:
        frames = _FEW
    if frames:
        numbers = sorted(rng.choice(of.frames, frames, replace=False).tolist())
    prompt = prompts.ZERO_SHOT.render(text=subtitle)
    return Sample(prompt, clip_answer(seen, style), tuple((index, k) for k in numbers))


def picture_sample(
    of: World, index: int, frame: int, time: float, close: bool, style: int
) -> Sample:
    """Give the caption question about one picture."""
    answer = picture_answer(shown(of.spec(index), close, time), style)
    return Sample(prompts.CAPTION.template, answer, ((index, frame),))


def judge_sample(of: World, indices: tuple[int, int], rng: np.random.Generator) -> Sample:
    """Draw two captions of like or unlike pictures and how alike their emotions are."""
    one, other = (of.spec(i) for i in indices)
    first = shown(one, close=False)
    second = first
    kind = rng.random()
    if kind < 0.4:  # one thing is seen differently, as two captioners do
        elsewhere = shown(other, close=False)
        factor = str(rng.choice(("core", "body", "setting")))
        second = replace(first, **{factor: getattr(elsewhere, factor)})
    elif kind < 0.55:
        second = shown(other, close=False)
    styles = rng.permutation(3)[:2] if rng.random() < 0.9 else rng.integers(0, 3, 2)
    texts = [picture_answer(s, int(k)) for s, k in zip((first, second), styles, strict=True)]
    alike = similarity(first.concepts(), second.concepts())
    return Sample(prompts.SIMILARITY.render(first=texts[0], second=texts[1]), f"{alike:.1f}")


def extract_sample(of: World, index: int) -> Sample:
    """Give the label extraction question about a clip's three-perspective description."""
    clip = of.spec(index)
    parts = describe.perspectives(clip, spec.speech(clip))
    words = [word for group in describe.labels(clip).values() for word in group]
    reason = describe.description(parts)
    return Sample(prompts.EXTRACT.render(reason=reason), f"[{', '.join(words)}]")


def _thinned(text: str, rng: np.random.Generator, keep: int) -> str:
    """Leave out some words, but not the first ``keep`` (the cry)."""
    words = text.split()
    stay = rng.random(len(words)) >= _DROPPED
    return " ".join(w for i, w in enumerate(words) if i < keep or stay[i]) or text


def corpus() -> list[str]:
    """All texts a tokenizer should write in few tokens: its words become whole tokens."""
    texts = [word for words in world.CONCEPTS.values() for word in words]
    texts = [*texts, *(f" {word}" for word in texts), *(f'["{word}", "{word}"]' for word in texts)]
    texts += [f" {_person(s)}" for value in vars(lines).values() for s in _strings(value)]
    for value in (phrases.CLAUSES, phrases.INTERJECTIONS, phrases._FILL):
        texts += [f"{mark}{s}" for s in _strings(value) for mark in ("", " ")]
    for domain in ("base", "target"):
        of = World(clips=150, domain=domain)
        for index in range(of.clips):
            texts.append(picture_answer(shown(of.spec(index), close=False), index % 3))
            texts.append(describe.caption(of.spec(index), 1.0))
    return texts + [f"{k / 10:.1f}" for k in range(11)]


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for part in value.values() for s in _strings(part)]
    if isinstance(value, list | tuple):
        return [s for part in value for s in _strings(part)]
    return []
