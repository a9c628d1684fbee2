"""What the nano AffectGPT's language model reads and writes: prompts, notes, answers.

Everything is drawn from the "base" domain's training split, which no experiment tests on. A
*note* is one word for one thing seen or heard ("woman", "kitchen", "joyful"). The language
model learns to read notes where a prompt has its video or sound, as a person would who is told
what is there; the two branches later have to learn to write what the notes said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emolib.datasets.demo import describe, lines, phrases, world
from emolib.datasets.demo.expression import envelope
from emolib.datasets.demo.spec import FPS, ClipSpec, Speech, draw, speech
from emolib.demo.affectgpt import openings
from emolib.models.affectgpt.prompts import IMAGE_QUESTIONS, PRESETS, build_prompt

View = tuple[bool, bool, bool]
Notes = dict[str, str]

#: Seed of the world the frozen parts are trained on; the notebooks' world has another.
SEED = 8286
ALL: View = (True, True, True)
#: What is practised, and how often, in five phases: video, audio and words there or not;
#: "picture": a still is described; "list": the notes are named one by one; "echo": a jumble of
#: words is repeated. The first teaches what notes are, the third practises reading, the last two
#: other openings and places (:mod:`emolib.demo.affectgpt.openings`).
_MIXES: tuple[dict[View | str, float], ...] = (
    {"list": 0.75, "echo": 0.25},
    {
        ALL: 0.45,
        (True, False, False): 0.06,
        (False, True, False): 0.06,
        (False, False, True): 0.08,
        (True, True, False): 0.04,
        (True, False, True): 0.04,
        (False, True, True): 0.04,
        "picture": 0.11,
        "list": 0.1,
        "echo": 0.2,
    },
    {
        ALL: 0.34,
        (True, False, False): 0.05,
        (False, True, False): 0.05,
        (False, False, True): 0.2,
        (True, True, False): 0.03,
        (True, False, True): 0.04,
        (False, True, True): 0.04,
        "picture": 0.1,
        "list": 0.05,
        "echo": 0.2,
    },
    {
        ALL: 0.45,
        (True, False, False): 0.1,
        (False, True, False): 0.05,
        (False, False, True): 0.06,
        (True, True, False): 0.03,
        (True, False, True): 0.04,
        (False, True, True): 0.04,
        "picture": 0.18,
        "echo": 0.05,
    },
)
MIXES = (*_MIXES, _MIXES[-1])
LIST = "Name in single words what is seen and heard."
# How often a note is wrong where there are several to weigh: towers err, voices most of all.
_MISTAKEN = {"tone": 0.4, "face": 0.1}
_PAPER = 0.8  # how often the prompt is the paper's, else another preset's
_ELSEWHERE = 0.5  # how often a list names another place than the base domain has
_COPY = 0.12  # how often a description ends with the words, which are a jumble
_NOISY = 0.3  # how often words are left out of the sentence or replaced


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of language-model training.

    Attributes:
        prompt: With placeholders.
        answer: What to say.
        video: Notes by kind in the place of the video or picture; None without one.
        audio: Notes by kind in the place of the sound; None without one.
        whole: Whether the answer ends there (``###``).
    """

    prompt: str
    answer: str
    video: Notes | None
    audio: Notes | None
    whole: bool = True


def sample(
    index: int,
    view: View | str,
    seed: int = SEED,
    varied: bool = False,
    doubtful: bool = False,
    abroad: float = 0.0,
) -> Sample:
    """Draw row ``index``.

    Args:
        index: Number of the clip in the training split.
        view: What the prompt holds; "picture": a still; "list": notes to be named; "echo": words
            to be repeated.
        seed: Of the world.
        varied: Let most descriptions begin in other ways and play in other places.
        abroad: How many of these begin as the other domain's do.
        doubtful: Let face and tone be mistaken at times where the prompt shows both.
    """
    rng = np.random.default_rng([seed, index, 7])
    if view == "echo":
        jumble = _jumble(rng)
        prompt = build_prompt("paper", video=False, audio=False, subtitle=jumble)
        answer = f'In the text, the subtitle reads: "{jumble}"'
        return Sample(prompt, answer, None, None, whole=False)
    spec = draw(seed, "base", "train", index)
    if view == "list":
        return _listed(spec, rng)
    plan = speech(spec)
    varied = varied and rng.random() < openings.SHARE
    far = abroad > 0 and rng.random() < abroad
    if isinstance(view, str):
        return _picture(spec, plan, rng, varied, far)
    video, audio, words = view
    whole = True
    if words and rng.random() < _COPY:
        plan, whole = replace(plan, subtitle=_jumble(rng)), False
    elif words and rng.random() < _NOISY:
        plan = replace(plan, subtitle=_noisy(plan, rng))
    answer = answer_for(spec, plan, video, audio, words)
    if varied and video:
        there = openings.elsewhere(spec, rng, far)
        answer, spec = openings.reopened(answer, spec, there, rng, far), there
    if not whole:
        answer = answer[: answer.index(plan.subtitle) + len(plan.subtitle) + 1]
    preset = "paper" if rng.random() < _PAPER else str(rng.choice(["train-2024", "infer-2024"]))
    seen, heard = seen_notes(spec, spec.latent.concept("core")), heard_notes(spec)
    if doubtful and video and audio:
        for notes, kind in ((seen, "face"), (heard, "tone")):
            if rng.random() < _MISTAKEN[kind]:
                notes[kind] = str(rng.choice([words[0] for words in _CORES]))
    return Sample(
        build_prompt(preset, video=video, audio=audio, subtitle=plan.subtitle if words else None),
        answer,
        seen if video else None,
        heard if audio else None,
        whole,
    )


def answer_for(spec: ClipSpec, plan: Speech, video: bool, audio: bool, words: bool) -> str:
    """The description as far as it can be told from what there is; ends with the labels told.

    With everything there it is the data set's own description.
    """
    parts = describe.perspectives(spec, plan)
    told = describe.labels_by_perspective(spec, plan)
    there = {"video": video, "audio": audio, "text": words}
    known = {word for key, labels in told.items() if there[key] for word in labels}
    labels = [word for group in describe.labels(spec).values() for word in group]
    kept = [word for word in labels if word in known]
    said = [parts[key] for key in describe.PERSPECTIVES if there[key]]
    if kept:
        said.append(parts["summary"].replace(joined(labels), joined(kept)))
    return " ".join(said)


def seen_notes(spec: ClipSpec, core: str) -> Notes:
    """What a picture of the clip shows: one word a kind."""
    who, latent = spec.who, spec.latent
    notes = {
        "noun": who.noun,
        "age": who.age,
        "hair": "bald" if who.cut == "bald" else who.hair_name,
        "clothes": who.clothes_name,
        "garment": who.garment,
        "place": spec.place.name.split(" ", 1)[1],
    }
    if who.glasses:
        notes["glasses"] = "glasses"
    if spec.place.outside:
        notes["time"] = spec.time.split()[-1]
        if spec.weather != "clear":
            notes["weather"] = "rain" if spec.weather == "rainy" else "snow"
    notes["face"] = "turned" if spec.turned else world.CONCEPTS[core][0]
    return notes | {k: v for k in ("body", "setting") if (v := getattr(latent, k))}


def heard_notes(spec: ClipSpec) -> Notes:
    """What the sound of the clip tells: one word a kind."""
    notes = {"noun": spec.who.noun, "tone": world.CONCEPTS[spec.latent.concept("core")][0]}
    return notes | ({"voice": spec.latent.voice} if spec.latent.voice else {})


def joined(words: Sequence[str]) -> str:
    """Words as the data set lists them: "sad, tired and alone"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def corpus(rows: int) -> Iterator[str]:
    """Texts for the tokenizer: prompts, then answers and captions of training clips."""
    for index in range(rows):
        one = sample(index, ALL if index % 4 else "picture")
        yield one.answer
        yield from (one.video or {}).values()
    for words in world.CONCEPTS.values():
        yield from (f" {word}, {word} and {word}" for word in words * (rows // 100))


def prompt_phrases() -> list[str]:
    """The sentences prompts consist of, longest first; each is one token of the vocabulary."""
    found = set()
    for preset in PRESETS:
        for video, audio, words in (view for view in MIXES[1] if not isinstance(view, str)):
            text = build_prompt(preset, video=video, audio=audio, subtitle="@" if words else None)
            found |= set(_cut(text))
        for question in IMAGE_QUESTIONS:
            found |= set(_cut(build_prompt(preset, audio=False, image=True, question=question)))
    found |= set(_cut(build_prompt("paper", question=LIST)))
    return sorted(found, key=lambda text: (-len(text), text))


def _cut(prompt: str) -> list[str]:
    for mark in ("<AudioHere>", "<ImageHere>", "@"):
        prompt = prompt.replace(mark, "\n")
    return [piece for piece in prompt.split("\n") if piece]


def _listed(spec: ClipSpec, rng: np.random.Generator) -> Sample:
    """Every word of the answer is a note: what reading them is learnt from soonest."""
    if rng.random() < _ELSEWHERE:
        spec = openings.elsewhere(spec, rng)
    seen, heard = seen_notes(spec, spec.latent.concept("core")), heard_notes(spec)
    answer = ", ".join([*seen.values(), *heard.values()])
    return Sample(build_prompt("paper", question=LIST), answer, seen, heard)


def _picture(
    spec: ClipSpec, plan: Speech, rng: np.random.Generator, varied: bool, far: bool
) -> Sample:
    time = float(rng.integers(plan.frames)) / FPS
    core = spec.latent.concept("core")
    shown = float(envelope(np.array(time))) >= describe.FULLY_SHOWN
    if spec.latent.degree == "strong" and not shown:
        core = f"core.{spec.latent.core}.mild"
    question = str(rng.choice(IMAGE_QUESTIONS))
    prompt = build_prompt("image-2024", audio=False, image=True, question=question)
    caption = describe.caption(spec, time)
    if varied:
        there = openings.elsewhere(spec, rng, far)
        caption, spec = openings.reopened(caption, spec, there, rng, far), there
    return Sample(prompt, caption, seen_notes(spec, core), None)


_CORES = [words for concept, words in world.CONCEPTS.items() if concept.startswith("core.")]
_CLAUSES = sorted(c for many in phrases.CLAUSES["base", "train"].values() for c in many)
_WORDS = sorted(
    word
    for word in {
        word
        for told in (_CLAUSES, *lines.WORDS.values(), *phrases._FILL.values())
        for text in told
        for word in text.split()
    }
    if "{" not in word
)


def _jumble(rng: np.random.Generator) -> str:
    """What is to be repeated: halves of two sentences, or any words, some of them misspelt."""
    if rng.random() < 0.4:
        first, second = (_CLAUSES[int(i)].split() for i in rng.integers(len(_CLAUSES), size=2))
        words = first[: int(rng.integers(1, len(first) + 1))] + second[len(second) // 2 :]
        words = [str(rng.choice(_WORDS)) if "{" in word else word for word in words]
    else:
        words = [str(w) for w in rng.choice(_WORDS, size=int(rng.integers(3, 10)))]
        for place in np.flatnonzero(rng.random(len(words)) < 0.4):
            letters = list(words[place])
            rng.shuffle(letters)
            words[place] = "".join(letters)
    return " ".join(words).replace('"', "")


def _noisy(plan: Speech, rng: np.random.Generator) -> str:
    """The sentence with some words left out or replaced; an interjection stays."""
    head = f"{plan.interjection} " if plan.interjection else ""
    words = plan.subtitle[len(head) :].split()
    kept = []
    for word in words:
        chance = rng.random()
        if chance < 0.08 and len(words) > 3:
            continue
        kept.append(str(rng.choice(_WORDS)) if chance > 0.9 else word)
    return head + " ".join(kept or words)
