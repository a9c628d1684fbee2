r"""Emotion labels out of whatever text they arrive in.

Three parsers share one result type:

* ``tolerant`` (default): ours; every shape models and annotators are known to write.
* ``mer2024``: the official MER2024-OV parser with its faults, for parity.
* ``mer2025``: the official MER2025/2026 parser with its faults, for the emotion wheels.

The tolerant rules, in the order they are tried:

0. What wraps an answer is taken off: thinking, ``<answer>`` tags, ``\boxed{}``, box, role and
   end tokens, HTML entities, code fences.
1. JSON: a list, an object, or a list of objects. Of an object only values under a key such as
   ``emotion`` or ``labels`` count, or its one list or text where no key is of that kind.
2. Bracketed lists. Lists that follow one another directly count as one. Items are split on
   quotes, commas, semicolons, slashes and "and"; an apostrophe inside a word is kept. The
   last list with quoted labels wins, then the last with bare ones; lists of anything but
   labels (numbers, sentences, speech) are passed over.
3. Without a usable bracket: a column of a Markdown table; what follows a last heading such as
   ``Emotions:`` (headings of several aspects, such as ``Primary emotion:`` and ``Secondary
   emotion:``, together); numbered or bulleted lines; bold spans; or the whole text if all of it
   is short words between separators.
4. Otherwise the text is ``unparsed`` and has no labels. A sentence is never a label.
"""

from __future__ import annotations

import csv
import html
import json
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
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
        **dict.fromkeys("，、；،؛", ","),
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
_NOTHING_WORDS = "nan none null n/a na nil nothing unknown etc 无 没有"
_NOTHING = frozenset(_NOTHING_WORDS.split()) | {"and so on", "not applicable", "not available"}
# "empty" is not among them: in a list it is an emotion, and feelings wheels have it.
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
# Pictographs, with the marks that vary or join them; between two labels they part them.
_EMOJI = re.compile(
    r"[\u2190-\u21ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\ufe0f\u20e3]+(?:\u200d"
    r"[\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]+)*"
)
# A dot between two labels parts them; at the start of a line it is a bullet.
_DOT = re.compile(r"(?<=[^\s·•‧・])[ \t]*[·•‧・][ \t·•‧・]*")
# Circled and bracketed numbers begin an item each; NFKC would make bare digits of them.
_NUMERALS = re.compile(r"[\u2460-\u249b\u24f5-\u24fe\u2776-\u2793]|\d{1,2}\ufe0f?\u20e3")


def _uniform(text: str) -> str:
    """Compatibility characters, quotes, brackets, commas and emoji in one form."""
    text = _DOT.sub(",", _EMOJI.sub(",", _NUMERALS.sub("\n1. ", text)))
    return unicodedata.normalize("NFKC", text.translate(_QUOTES)).translate(_QUOTES)


def normalise(label: str) -> str:
    """Give the form under which labels are compared; the same again when applied twice.

    Lower case, one kind of quote, no markdown, no edge punctuation, no remark in
    parentheses, no leading article, intensity or hedge ("slightly happy" -> "happy").
    A negation stays: "not happy" is another label than "happy".

    >>> normalise(" **A bit  Self-Deprecating** (mild).")
    'self-deprecating'
    """
    label = _uniform(label.strip()).lower().replace("_", " ").replace("\\", "")
    label = re.sub(r"\([^()]*\)", " ", label)
    label = re.sub(r"[*`#~]+", "", label)
    before = None
    while before != label:
        before = label
        label = " ".join(label.split()).strip(_EDGE)
        label = _INTENSITY.sub("", label)
    return label


_BETWEEN = re.compile(r"\s*(?:[,;/|&\n]|\s-+\s|-+>|=+>|\s\+\s|\band\b|\bor\b|\bas well as\b)\s*")
_CHINESE_AND = re.compile("以及|和|与|及|或")
_NOT_GIVEN = re.compile(r"(?<![\w/])n/a(?![\w/])", re.IGNORECASE)


def _split_words(text: str) -> list[str]:
    """Split on separators: commas, slashes, dashes, arrows, "and", "or", 和, line breaks."""
    pieces = _BETWEEN.split(_NOT_GIVEN.sub("", text))
    return [part for piece in pieces for part in _split_chinese_and(piece)]


@lru_cache(maxsize=1)
def chinese_words() -> dict[str, str]:
    """The table of Chinese emotion words: word -> English label."""
    text = files("emolib").joinpath("data/emotion_words_zh.csv").read_text(encoding="utf-8")
    return {row["zh"]: row["en"] for row in csv.DictReader(text.split("\n"))}


@dataclass(frozen=True, slots=True)
class _Split:
    """A way to split a text: its first part, the rest, and what counts in choosing."""

    part: str
    rest: _Split | None = None
    known: int = 0  # parts that the table holds
    parts: int = 1
    short: bool = False  # a part is a single character that the table does not hold

    def lists(self) -> list[str]:
        found, at = [], self
        while at.rest is not None:
            found.append(at.part)
            at = at.rest
        return [*found, at.part]


def _split_chinese_and(piece: str) -> list[str]:
    """Split at 和 ("and") and its like where they are no letters of a word.

    平和, 温和, 和善, 心平气和 and 迫不及待 are words. A piece that is in the table of Chinese words
    is left whole, and so is one of which a part would have a single character, unless the table
    holds that. At 与, 及 and 或, which sentences hold, too, both sides must be in the table. Of
    several ways to split, the one with most parts in the table is taken.

    Cost: quadratic in the separators, of which an answer that repeats itself has hundreds: what
    stands behind a separator is split once, from the right.
    """
    separators = list(_CHINESE_AND.finditer(piece))
    if not separators:
        return [piece]
    table = chinese_words()
    behind: dict[int, _Split] = {}  # where a rest begins -> its split
    for start in (*(m.end() for m in reversed(separators)), 0):
        text = piece[start:].strip() if start else piece
        if text.strip(_EDGE) in table:
            behind[start] = _Split(text, known=1)
            continue
        whole = best = _Split(text, short=len(text.strip(_EDGE)) < 2)
        for match in separators:
            if match.start() < start:
                continue
            left, rest = piece[start : match.start()].strip(), behind[match.end()]
            if not left or not rest.part:
                continue
            known = left.strip(_EDGE) in table
            short = rest.short or (len(left.strip(_EDGE)) < 2 and not known)
            way = _Split(left, rest, known + rest.known, 1 + rest.parts, short)
            loose = match.group() in ("和", "以及")
            allowed = not short if loose else way.known == way.parts
            if allowed and (best is whole or way.known > best.known):
                best = way
        behind[start] = best
    return behind[0].lists()


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


_NOUNS = r"labels?|emotions?|emotional states?|feelings?|moods?|keywords?|tags?|words?"
_NOUNS_ZH = "情感状态|情绪状态|情感|情绪|心情|感受|标签|输出|答案|翻译|输入"
_HEADING = re.compile(
    r"(?:^|[\n.;!*]|\b(?:are|is))\s*[^\n.:]{0,60}?(?:\b(?:"
    rf"{_NOUNS}|answer|summary|summar\w+|output|result)|(?:{_NOUNS_ZH}))"
    r"[*_\s]*(?:\([^)]*\)\s*)?(?:is|are|as|as follows|是|为|如下)?\s*[*_]*\s*[:=][*_]*[ \t]*",
    re.IGNORECASE,
)
# One aspect of several: "Primary emotion: a", "Emotion of the voice: b", "次要情绪:c".
_ASPECT = re.compile(
    rf"^[ \t*_#>-]*(?P<head>(?:[\w'/-]+[ ]){{0,3}}(?:{_NOUNS})[^\n:=.]{{0,30}}|"
    rf"[^\n:=.]{{0,8}}(?:{_NOUNS_ZH})[^\n:=.]{{0,4}}?)[ \t]*[:=][*_]*[ \t]*(?P<tail>\S[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_CONCLUDING = re.compile(r"final|overall|answer|summar|conclu|最终|总体|综合", re.IGNORECASE)
_BRACKETED_HEADING = re.compile(
    rf"^[ \t]*\[\s*((?:[\w'-]+[ ]){{0,3}}(?:{_NOUNS}|answer|output)|"
    rf"[^\[\]\s]{{0,4}}(?:{_NOUNS_ZH}))\s*\][ \t]*[:=]?[ \t]*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_BULLET = re.compile(
    r"^[ \t]*(?:[-*+•·●▪]|\(?\d{1,2}\s*[.)、:])[ \t]*(?!\*?\s*$)(.+)$", re.MULTILINE
)
_NUMBER = re.compile(r"(?:^|(?<=[\s:,;]))[ \t]*\(?(\d{1,2})[.)、][ \t]*(?=[^\d\s.)])")
# Keys of objects and heads of columns under which labels stand.
_KEY = re.compile(
    rf"(?:^|[\s_-])(?:{_NOUNS}|emotional[_ -]states?|openset|answers?|predictions?|sentiments?)$|"
    rf"(?:{_NOUNS_ZH})$",
    re.IGNORECASE,
)


def _holds_labels(key: str) -> bool:
    """Tell whether labels stand under a key: "emotions", "primary_emotion", "audioEmotion"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key.strip(_EDGE))
    return _KEY.search(spaced) is not None


def _numbered_apart(text: str) -> str:
    """Give every item of a text that begins as "1. happy 2. sad" a line of its own."""
    return _NUMBER.sub(r"\n\1. ", text) if re.match(r"\s*\(?1[.)、]", text) else text


def _from_table(text: str) -> tuple[str, ...]:
    """Labels of a Markdown table, from the columns whose head says so."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.split("\n")
        if line.strip().startswith("|")
    ]
    if len(rows) < 3 or not all(re.fullmatch(r":?-+:?", cell) for cell in rows[1]):
        return ()
    columns = [i for i, head in enumerate(rows[0]) if _holds_labels(head)]
    cells = [row[i] for row in rows[2:] for i in columns if i < len(row)]
    return _pick((p for cell in cells for p in _split_words(cell)), _WORDS_BARE)[0]


def _from_aspects(text: str) -> tuple[str, ...]:
    """Labels under headings of several aspects together; () unless there are several.

    A heading that concludes ("Final answer:") stands for all before it, as does the last of
    several headings that are the same.
    """
    found = {m["head"].strip(" *_").lower(): m["tail"] for m in _ASPECT.finditer(text)}
    if len(found) < 2 or _CONCLUDING.search(list(found)[-1]):
        return ()
    labels: dict[str, None] = {}
    for tail in found.values():
        some, refused = _pick(_heads(_split_words(tail.rstrip(".。"))), _WORDS_BARE)
        if not refused:
            labels.update(dict.fromkeys(some))
    return tuple(labels)


def _under_unknown_heading(line: str) -> str:
    """What stands behind a heading we have no word for, as in "Mood board: happy, calm".

    Where the heading is an emotion itself, what follows explains it and the line is left whole.
    """
    match = re.fullmatch(r"[*_]*(?P<head>[^\n:,;]{1,40}?)[*_ ]*:[*_]*[ \t]*(?P<tail>\S.*)", line)
    emotions = chinese_words().values()
    if match is None or normalise(match["head"]) in emotions:
        return line
    labels, refused = _pick(_split_words(match["tail"].rstrip(".。")), _WORDS_BARE)
    several = len(labels) > 1 and not refused
    return match["tail"] if several or (not refused and set(labels) & set(emotions)) else line


def _from_prose(text: str) -> tuple[str, ...]:
    """Find labels in text without a usable bracket; () when it has none."""
    text = _numbered_apart(text)
    if labels := _from_table(text) or _from_aspects(text):
        return labels
    headings = list(_HEADING.finditer(text))
    tails = [text[h.end() :] for h in reversed(headings)] + [text]
    for tail, after_heading in zip(tails, [True] * len(headings) + [False], strict=True):
        tail = _numbered_apart(tail)
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
        line = line if after_heading else _under_unknown_heading(line)
        line = line.rstrip(".。")
        # "a - b" is a list where both are labels, else labels and what explains them.
        for part in dict.fromkeys((line, re.split(r"\s-+\s", line, maxsplit=1)[0])):
            labels, refused = _pick(_heads(_split_words(part)), _WORDS_BARE)
            if labels and not refused:
                return labels
    spans = [s for s in re.findall(r"\*\*([^*\n]+)\*\*", text) if not s.strip().endswith(":")]
    labels, refused = _pick((p for s in spans for p in _split_words(s)), _WORDS_BARE)
    return labels if not refused else ()


def _flatten(value: object) -> list[str] | None:
    """Texts of a decoded JSON value that are labels; None when it is of no shape we know.

    Of an object the values under keys such as "emotion", "labels" or "primary_emotion" count;
    without such a key its only list, or else its only text. Scores and reasons do not.
    """
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        found: list[str] = []
        for item in value:
            if (texts := _flatten(item)) is None:
                return None
            found += texts
        return found
    if not isinstance(value, dict):
        return None
    named = [item for key, item in value.items() if _holds_labels(str(key)) and item is not None]
    if named:
        return _flatten(named)
    lists: list[object] = [item for item in value.values() if isinstance(item, list)]
    only = lists or [item for item in value.values() if isinstance(item, str)]
    return _flatten(only[0]) if len(only) == 1 else None


def _from_broken_json(text: str) -> tuple[str, ...]:
    """Labels of JSON that breaks off, from under the keys that hold labels."""
    items: list[str] = []
    for match in re.finditer(
        r"""["'](?P<key>[\w -]*)["']\s*:\s*"""
        r"""(?:\[(?P<list>[^\[\]{}]*)|(?P<text>["'][^"'\n]*["']?))""",
        text,
    ):
        if _holds_labels(match["key"]):
            items += _split_items(match["list"] if match["list"] is not None else match["text"])[0]
    return _pick(items, _WORDS_BRACKETED)[0]


_THINKING = re.compile(r"<think>.*?(?:</think>|$)|^.*?</think>", re.DOTALL | re.IGNORECASE)
_ROLE = re.compile(r"^\s*(?:assistant|model|response|gpt|助手)[ \t]*(?::|：|\n)", re.IGNORECASE)
_END = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end|return|end_of_text)\|>|</s>|<eos>|<end_of_turn>"
)
_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|<(?:s|bos|pad|unk|start_of_turn)>|\[/?INST\]")
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|$)", re.DOTALL)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}?")


def _unwrapped(text: str) -> str:
    """Take off what wraps an answer: thinking, tags, boxes, role names, end tokens, entities."""
    text = html.unescape(_THINKING.sub(" ", text))
    text = next((part for part in _END.split(text) if part.strip()), "")
    for wrapper in (_ANSWER, _BOX):
        if inside := [part for part in wrapper.findall(text) if part.strip()]:
            text = inside[-1]
    text = _TOKEN.sub("\n", text)
    if boxed := _BOXED.findall(text):
        text = ", ".join(re.sub(r"\\\w+\{([^{}]*)\}", r"\1", part) for part in boxed)
    text = _ROLE.sub("", text)
    text = re.sub(r"\bnp\.str_\((['\"].*?['\"])\)", r"\1", text)
    # u'happy' of Python 2
    return re.sub(r"(?<=[\[(,])(\s*)[uUbB](?=(['\"])[^'\"]*\2\s*[,\])])", r"\1", text)


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
    text = _unwrapped(text)
    text = _without_half_word(text) if cut else text
    text = _uniform(re.sub(r"```\w*", " ", text)).strip()
    bare = text.strip(_EDGE).lower()
    if not bare or bare in _NOTHING or (bare == "empty" and text[0] not in "[{"):
        return (), "empty"
    text = _BRACKETED_HEADING.sub(r"\1: ", text)
    if text[0] in "[{":
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError):
            decoded = None
        if (items := _flatten(decoded)) is not None:
            return _from_items(items)
        if isinstance(decoded, dict):
            return (), "unparsed"
        if re.match(r"\[?\s*\{", text):  # JSON that breaks off: its keys are no labels
            if labels := _from_broken_json(text):
                return labels, "repaired"
            text = re.sub(r"""["'][\w -]*["']\s*:|^\[?\s*\{""", " ", text)
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
