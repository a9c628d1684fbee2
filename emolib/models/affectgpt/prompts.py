"""What AffectGPT is asked, word for word, for any subset of video, audio and subtitle.

The presets differ in small ways that matter to a trained model (a colon, "given" or
"provided", a space before ``###``): train and test with the same one. The published code
trains with ``train-2024`` and tests with ``infer-2024``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emolib.prompts import plain

VIDEO = "<ImageHere>"
AUDIO = "<AudioHere>"
MULTI = "<MultiHere>"  # video and audio fused before the language model
STOP = "###"

_EMOTION = "From what clues can we infer the person's emotional state?"
# Asked and answered by the design of 2025, which lists labels without describing anything.
LABELS_QUESTION = "Please recognize all possible emotional states of the character."
LABELS_ANSWER = "The character's emotional state is {labels}."
DESCRIPTION_QUESTION = _EMOTION
_EXPERT = (
    "Now as an expert in the field of emotions, please focus on the facial expressions, body "
    "movements, environment, acoustic information, subtitle content, etc., in the video to "
    "discern clues related to the emotions of the individual. Please provide a detailed "
    "description and ultimately predict the emotional state of the individual in the video."
)


@dataclass(frozen=True, slots=True)
class Preset:
    """One family of prompts.

    Attributes:
        name: What callers write.
        source: Where the words come from.
        start: Before everything.
        after_sound: Between "sound that" and the audio tag.
        subtitle: Name of the subtitle in its sentence.
        given: Name of the subtitle in the question; "" when the question names no senses.
        question: Asked when the caller gives none.
        end: After everything.
        gaps: Spaces after the audio, video and subtitle sentence in the published text.
        quote: Stray mark before the video sentence in the published text.
        fused: Also speak of video and audio fused, where there are both.
    """

    name: str
    source: str
    start: str = "###Human: "
    after_sound: str = " "
    subtitle: str = "subtitle"
    given: str = "provided subtitle"
    question: str = _EMOTION
    end: str = " ###Assistant:"
    gaps: tuple[int, int, int] = (1, 1, 1)
    quote: str = ""
    fused: bool = False


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "arXiv 2408.11286, section 2.2",
            subtitle="subtitle content",
            given="",
            question=_EXPERT,
            quote='"',
        ),
        Preset("train-2024", "published AffectGPT code, training", end=" ###Assistant: "),
        Preset(
            "infer-2024",
            "published AffectGPT code, inference",
            after_sound=": ",
            given="given subtitles",
            end="###Assistant:",
            gaps=(17, 18, 17),
        ),
        Preset(
            "image-2024",
            "published AffectGPT code, MiniGPT-4 captions",
            question="Describe this image in detail.",
        ),
        Preset(
            "chat-2024",
            "published AffectGPT code, LLaVA and VideoChat dialogues",
            start="###Human:",
            question="Describe this image in detail.",
            end="###Assistant:",
        ),
    )
}

# What the release of 2025 says of its inputs is not known here: the sentences of 2024 stand in
# their place. Question and answer are its own.
PRESETS_2025: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "labels-2025",
            "AffectGPT of 2025 (arXiv 2501.16566), question; inputs as in train-2024",
            question=LABELS_QUESTION,
        ),
        Preset(
            "fused-2025",
            "as labels-2025, with pre-fused video and audio",
            question=LABELS_QUESTION,
            fused=True,
        ),
    )
}
ALL_PRESETS = PRESETS | PRESETS_2025

# Asked about MiniGPT-4's pictures, one at random.
IMAGE_QUESTIONS = (
    "Describe this image in detail.",
    "Take a look at this image and describe what you notice.",
    "Please provide a detailed description of the picture.",
    "Could you describe the contents of this image for me?",
)


def build_prompt(
    preset: str = "paper",
    *,
    video: bool = True,
    audio: bool = True,
    subtitle: str | None = None,
    question: str | None = None,
    image: bool = False,
    reference_compat: bool = False,
) -> str:
    """Write one prompt; a modality that is not given leaves no trace in it.

    Args:
        preset: A key of :data:`ALL_PRESETS`.
        video: Whether there is a video or image.
        audio: Whether there is audio.
        subtitle: The spoken words; "" for known silence (empty tags, as published for
            samples without words), None to leave the subtitle out. Made :func:`plain`.
        question: Instead of the preset's own. Made :func:`plain`.
        image: The video is a still image.
        reference_compat: Keep the published runs of spaces and the paper's stray quotation
            mark.

    Raises:
        ValueError: unknown preset.
    """
    if preset not in ALL_PRESETS:
        raise ValueError(f"unknown prompt preset {preset!r}; choose from {sorted(ALL_PRESETS)}")
    words = ALL_PRESETS[preset]
    gaps = words.gaps if reference_compat else (1, 1, 1)
    quote = words.quote if reference_compat and audio else ""
    text = words.start
    if audio:
        text += (
            "Close your eyes, open your ears and you imagine only based on the sound that"
            f"{words.after_sound}<Audio>{AUDIO}</Audio>." + " " * gaps[0]
        )
    if video:
        tag = "Image" if image else "Video"
        text += (
            f"{quote}Close your ears, open your eyes and you see that <{tag}>{VIDEO}</{tag}>."
            + " " * gaps[1]
        )
    if words.fused and audio and video and not image:
        text += f"Hear and see at once that <Multi>{MULTI}</Multi>. "
    if subtitle is not None:
        text += (
            f"The {words.subtitle} of this video is <Subtitle>{plain(subtitle)}</Subtitle>."
            + " " * gaps[2]
        )
    asked = words.question if question is None else plain(question)
    if not words.given:
        return text + asked + words.end
    evidence = _evidence(video, audio, subtitle is not None, words.given)
    return f"{text}Now answer my question based on {evidence}. {asked}{words.end}"


def question_of(preset: str, answer: str) -> str | None:
    """The question that fits what is answered; None = the preset's own.

    Args:
        preset: A key of :data:`ALL_PRESETS`.
        answer: "description" or "labels".
    """
    if answer == "labels":
        return LABELS_QUESTION
    return DESCRIPTION_QUESTION if preset in PRESETS_2025 else None


def labels_answer(labels: Sequence[str]) -> str:
    """What the design of 2025 learns to say of a clip's labels.

    >>> labels_answer(["happy", "a little shy"])
    "The character's emotional state is happy, a little shy."
    """
    return LABELS_ANSWER.format(labels=", ".join(labels))


def next_turn(question: str) -> str:
    """A later question of a ``chat-2024`` dialogue."""
    return f"Human:{plain(question)}###Assistant:"


def _evidence(video: bool, audio: bool, subtitle: bool, given: str) -> str:
    if not (video or audio):
        return f"the {given}" if subtitle else "what you know"
    senses = [word for word, there in (("seen", video), ("heard", audio)) if there]
    if subtitle:
        senses.append(given)
    if len(senses) > 1:
        senses[-1] = f"and {senses[-1]}"
    return f"what you have {', '.join(senses)}"


def media_fault(prompts: Sequence[str], video: bool, audio: bool, multi_tokens: int) -> str:
    """Why prompts and media do not go together; "" when they do.

    Args:
        prompts: All turns of one sample.
        video: Whether a video or picture is given.
        audio: Whether a sound is given.
        multi_tokens: The processor's; 0 = its model does not fuse.
    """
    counts = {token: sum(p.count(token) for p in prompts) for token in (VIDEO, AUDIO, MULTI)}
    if counts[MULTI] and not multi_tokens:
        return f"{MULTI} in the text, but this model has no pre-fusion: choose another preset"
    if counts[MULTI] > 1:
        return f"{MULTI} occurs {counts[MULTI]} times in the text: once at most"
    for name, token, there in (("video", VIDEO, video), ("audio", AUDIO, audio)):
        fused = bool(counts[MULTI]) and counts[token] == 0  # seen or heard in fused form only
        if counts[token] + fused != there:
            return (
                f"{token} occurs {counts[token]} times in the text, but "
                f"{'one' if there else 'no'} {name} is given"
            )
    return ""
