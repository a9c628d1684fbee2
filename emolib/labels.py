"""Emotion labels out of whatever text they arrive in.

Three parsers share one result type:

* ``tolerant`` (default): ours; every shape models and annotators are known to write.
* ``mer2024``: the official MER2024-OV parser with its faults, for parity.
* ``mer2025``: the official MER2025/2026 parser with its faults, for the emotion wheels.

The tolerant rules, in the order they are tried:

1. JSON (a list, or an object with one list or one text in it).
2. Bracketed lists. Lists that follow one another directly count as one. Items are split on
   quotes, commas, semicolons, slashes and "and"; an apostrophe inside a word is kept. The
   last list with quoted labels wins, then the last with bare ones; lists of anything but
   labels (numbers, sentences, speech) are passed over.
3. Without a usable bracket: what follows a last heading such as ``Emotions:``; numbered or
   bulleted lines; bold spans; or the whole text if all of it is short comma-separated words.
4. Otherwise the text is ``unparsed`` and has no labels. A sentence is never a label.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["tolerant", "mer2024", "mer2025"]
Status = Literal["ok", "repaired", "empty", "unparsed"]


@dataclass(frozen=True, slots=True)
class ParsedLabels:
    """Labels found in one text.

    Attributes:
        labels: Labels in order of appearance, lower case. Tolerant mode: normalised and
            without duplicates. Official modes: as the official parser leaves them.
        status: "ok" well-formed list; "repaired" labels were found but the text was not a
            clean list of clean labels; "empty" nothing was said (``[]``, blank, NaN);
            "unparsed" there is text, but no list of labels in it.
        raw: The text as it came, unchanged ("" for None and NaN).
    """

    labels: tuple[str, ...]
    status: Status
    raw: str


# Longest label, in words and characters: in brackets the writer marked it as a label, outside
# we have to be stricter ("at a loss for words" is the longest we know in real lists).
_WORDS_BRACKETED, _WORDS_BARE = 5, 3
_CHARS, _CHARS_CJK = 40, 8
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_QUOTES = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»＂「」『』", '"'),
        **dict.fromkeys("‘’‚‛´＇", "'"),
        **dict.fromkeys("【〔［〖", "["),
        **dict.fromkeys("】〕］〗", "]"),
        **dict.fromkeys("，、；", ","),
        **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060", None),
        "：": ":",
        "‐": "-",
        "‑": "-",
        "–": "-",
        "—": "-",
    }
)
# Words that make a phrase a clause or a description of the scene rather than a label.
_CLAUSE_WORDS = """
    he she they i we his her their its my your our is are was were be been am has have had does
    did will would can could may might should this that these those there here who which what
    when where because since although while however video frame frames image images picture
    pictures person man woman boy girl character characters speaker individual people face
    expression expressions scene text audio format list label labels answer output note example
    i'm he's she's it's that's they're you're i've
"""
_CLAUSE = frozenset(_CLAUSE_WORDS.split())
_NOTHING_WORDS = "nan none null n/a na nil nothing empty unknown etc and so on 无 没有"
_NOTHING = frozenset(_NOTHING_WORDS.split()) | {"and so on", "not applicable", "not available"}
_INTENSITY = re.compile(
    r"^(?:(?:slightly|somewhat|mildly|moderately|fairly|quite|rather|pretty|very|really|so|too|"
    r"extremely|highly|deeply|intensely|strongly|incredibly|super|truly|genuinely|clearly|"
    r"obviously|possibly|probably|perhaps|maybe|seemingly|apparently|visibly|increasingly|"
    r"mild|slight|strong|intense|extreme|utter|"
    r"a (?:little bit|little|bit|hint of|touch of|trace of|sense of|feeling of|lot of|mix of)|"
    r"a (?:slight|mild|strong|deep) (?:sense|feeling|hint) of|"
    r"(?:an? )?(?:sense|feelings?|emotions?) of|kind of|sort of|feeling|feels|an?|the)\s+)+"
    r"(?=\S)"
)
_EDGE = " \t\r\n\"'`*_~#.,;:!?|/\\-+=<>(){}[]·•"


def _uniform(text: str) -> str:
    """Compatibility characters, quotes, brackets and commas in one form."""
    return unicodedata.normalize("NFKC", text.translate(_QUOTES)).translate(_QUOTES)


def normalise(label: str) -> str:
    """Give the form under which labels are compared; the same again when applied twice.

    Lower case, one kind of quote, no markdown, no edge punctuation, no remark in
    parentheses, no leading article, intensity or hedge ("slightly happy" -> "happy").
    A negation stays: "not happy" is another label than "happy".

    >>> normalise(" **A bit  Self-Deprecating** (mild).")
    'self-deprecating'
    """
    label = _uniform(label).lower().replace("_", " ").replace("\\", "")
    label = re.sub(r"\([^()]*\)", " ", label)
    label = re.sub(r"[*`#~]+", "", label)
    before = None
    while before != label:
        before = label
        label = " ".join(label.split()).strip(_EDGE)
        label = _INTENSITY.sub("", label)
    return label


def _split_words(text: str) -> list[str]:
    """Split on separators between labels: commas, slashes, "and", "or", line breaks."""
    return re.split(r"\s*(?:[,;/|&\n]|\band\b|\bor\b|\bas well as\b|和)\s*", text)


# A quoted item closes where a separator or the end follows, so that don't stays whole.
_QUOTED = re.compile(
    r"""(?:(?<=[\s,(:\[])|^)(["'])(?P<item>.*?)(?<!\\)\1(?=\s*(?:[,;|/&)\]]|$|and\b|or\b|["']))""",
    re.DOTALL,
)


def _split_items(text: str) -> tuple[list[str], bool]:
    """Split the inside of a bracket; also tell whether its items were quoted."""
    pieces: list[str] = []
    quoted, position = False, 0
    for match in _QUOTED.finditer(text):
        pieces += _split_words(text[position : match.start()])
        pieces += _split_words(match["item"])
        quoted, position = True, match.end()
    pieces += _split_words(text[position:])
    return [p for p in pieces if p.strip(_EDGE)], quoted


def _is_label(label: str, words: int) -> bool:
    """Tell whether a normalised piece of text can be an emotion label."""
    if not label or label in _NOTHING or not any(c.isalpha() for c in label):
        return False
    if re.search(r"[.!?;:{}<>=@。！？]", label):
        return False
    if _CJK.search(label):
        return len(label) <= _CHARS_CJK
    tokens = label.split()
    return len(label) <= _CHARS and len(tokens) <= words and not _CLAUSE.intersection(tokens)


def _pick(items: Iterable[str], words: int) -> tuple[tuple[str, ...], int]:
    """Normalise, keep what can be a label, once each; also count what could not."""
    kept: dict[str, None] = {}
    refused = 0
    for item in items:
        label = normalise(item)
        if _is_label(label, words):
            kept[label] = None
        elif label and label not in _NOTHING:
            refused += 1
    return tuple(kept), refused


def _heads(items: Iterable[str]) -> list[str]:
    """Drop explanations: "Happy: he smiles", "Happy - he smiles", "Happy (he smiles)"."""
    return [re.split(r"\s*:\s*|\s+-+\s+|\s*\(", i.strip("*_ \t"), maxsplit=1)[0] for i in items]


def _bracket_lists(text: str) -> list[tuple[str, bool]]:
    """Find bracketed lists, lists that touch joined, with a mark for an unclosed one."""
    found: list[tuple[str, bool]] = []
    end = -1
    for match in re.finditer(r"\[(?P<inside>[^\[\]]*)(?P<close>\]|$)(?!\()", text):
        between = text[end : match.start()] if end >= 0 else "x"
        inside = match["inside"]
        if re.fullmatch(r"[\s,;.\[\]]*(?:and|or)?[\s,;\[\]]*", between) and "\n\n" not in between:
            found[-1] = (found[-1][0] + ", " + inside, True)
        else:
            found.append((inside, not match["close"]))
        end = match.end()
    return found


def _from_brackets(text: str) -> tuple[tuple[str, ...], bool] | None:
    """Take the right bracketed list: (labels, clean), () when all are empty, None without one."""
    lists = _bracket_lists(text)
    best: tuple[tuple[str, ...], bool] | None = None
    best_quoted = False
    empty = False
    for inside, joined in lists:
        items, quoted = _split_items(inside)
        labels, refused = _pick(items, _WORDS_BRACKETED)
        empty = empty or not items
        if not labels or refused > len(labels) or (best_quoted and not quoted):
            continue
        clean = quoted and not joined and not refused and len(lists) == 1
        clean = clean and [i.lower() for i in items] == list(labels)
        # An item with a comma or "and" in it was split: more items than quoted strings.
        clean = clean and len(_QUOTED.findall(inside)) == len(items)
        best, best_quoted = (labels, clean), quoted
    if best is None and empty:
        return (), True
    return best


_HEADING = re.compile(
    r"(?:^|[\n.;!*]|\b(?:are|is))\s*[^\n.:]{0,60}?\b(?:labels?|emotions?|emotional states?|"
    r"keywords?|tags?|words?|answer|summary|summar\w+|output|result|情感|情绪|标签|输出|答案|翻译|输入)"
    r"[*_\s]*(?:\([^)]*\)\s*)?(?:is|are|as|as follows)?\s*[*_]*\s*[:=][*_]*[ \t]*",
    re.IGNORECASE,
)
_BULLET = re.compile(
    r"^[ \t]*(?:[-*+•·●▪]|\(?\d{1,2}\s*[.)、:])[ \t]*(?!\*?\s*$)(.+)$", re.MULTILINE
)


def _from_prose(text: str) -> tuple[str, ...]:
    """Find labels in text without a usable bracket; () when it has none."""
    if re.match(r"\s*1[.)]\s", text):
        text = re.sub(r"[ \t]+(?=\d{1,2}[.)]\s)", "\n", text)  # 1. happy 2. sad
    headings = list(_HEADING.finditer(text))
    tails = [text[h.end() :] for h in reversed(headings)] + [text]
    for tail, after_heading in zip(tails, [True] * len(headings) + [False], strict=True):
        bullets = [b.strip() for b in _BULLET.findall(tail)]
        # "Emotion: angry" is answered on its own line, whatever else is listed below it.
        if after_heading and tail.split("\n")[0].strip(_EDGE):
            bullets = []
            tail = tail.split("\n")[0]
        if bullets:
            pieces = [p for head in _heads(bullets) for p in _split_words(head)]
            labels, refused = _pick(pieces, _WORDS_BARE)
            if labels and refused * 3 <= len(labels):
                return labels
        line = tail.strip().split("\n\n")[0].strip()
        line = re.sub(r"^\(([^()]*)\)\.?$", r"\1", line)
        labels, refused = _pick(_heads(_split_words(line.rstrip(".。"))), _WORDS_BARE)
        if labels and not refused:
            return labels
    spans = [s for s in re.findall(r"\*\*([^*\n]+)\*\*", text) if not s.strip().endswith(":")]
    labels, refused = _pick((p for s in spans for p in _split_words(s)), _WORDS_BARE)
    return labels if not refused else ()


def _flatten(value: object) -> list[str] | None:
    """Strings of a decoded JSON list (nested at most once) or of an object's only list.

    Of objects in a list, such as ``{"label": "happy", "score": 0.9}``, the only text counts.
    """
    if isinstance(value, dict):
        found = [[v] if isinstance(v, str) else v for v in value.values()]
        lists = [v for v in value.values() if isinstance(v, list)] or found
        value = lists[0] if len(lists) == 1 else None
    if not isinstance(value, list):
        return None
    flat = [x for v in value for x in (v if isinstance(v, list) else [v])]
    for i, item in enumerate(flat):
        if isinstance(item, dict):
            texts = [x for x in item.values() if isinstance(x, str)]
            flat[i] = texts[0] if len(texts) == 1 else None
    return flat if all(isinstance(x, str) for x in flat) else None


_THINKING = re.compile(r"<think>.*?(?:</think>|$)|^.*?</think>", re.DOTALL | re.IGNORECASE)
_SEPARATORS = r"\[,;|/\n、，；"


def _without_half_word(text: str) -> str:
    """Drop what stands after the last separator, unless a bracket or its quote closes it."""
    last = re.search(rf"[{_SEPARATORS}][^{_SEPARATORS}\]】]*$", text)
    if last is None:
        return text
    item = _uniform(last.group()[1:]).strip()
    closed = len(item) > 1 and item[0] in "\"'" and item[-1] == item[0]
    return text if closed else text[: last.start() + 1]


def _tolerant(text: str, cut: bool) -> tuple[tuple[str, ...], Status]:
    text = _THINKING.sub(" ", text)
    text = _without_half_word(text) if cut else text
    text = _uniform(re.sub(r"```\w*", " ", text)).strip()
    if not text.strip(_EDGE) or text.strip(_EDGE).lower() in _NOTHING:
        return (), "empty"
    if text[0] in "[{":
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError):
            decoded = None
        if (items := _flatten(decoded)) is not None:
            return _from_items(items)
        if isinstance(decoded, dict):
            return (), "unparsed"
        if text[0] == "{":  # JSON that breaks off: its keys are no labels
            text = re.sub(r"""["'][\w -]*["']\s*:|^\{""", " ", text)
    bracketed = _from_brackets(text)
    if bracketed is not None and bracketed[0]:
        return bracketed[0], "ok" if bracketed[1] else "repaired"
    labels = _from_prose(re.sub(r"\[[^\[\]]*\]?", " ", text))
    if labels:
        return labels, "repaired"
    return (), "empty" if bracketed is not None else "unparsed"


def _from_items(items: list[str]) -> tuple[tuple[str, ...], Status]:
    """Labels of a real list; its items may still hold several labels or none."""
    pieces = [p for item in items for p in _split_words(_uniform(item)) if p.strip(_EDGE)]
    labels, refused = _pick(pieces, _WORDS_BRACKETED)
    if not labels:
        return (), "unparsed" if refused else "empty"
    clean = not refused and [i.lower() for i in items] == list(labels)
    return labels, "ok" if clean else "repaired"


def _mer2024(text: str) -> tuple[tuple[str, ...], Status]:
    """First bracket, split at every quote; nothing is stripped.

    Source: MERTools 89120b7, ``MER2024/toolkit/utils/functions.py:507`` (behaviour).
    """
    if not text:
        return (), "empty"
    _, bracket, rest = text.partition("[")
    if not bracket:
        return (), "unparsed"  # the official parser raises IndexError here
    pieces = re.split("['\"]", rest.partition("]")[0])
    labels = tuple(p.lower() for p in pieces if p.strip() not in ("", ","))
    return labels, "ok" if labels else "empty"


def _mer2025(text: str) -> tuple[tuple[str, ...], Status]:
    """One outer bracket off each end, split at quotes and commas, stripped.

    Source: MERTools 89120b7, ``MER2025_Track23/toolkit/utils/functions.py:609`` (behaviour).
    """
    text = text.strip()
    text = text[1:] if text.startswith("[") else text
    text = text[:-1] if text.endswith("]") else text
    labels = tuple(p.strip().lower() for p in re.split("['\",]", text) if p.strip())
    return labels, "ok" if labels else "empty"


def parse_labels(text: object, mode: Mode = "tolerant", *, cut: bool = False) -> ParsedLabels:
    r"""Read the emotion labels out of one answer or table cell.

    Args:
        text: A string, None, NaN, or a list, tuple, set or array of strings.
        mode: "tolerant", or an official parser ("mer2024", "mer2025").
        cut: The answer ended at its token limit (finish reason "length"): tolerant mode then
            leaves out the last word of a list that nothing closes, which may be half a word.

    Returns:
        See :class:`ParsedLabels`. Never raises on bad text: its status says what it was.

    Raises:
        ValueError: unknown mode.

    >>> parse_labels('He smiles. ["**Happy**", "a bit relieved"]').labels
    ('happy', 'relieved')
    >>> parse_labels("['it\'s fun']", mode="mer2024").labels
    ('it', 's fun')
    """
    if mode not in ("tolerant", "mer2024", "mer2025"):
        raise ValueError(f"unknown mode {mode!r}: choose tolerant, mer2024 or mer2025")
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ParsedLabels((), "empty", "")
    if hasattr(text, "tolist") and not isinstance(text, str):
        text = text.tolist()
    if isinstance(text, set | frozenset):
        text = sorted(text, key=str)
    if isinstance(text, list | tuple):
        items = [str(item) for item in text if item is not None]
        if mode == "tolerant":
            labels, status = _from_items(items)
        else:
            labels = tuple(item.lower() for item in items)
            status = "ok" if labels else "empty"
        return ParsedLabels(labels, status, repr(text))
    if not isinstance(text, str):
        return ParsedLabels((), "unparsed", repr(text))
    if mode == "tolerant":
        labels, status = _tolerant(text, cut)
    else:
        labels, status = (_mer2024 if mode == "mer2024" else _mer2025)(text)
    return ParsedLabels(labels, status, text)
