"""The causal table of the demo world, as data: which hidden state shows where, and its words.

This file is the one place where causes are written down. A clip has one *core* emotion with an
intensity, and up to three *secondary* states. The core shows in several channels at once (face,
tone of voice, sometimes an interjection); a secondary state shows in exactly one channel:

======== ================================= =========================================
factor   seen or heard in                  never in
======== ================================= =========================================
core     face, prosody, some interjections posture, surroundings, the sentence itself
body     posture and hands                 sound, words, the face's expression
setting  decoration and light of the place sound, words, the face's expression
voice    how the voice is produced         picture, words
words    the meaning of the sentence       picture, how the voice is produced
======== ================================= =========================================

``likelier`` names the cores with which a secondary state is three times as likely: states go
together as in life, but none follows from another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class State:
    """One value of a hidden factor.

    Attributes:
        name: Identifier inside its factor.
        words: Its labels: synonyms, one (for the core up to two) of which a clip gets.
        cue: What it does to the clip, in short.
        likelier: Cores with which it is :data:`AFFINITY` times as likely.
    """

    name: str
    words: tuple[str, ...]
    cue: str
    likelier: tuple[str, ...] = ()


AFFINITY = 3.0
STRONG_FROM = 0.5  # intensity in [0, 1); from here on the strong words and cues apply

# (core, mild) and (core, strong): words and the channels' common cue.
CORES: dict[str, tuple[State, State]] = {
    "happy": (
        State("happy", ("happy", "pleased", "content"), "closed smile, lively pitch"),
        State("happy", ("joyful", "delighted", "overjoyed"), "laughing mouth, blush, high pitch"),
    ),
    "sad": (
        State("sad", ("sad", "unhappy", "gloomy"), "inner brows up, mouth down, slow low voice"),
        State("sad", ("heartbroken", "miserable", "sorrowful"), "the same with tears, very slow"),
    ),
    "angry": (
        State("angry", ("annoyed", "irritated", "displeased"), "brows down, lips pressed, loud"),
        State("angry", ("angry", "furious", "enraged"), "bared teeth, red face, very loud"),
    ),
    "afraid": (
        State("afraid", ("scared", "afraid", "fearful"), "brows up and drawn, wide eyes, high"),
        State("afraid", ("terrified", "frightened", "panicked"), "the same, pale, sweat, fast"),
    ),
    "surprised": (
        State("surprised", ("surprised", "startled"), "raised brows, parted lips, rising pitch"),
        State("surprised", ("astonished", "amazed", "stunned"), "round open mouth, pitch jumps"),
    ),
    "disgusted": (
        State("disgusted", ("averse", "repelled"), "wrinkled nose, low drawling voice"),
        State("disgusted", ("disgusted", "revolted", "repulsed"), "raised lip, squint, creak"),
    ),
    "worried": (
        State("worried", ("worried", "uneasy", "apprehensive"), "brows drawn, gaze wanders"),
        State("worried", ("anxious", "distressed"), "the same, bitten lip, sweat, unsteady tempo"),
    ),
    "calm": (
        State("calm", ("calm", "composed"), "level brows, even voice"),
        State("calm", ("peaceful", "serene"), "closed eyes, faint smile, soft voice"),
    ),
}

SECONDARY: dict[str, tuple[State, ...]] = {
    "body": (
        State("defensive", ("defensive", "guarded"), "arms crossed", ("angry", "disgusted")),
        State("thoughtful", ("thoughtful", "pensive", "reflective"), "hand on chin", ("calm",)),
        State("determined", ("determined", "resolute"), "raised fist", ("angry",)),
        State("confident", ("confident", "self-assured"), "hands on hips", ("happy", "calm")),
        State("helpless", ("helpless", "powerless"), "shrug, palms up", ("sad", "worried")),
        State(
            "ashamed", ("ashamed", "embarrassed", "humiliated"), "hand before the eyes", ("sad",)
        ),
        State("excited", ("excited", "thrilled"), "both arms up", ("happy", "surprised")),
        State("insecure", ("insecure", "vulnerable"), "hugging oneself", ("afraid", "worried")),
    ),
    "setting": (
        State("festive", ("festive", "merry", "cheerful"), "bunting, balloons", ("happy",)),
        State("mournful", ("mournful", "grieving", "bereaved"), "candles, wreath, grey", ("sad",)),
        State("threatened", ("threatened", "intimidated"), "storm, shadow figure", ("afraid",)),
        State("lonely", ("lonely", "isolated", "lonesome"), "dusk, empty chairs", ("sad",)),
        State("pressured", ("pressured", "self-conscious"), "staring audience", ("worried",)),
        State("romantic", ("romantic", "loving", "affectionate"), "hearts, pink light", ("happy",)),
        State("overwhelmed", ("overwhelmed", "stressed"), "paper piles, clock", ("worried",)),
        State("relaxed", ("relaxed", "cozy", "comfortable"), "lamp light, steaming mug", ("calm",)),
    ),
    "voice": (
        State("nervous", ("nervous", "tense", "jittery"), "tremor", ("afraid", "worried")),
        State("tired", ("tired", "weary", "exhausted"), "sigh, breathy", ("sad", "calm")),
        State("amused", ("amused", "playful", "teasing"), "chuckle before speaking", ("happy",)),
        State("impatient", ("impatient", "rushed"), "hard, clipped syllables", ("angry",)),
        State("bored", ("bored", "indifferent", "uninterested"), "monotone", ("calm",)),
        State("cautious", ("cautious", "wary", "hesitant"), "whisper", ("afraid",)),
        State("moved", ("moved", "touched", "emotional"), "breaking voice, sniff", ("sad",)),
    ),
    "words": (
        State("grateful", ("grateful", "thankful", "appreciative"), "thanks", ("happy",)),
        State("apologetic", ("apologetic", "remorseful", "guilty"), "an apology", ("sad",)),
        State("resentful", ("resentful", "bitter", "accusing"), "blame", ("angry",)),
        State("curious", ("curious", "interested", "inquisitive"), "a question", ("surprised",)),
        State("hopeful", ("hopeful", "optimistic", "expectant"), "hope", ("happy",)),
        State("disappointed", ("disappointed", "dissatisfied"), "a let-down", ("sad", "disgusted")),
        State("proud", ("proud", "accomplished"), "an achievement", ("happy",)),
        State("doubtful", ("doubtful", "skeptical", "suspicious"), "disbelief", ("disgusted",)),
        State("caring", ("caring", "sympathetic", "compassionate"), "comfort", ("worried",)),
        State("envious", ("jealous", "envious"), "another's luck", ("angry", "sad")),
        State("confused", ("confused", "puzzled", "perplexed"), "not understanding", ("worried",)),
    ),
}
FACTORS = ("core", *SECONDARY)
ACTIVE = (0.4, 0.4, 0.2)  # how often a clip has one, two, three secondary states
SECOND_WORD = 0.35  # how often the core gives two synonyms


def _concepts() -> dict[str, tuple[str, ...]]:
    found = {
        f"core.{name}.{degree}": pair[i].words
        for name, pair in CORES.items()
        for i, degree in enumerate(("mild", "strong"))
    }
    for factor, states in SECONDARY.items():
        found |= {f"{factor}.{state.name}": state.words for state in states}
    return found


#: Concept (``factor.state``, for the core ``core.state.degree``) -> its synonyms.
CONCEPTS: dict[str, tuple[str, ...]] = _concepts()
#: Label -> concept; every label has exactly one cause.
CAUSE: dict[str, str] = {word: concept for concept, words in CONCEPTS.items() for word in words}
#: All labels, sorted.
VOCABULARY: tuple[str, ...] = tuple(sorted(CAUSE))


@dataclass(frozen=True, slots=True)
class Latent:
    """What a clip is caused by.

    Attributes:
        core: Key of :data:`CORES`.
        intensity: In [0, 1); from :data:`STRONG_FROM` on it is strong.
        body: State name of this factor or "" for none; likewise the following.
        setting: See ``body``.
        voice: See ``body``.
        words: See ``body``.
    """

    core: str
    intensity: float
    body: str = ""
    setting: str = ""
    voice: str = ""
    words: str = ""

    @property
    def degree(self) -> str:
        """Give the intensity as "mild" or "strong"."""
        return "strong" if self.intensity >= STRONG_FROM else "mild"

    def concept(self, factor: str) -> str:
        """Give the key of :data:`CONCEPTS` this factor has here, or "" when it is not active."""
        if factor == "core":
            return f"core.{self.core}.{self.degree}"
        name = getattr(self, factor)
        return f"{factor}.{name}" if name else ""


def draw_latent(rng: np.random.Generator) -> Latent:
    """Draw the hidden state of one clip from the table above."""
    core = str(rng.choice(list(CORES)))
    count = 1 + int(rng.choice(3, p=ACTIVE))
    active = rng.choice(list(SECONDARY), size=count, replace=False)
    chosen = {}
    for factor in sorted(map(str, active)):
        states = SECONDARY[factor]
        weight = np.array([AFFINITY if core in s.likelier else 1.0 for s in states])
        chosen[factor] = states[int(rng.choice(len(states), p=weight / weight.sum()))].name
    return Latent(core, round(float(rng.random()), 4), **chosen)


def draw_labels(latent: Latent, rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """Draw a clip's words: factor -> one synonym of its state (the core: one or two).

    Every active factor gives a label, so a clip has 2 to 5. The draws do not depend on which
    factors are active: changing one state leaves the other states' words alone.
    """
    labels = {}
    for factor in FACTORS:
        first, extra, step = rng.random(3)
        concept = latent.concept(factor)
        if not concept:
            continue
        words = CONCEPTS[concept]
        i = int(first * len(words))
        picked = [words[i]]
        if factor == "core" and extra < SECOND_WORD:
            picked.append(words[(i + 1 + int(step * (len(words) - 1))) % len(words)])
        labels[factor] = tuple(picked)
    return labels
