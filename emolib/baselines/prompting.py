"""What a baseline is asked, given what of a clip it sees."""

from __future__ import annotations

from collections.abc import Collection

from emolib import prompts
from emolib.prompts import Prompt

#: Fixed prompts a recipe may name besides "describe".
NAMED = {"zero-shot": prompts.ZERO_SHOT, "caption": prompts.CAPTION}

# The clues the paper's question to AffectGPT lists, by the input they are found in.
_CLUES = {
    "frames": "facial expressions, body movements, environment",
    "audio": "acoustic information",
    "words": "subtitle content",
}
_FRAMES = "These pictures are different frames of the same video. "
_SOUND = {True: "You also hear the sound of the video. ", False: "This is the sound of a video. "}
_WORDS = "The subtitle content of this video is {text}. "
_QUESTION = (
    "Now as an expert in the field of emotions, please focus on the %s, etc., in the %s to "
    "discern clues related to the emotions of the individual. Please provide a detailed "
    "description and ultimately predict the emotional state of the individual in the video."
)


def question(prompt: str, seen: Collection[str]) -> Prompt:
    """The prompt of a recipe for a clip of which ``seen`` is there.

    Args:
        prompt: "describe", a key of :data:`NAMED`, or a text in which ``{text}`` stands for what
            is said.
        seen: Any of "frames", "audio" and "words".

    Returns:
        A template with at most the blank ``text``. "describe" speaks of nothing that is not
        there; the other prompts are fixed, and unknown words are "unknown" in them.
    """
    if prompt in NAMED:
        return NAMED[prompt]
    if prompt != "describe":
        # Braces of an own text are braces, but for the one blank.
        text = prompt.replace("{", "{{").replace("}", "}}").replace("{{text}}", "{text}")
        return Prompt("own", text, "the recipe")
    text = _FRAMES if "frames" in seen else ""
    text += _SOUND["frames" in seen] if "audio" in seen else ""
    text += _WORDS if "words" in seen else ""
    media = "video" if "frames" in seen else "sound" if "audio" in seen else "subtitle"
    clues = ", ".join(clue for kind, clue in _CLUES.items() if kind in seen)
    source = "the question of arXiv 2408.11286, section 2.2, with the clues that are there"
    return Prompt("describe", text + _QUESTION % (clues, media), source)
