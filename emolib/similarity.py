"""A judge's similarity of two captions: out of its words, or out of its token probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from emolib.engines.base import Token

# ASCII classes: in Chinese text a digit stands directly beside a character, which is a \w.
_DECIMAL = re.compile(r"(?<![A-Za-z0-9_.])(?:0?\.\d+|[01]\.\d+)(?![A-Za-z0-9_%]|\.\d)")
# A bare 0 or 1 may count people or number a line: it must be the whole answer or follow a word
# that announces a score.
_WHOLE = re.compile(
    r"^\W*([01])\W*$"
    r"|(?:score|similarity|rating|rate|give|say|is|be|分数|相似度|评分|为|是)[\s*:：=\"'(]*"
    r"(?:of\s+|a\s+)?([01])(?=\s*(?:$|\n|[^\w\s%/.]|\.(?!\d)))",
    re.IGNORECASE,
)
_OTHER = re.compile(r"(?<![A-Za-z0-9_.])\d+(?:\.\d+)?\s*(?:%|/\s*\d+)|(?<![\d.])-\.?\d")
# "between 0 and 1", "0-1" and "out of 1" repeat the question; "1." and "2." at a line's start
# number the captions.
_ECHO = re.compile(
    r"\b0(?:\.0)?\s*(?:-|–|to|and)\s*1(?:\.0)?\b(?!\.\d)|out of 1(?:\.0)?\b(?!\.\d)|^\s*\d\.\s",
    re.IGNORECASE | re.MULTILINE,
)


def parse_similarity(answer: str) -> float | None:
    """Read the judge's score strictly: exactly one number in [0, 1], or nothing.

    Percentages, fractions such as 8/10, numbers above 1, a 0 or 1 that nothing announces as a
    score, and answers with two different scores give None: they are counted as unparsed
    rather than guessed.

    >>> parse_similarity("The similarity score is 0.85.")
    0.85
    >>> parse_similarity("between 0 and 1, I would say 1")
    1.0
    >>> parse_similarity("0.2 for the first, 0.9 for the second") is None
    True
    """
    found = _find(answer)
    return found[0] if found else None


def _find(answer: str) -> tuple[float, str, int] | None:
    """The score, how it is written, and how often the same digits stand before it."""
    text = _ECHO.sub(lambda echo: " " * len(echo.group()), answer)
    if _OTHER.search(text):
        return None
    spots = [(m.start(), m.group()) for m in _DECIMAL.finditer(text)]
    for match in _WHOLE.finditer(text):
        group = 1 if match[1] else 2
        spots.append((match.start(group), match[group]))
    values = {float(digits) for _, digits in spots if 0 <= float(digits) <= 1}
    if len(values) != 1:
        return None
    start, digits = min(spot for spot in spots if float(spot[1]) in values)
    return values.pop(), digits, answer[:start].count(digits)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A similarity read off token probabilities.

    Attributes:
        value: In [0, 1].
        mass: Share of the probability at the deciding token that fell on readable answers.
    """

    value: float
    mass: float


def expected_similarity(answer: str, tokens: Sequence[Token]) -> Weighed | None:
    """The mean of the numbers the judge might have written, each with its probability.

    The answer must hold exactly one score, as for :func:`parse_similarity`. At each token of
    that number every alternative the engine told makes another number: "0.8" and then "5" or
    "9" makes 0.85 or 0.89; an alternative that ends the number there leaves 0.8. Only the
    written number was continued by the model, so an alternative branch counts as the digits it
    shows; "0" or "0." shows none and counts as 0.5, the middle of what it may become.
    Alternatives that make no number in [0, 1] are left out and the rest is scaled to 1.

    Args:
        answer: The judge's words.
        tokens: The same words as tokens with alternatives.

    Returns:
        None without exactly one score, or when it is not found among the tokens.

    >>> sure = [Token("0.", -0.0), Token("9", -0.69, (("9", -0.69), ("7", -0.69)))]
    >>> round(expected_similarity("0.9", sure).value, 2)
    0.8
    """
    found = _find(answer)
    if found is None:
        return None
    value, digits, before = found
    joined = "".join(token.text for token in tokens)
    start = -1
    for _ in range(before + 1):
        start = joined.find(digits, start + 1)
        if start < 0:
            return None
    steps: list[tuple[Token, str]] = []  # tokens of the number, with the number before each
    at = 0
    for token in tokens:
        if at < start + len(digits) and at + len(token.text) > start:
            steps.append((token, joined[start : max(at, start)]))
        at += len(token.text)
    mass = 1.0
    for token, shown in reversed(steps):
        own = math.exp(token.logprob)
        total, mass = own * value, own
        for text, logprob in token.top:
            if text != token.text and (other := _branch(shown, text)) is not None:
                total += math.exp(logprob) * other
                mass += math.exp(logprob)
        if mass <= 0:
            return None
        value = total / mass
    return Weighed(min(max(value, 0.0), 1.0), min(mass, 1.0))


def _branch(shown: str, text: str) -> float | None:
    """The number that ``text`` makes after the digits shown, or None."""
    written = shown + (text if shown else text.lstrip(" \t\r\n*_:：=\"'([▁Ġ"))
    number = re.match(r"[0-9]*\.?[0-9]*", written)
    digits = number.group() if number else ""
    ended = len(digits) < len(written) or not text
    if digits in ("0", "0.", "."):
        return (0.0 if digits == "0" else None) if ended else 0.5
    if not digits:
        return None
    value = float(digits)
    return value if value <= 1 else None


_YES = {"yes", "是", "similar"}
_NO = {"no", "否", "不"}


def yes_no_similarity(tokens: Sequence[Token]) -> Weighed | None:
    """The probability of "yes" beside "no" at the first token that says either.

    Args:
        tokens: The answer's tokens with alternatives.

    Returns:
        None when less than half of the probability is on the two words: the judge wanted to say
        something else.
    """
    for token in tokens:
        options = dict(token.top) | {token.text: token.logprob}
        words = {text: text.strip(" \t\r\n*_\"'.,。▁Ġ").lower() for text in options}
        if not words[token.text]:
            continue  # a mark or a line break before the word
        yes = sum(math.exp(options[text]) for text, word in words.items() if word in _YES)
        no = sum(math.exp(options[text]) for text, word in words.items() if word in _NO)
        if yes + no < 0.5:
            return None
        return Weighed(yes / (yes + no), min(yes + no, 1.0))
    return None
