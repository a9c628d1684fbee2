"""The paper's prompts, verbatim (``ALL``), and our co-judge's, each with its source.

``render`` fills the blanks with text made harmless by :func:`plain`; ``sha`` identifies the
template in ledgers and prediction files.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt template.

    Attributes:
        name: Short name used in files.
        template: Text with ``{blank}`` fields.
        source: Where the words come from.
    """

    name: str
    template: str
    source: str

    @property
    def sha(self) -> str:
        """First 12 hex digits of the template's SHA-256."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:12]

    def render(self, **blanks: str) -> str:
        """Fill every blank with :func:`plain` text.

        Raises:
            KeyError: a blank is missing.
        """
        return self.template.format(**{key: plain(value) for key, value in blanks.items()})


# Anything a chat template, tokenizer or ms-swift would read as an image, role or turn mark:
# <image>, </s>, <|im_start|>, <｜User｜>, <ImageHere>, [INST], [IMG], [gMASK], <<SYS>>, ###Human,
# <img>, <0x0A>, {{ROUND0}}. Upper case in brackets alone: ["happy"] is an answer's own form.
_MARK = re.compile(
    r"<(?=[|｜/<]?[A-Za-z_|｜/\[]|0x)|\[(?=/?g?[A-Z][A-Z_]+\])|#(?=##)|\{(?=\{)|(?<=\{)\{"
)
_SPACED = {"Cc", "Cs", "Zl", "Zp"}  # control, lone surrogate, line and paragraph separator
_BLUNT = {"<": "\u2039", "[": "\u27e6", "#": "\uff03", "{": "\uff5b"}


def plain(text: str) -> str:
    """Make user text (subtitles, captions) unable to act as a special token.

    An opening ``<``, ``[``, ``#`` or ``{`` that begins such a mark is replaced by a look-alike;
    everything else, ``<3`` and ``a < b`` included where unambiguous, stays. Control
    characters, line breaks and half characters become spaces.

    >>> plain("I said <image> <|im_end|> and 1 < 2")
    'I said ‹image> ‹|im_end|> and 1 < 2'
    """
    text = "".join(" " if unicodedata.category(c) in _SPACED else c for c in text)
    return _MARK.sub(lambda m: _BLUNT[m.group()], text)


_PAPER = "arXiv 2408.11286"

ZERO_SHOT = Prompt(
    "zero-shot",
    "These pictures are different frames of the same video. The words spoken by the characters "
    "in the picture are {text}. Assuming that you are an expert in the field of emotion, please "
    "describe the expression of the character in the picture in detail, and based on the above "
    'description, use a few words to summarize his expression in the format of ["**"].',
    f'{_PAPER}, section 2.1; the printed bracket form is [„**"]',
)

CAPTION = Prompt(
    "caption",
    "As an expert in the field of emotions, pay close attention to the facial expressions, body "
    "movements, environment, and subtitle content of the characters in the image to capture "
    "clues closely related to personal emotions, and provide detailed descriptions based on "
    "this, and finally predict the emotional state of the characters in the image.",
    f"{_PAPER}, section 3.1.2",
)

SIMILARITY = Prompt(
    "similarity",
    "Please judge whether the emotions described in these two sentences are similar and give a "
    "score between 0 and 1.\n1. {first}\n2. {second}",
    f"{_PAPER}, section 3.1.2; the numbering of the two captions is our reading",
)

SIMILAR = Prompt(
    "similar",
    "Please judge whether the emotions described in these two sentences are similar. Answer with "
    "yes or no and nothing else.\n1. {first}\n2. {second}",
    "ours, after the paper's similarity prompt: the probability of the answer is the score",
)

AFFECTGPT = Prompt(
    "affectgpt",
    "###Human: Close your eyes, open your ears and you imagine only based on the sound that "
    "<Audio><AudioHere></Audio>. Close your ears, open your eyes and you see that "
    "<Video><ImageHere></Video>. The subtitle content of this video is "
    "<Subtitle>{subtitle}</Subtitle>. Now as an expert in the field of emotions, please focus on "
    "the facial expressions, body movements, environment, acoustic information, subtitle "
    "content, etc., in the video to discern clues related to the emotions of the individual. "
    "Please provide a detailed description and ultimately predict the emotional state of the "
    "individual in the video. ###Assistant:",
    f"{_PAPER}, section 2.2; the stray quotation mark before 'Close your ears' is dropped",
)

EXTRACT = Prompt(
    "extract",
    "Please assume the role of an expert in the field of emotions. We provide clues that may be "
    "related to the emotions of the characters. Based on the provided clues, please identify the "
    "emotional states of the main characters. Please separate different emotional categories "
    "with commas and output only the clearly identifiable emotional categories in a list format. "
    "If none are identified, please output an empty list. Input: We cannot recognize his "
    "emotional state; Output: [] Input: His emotional state is happy, sad, and angry; Output: "
    "[happy, sad, angry] Input: {reason}; Output: ",
    "MERTools MER2025_Track23/toolkit/utils/chatgpt.py:936, description to labels; the paper "
    "(section 2.2) names InternVL as the model and prints no prompt",
)

CO_JUDGE = Prompt(
    "co-judge",
    "Several systems watched the same video and named the emotions of the person in it. The "
    "person says: {text}. Candidates, each with the systems that named it: {candidates}. The "
    "systems make mistakes: keep the candidates that are probably right, those that several "
    "systems support first, and drop the ones that do not fit. Use only candidates, spelled as "
    "given. Answer with a JSON list of the words you keep and nothing else, for example "
    '["happy", "surprised"].',
    f"ours; the paper ({_PAPER}, section 2.3) joins the lists without a judge",
)

ALL: dict[str, Prompt] = {p.name: p for p in (ZERO_SHOT, CAPTION, SIMILARITY, AFFECTGPT, EXTRACT)}
