"""What AffectGPT is asked, word for word, for any subset of video, audio and subtitle.

The presets differ in small ways that matter to a trained model (a colon, "given" or
"provided", a space before ``###``): train and test with the same one. The published code
trains with ``train-2024`` and tests with ``infer-2024``.
"""

from __future__ import annotations

from dataclasses import dataclass

from emolib.prompts import plain

VIDEO = "<ImageHere>"
AUDIO = "<AudioHere>"
STOP = "###"

_EMOTION = "From what clues can we infer the person's emotional state?"
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
        preset: A key of :data:`PRESETS`.
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
    if preset not in PRESETS:
        raise ValueError(f"unknown prompt preset {preset!r}; choose from {sorted(PRESETS)}")
    words = PRESETS[preset]
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
