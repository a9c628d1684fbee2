"""What a speech model said, what is kept of it, and why the rest is not."""

from __future__ import annotations

import contextlib
import csv
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

from emolib.errors import MissingDependencyError
from emolib.params.media import AsrParams

PHRASES = Path(__file__).with_name("phrases.csv")
# A phrase people also say is dropped when the model itself half believes in silence.
DOUBT = 0.3
When = Literal["always", "alone", "doubt"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of speech as the model gave it.

    Attributes:
        start_s: Seconds from the beginning of the sound.
        end_s: Its end.
        text: The words.
        no_speech_prob: What the model gives silence at the window's start, 0 to 1.
        avg_logprob: Mean log probability a token; about -0.2 is sure, -1 is guessing.
        compression_ratio: Bytes of the words over their compressed size; loops are above 2.4.
    """

    start_s: float
    end_s: float
    text: str
    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of one clip.

    Attributes:
        text: What was said, "" when nothing was.
        language: Two letters, given or found; "" when nothing was asked.
        kept: The segments ``text`` is made of.
        dropped: Segments left out, with the reason: "silence", "phrase", "prompt" or "loop".
        silent: True when there was no sound to ask the model about.
    """

    text: str
    language: str = ""
    kept: tuple[Segment, ...] = ()
    dropped: tuple[tuple[Segment, str], ...] = ()
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase speech models invent.

    Attributes:
        text: Simplified, without blanks and marks, lower case.
        when: Drop a segment that holds it ("always"), is it ("alone"), or is it while the
            model gives silence at least :data:`DOUBT` ("doubt").
    """

    text: str
    when: When


def make_transcript(segments: Sequence[Segment], language: str, params: AsrParams) -> Transcript:
    """Keep what was said, drop what was not, and write it the way the parameters ask for.

    Raises:
        MissingDependencyError: simplified characters are wanted and OpenCC is not installed.
    """
    kept, dropped = [], []
    for segment in segments:
        reason = _reason(segment, params)
        if reason:
            dropped.append((segment, reason))
        elif segment.text.strip():
            kept.append(segment)
    text = _joined(segment.text.strip() for segment in kept)
    if params.simplified and language in ("zh", "yue") and text:
        text = simplify(text)
    return Transcript(text, language, tuple(kept), tuple(dropped))


def _reason(segment: Segment, params: AsrParams) -> str:
    """Why a segment is dropped, "" when it stays."""
    if segment.no_speech_prob > params.no_speech_prob and segment.avg_logprob < params.min_logprob:
        return "silence"
    if segment.compression_ratio > params.max_compression:
        return "loop"
    said = squash(segment.text)
    if params.prompt and said == squash(params.prompt):
        return "prompt"
    if params.phrases and any(_is_phrase(phrase, said, segment) for phrase in known_phrases()):
        return "phrase"
    return ""


def _is_phrase(phrase: Phrase, said: str, segment: Segment) -> bool:
    if phrase.when == "always":
        return phrase.text in said
    # "谢谢观看谢谢观看" is the phrase too.
    same = bool(said) and said == phrase.text * (len(said) // len(phrase.text))
    return same and (phrase.when == "alone" or segment.no_speech_prob >= DOUBT)


def squash(text: str) -> str:
    """Bring a text to the form phrases are compared in.

    Lower case, one width, simplified where OpenCC is there, letters and digits only.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    # The list has simplified forms; without OpenCC traditional ones are missed.
    with contextlib.suppress(MissingDependencyError):
        plain = simplify(plain)
    return "".join(c for c in plain if c.isalnum())


@lru_cache(maxsize=1)
def known_phrases() -> tuple[Phrase, ...]:
    """The phrases of ``phrases.csv``."""
    with PHRASES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Phrase(squash(row["phrase"]), cast(When, row["when"])) for row in rows)


def simplify(text: str) -> str:
    """Write Chinese in simplified characters (OpenCC, ``tw2s``); other text stays.

    ``tw2s`` also mends what speech models write the Taiwanese way ("看著", "著急"), which
    ``t2s`` leaves; no word is exchanged for another.

    Raises:
        MissingDependencyError: OpenCC is not installed.
    """
    if text.isascii():
        return text
    return str(_converter().convert(text))


@lru_cache(maxsize=1)
def _converter() -> Any:
    try:
        import opencc
    except ImportError:
        raise MissingDependencyError(
            "simplified characters need OpenCC: pip install -e '.[train]' -c constraints.txt, "
            "or set asr.simplified: false"
        ) from None
    return opencc.OpenCC("tw2s")


def _joined(texts: Iterable[str]) -> str:
    """Join segments: Chinese and Japanese without blanks, everything else with one."""
    whole = ""
    for text in texts:
        glue = "" if not whole or (_wide(whole[-1]) and _wide(text[0])) else " "
        whole += glue + text
    return whole


def _wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in ("W", "F")
