"""Emotion labels out of a free description, Chinese or English, by table and by rule.

No model is asked, so the result is the same everywhere and takes about a millisecond.

:func:`emotion_words` gives every emotion word of a text that is neither negated nor quoted.
English words are those of :mod:`emolib.scoring.lexicon`; Chinese words are in
``data/emotion_words_zh.csv``, each with the English word it is given as.

:func:`extract_labels` reads what a description states about the emotional state of the main
character. A description by a multimodal LLM names three times as many emotions as it concludes
with: it describes the room, the voice and other people, weighs possibilities, and concludes, often
twice (before and after a subtitle was added). So each word of an English description is weighed
by the statement that it stands in, and the labels are the words of the strongest statements.
Chinese descriptions end in their conclusion: its words are the labels.

``docs/scoring.md``, "Label reading", compares the result with a language model's reading of the
same descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

from emolib.labels import ParsedLabels, chinese_words, normalise, parse_labels
from emolib.scoring import lexicon

Language = Literal["auto", "zh", "en"]

_CHINESE, _LATIN = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[A-Za-z]+")
_SENTENCE = re.compile(r"(?<=[^\d\s][.!?])[\"'”’)]*\s+|(?<=[。！？])[\"'”’」』）)]*\s*|\n+")
# A quotation is what somebody says, not how they feel. One that is never closed, or that runs
# over a statement of the description itself, is no quotation.
_QUOTED = re.compile(
    r"“[^”]{0,300}”|「[^」]{0,300}」|『[^』]{0,300}』|\"[^\"]{0,300}\"|(?<!\w)'[^'\n]{0,200}'(?!\w)|‘[^’]{0,200}’"
)
_CALLED = re.compile(r"\b(?:as|be|being|is|are|was|or|and|feels?|feeling)\s*$", re.IGNORECASE)

# An answer that is nothing but a list of states may name any (AffectGPT of 2025 answers like this).
_ONLY_STATES = re.compile(
    r"\s*the [a-z]+['’]s emotional states? (?:is|are) (?:one of )?(?P<labels>[^.!?\n]+)\.?\s*",
    re.IGNORECASE,
)

# Weight of a word that is stated to be the emotional state, and of one that is only to be seen.
_STATED, _SHOWN = 6, 3

# ---- English words --------------------------------------------------------------------------

# Lexicon entries that are no label in running text: they frame one ("a strong emotion") or mean
# something else nearly always ("the video is still playing").
_FRAMING_WORDS = """
    able active activity advice alone analysis answer ask asking bit blue body bright certain
    challenging clear close cold complete considering cool dark decide decision deep direct
    discussion distance down emotion emotional emotions energy expecting explain explaining
    explanation expression fast feel firm force formal forward free good great guess guidance hard
    heart heat heavy helpful high important intense intensity leisure light like listen long look
    looking loud low manner mouth move moving natural normal order part play playing power
    powerful pressing professional question questions quick rapid reaction recognition request
    requesting response say sense sharp short silence slow speech state steady still strength
    strong sudden suggest suggested suggesting suggestion support supporting sweet talk tell tone
    touch unclear unexpected use used voice volume wait waiting want weight whole wide
    wonder work
"""
_FRAMING = frozenset(_FRAMING_WORDS.split())
# Entries that are about the picture, the talk or the writer unless a feeling is stated ("he looks
# involved in the talk", "he feels involved"); "content" is one wherever it is said of somebody.
_SCENE_WORDS = """
    action agree alert analyzing approval attention authority avoid avoiding aware believe
    believing casual command commanding concentrating conflict contemplate contemplating continue
    desire driven dynamic emphasis emphasise energetic engage engaged engagement focus focused
    focusing genuine hope inquire inquiry insight interest involved kind listening lively
    monotonous observe observing open opinion patient pressure quiet recall recalling rely rise
    rising silent soft stress tension think thinking thought thoughts touched turn unchanged
    understanding upright upward urge wake warn weak wild will
"""
_SCENE = {**dict.fromkeys(_SCENE_WORDS.split(), _SHOWN), "content": 0}
# They tell the sign of a feeling, not which one: labels only where nothing else is named.
_GENERIC = re.compile(r"(?:positiv|negativ)(?:e|ity)\b.*|mixed|(?:good|mixed) feelings?")
# What somebody does, as the feeling it shows: "he smiles" names no feeling, and often a
# description says nothing else.
_BEHAVIOR_WORDS = {
    "happy": "smile smiles smiled smiling grin grins grinning laugh laughs laughed laughing",
    "sad": "cry cries cried crying sob sobs sobbing weep weeps weeping tears tearful",
}
_BEHAVIOR = {word: label for label, words in _BEHAVIOR_WORDS.items() for word in words.split()}
_TOKEN = re.compile(r"[a-z]+(?:['’-][a-z]+)*")
_WORDS_MAX = 6  # of the longest entry of the lexicon

# ---- English statements ---------------------------------------------------------------------

_FEELING = (
    r"(?:emotional (?:states?|experiences?|condition|tone|responses?|reactions?)|emotions?|moods?|"
    r"feelings?|(?:states?|frame) of mind|mental states?)"
)
_WHO = (
    r"(?:he|she|they|person|man|men|woman|women|girl|boy|lady|ladies|individuals?|characters?|"
    r"speakers?|people|couple|child|guy|protagonist|mother|father|doctor|male|female|both|face)"
)
# What opens a statement, and how much the words after it weigh, up to the end of the statement.
_OPENINGS: tuple[tuple[int, re.Pattern[str]], ...] = (
    # "the woman's emotional state appears to be", "a range of emotions, including"; a point of a
    # list of reasons ("2. Happiness and fun: ...")
    (
        _STATED,
        re.compile(
            rf"\b{_FEELING}\b[^.;:]{{0,90}}?\b(?:is|are|was|were|be|being|seems?|appears?|remains?|"
            r"as|includ(?:es?|ing)|involv(?:es?|ing)|rang(?:es?|ing) from|such as|like|of|"
            r"related to|associated with)\b(?: to be\b)?|"
            r"\bemotional states?\s*:|^\s*(?:\d+[.)]|-)\s*(?=[^:]{3,60}:)"
        ),
    ),
    # a feeling is said to be had, or what is named is called one: nearly as strong, but used
    # of single signs as well ("he may feel tired")
    (
        5,
        re.compile(
            r"\b(?:feel(?:s|ing)?|felt|experienc(?:e|es|ing|ed))\b|"
            r"\b(?:in|into|have|has|having|with|convey\w*|suggest\w*|indicat\w*) an? "
            r"(?=(?:[\w-]{1,20},? ){1,6}?(?:state|mood|mindset|spirits?|emotions?)\b)|"
            r"\b(?:in|into) (?:a )?(?:state|mood)s? of\b|"
            r"\b(?:sense|feeling|signs?|hints?|touch|levels?|degree|moment|mix|mixture|"
            r"combination|range|air|look|expressions?|lot) of\b"
        ),
    ),
    # looks and behaviour: what a feeling is concluded from rather than the conclusion
    (
        _SHOWN,
        re.compile(
            r"(?<!\bit )\b(?:appear(?:s|ed|ing)?|seem(?:s|ed|ing)?|look(?:s|ed)?|sound(?:s|ed)?|"
            r"becom(?:es?|ing)|gets?|getting|described? as)\b(?: to be| being)?(?: like)?|"
            rf"\b{_WHO}\b[^.,;:]{{0,40}}?\b(?:is|are|was|were|be)\b|"
            r"\b(?:express|convey|show|display|reflect|indicat|suggest|reveal)(?:e?s|ing|ed)?\b"
        ),
    ),
)
# A statement ends where its object, its reason or its circumstances begin.
_CLOSING = re.compile(
    r"[;:]|\b(?:about|because|due to|as (?:he|she|they|the|it|if|evidenced|indicated|seen|shown|"
    r"well as (?:the|his|her|their))|when|while|that|which|who|whose|by|"
    r"in (?:the|his|her|their|this|response|front)|regarding|towards?|from|"
    r"with(?! an? (?:sense|hint|touch|mix|feeling))|at(?! ease)|for|during|after|before|although|"
    r"since|where|on|his|her|their|through|caused|to(?! be\b)|and (?:is|are|was)|"
    r"(?:engaged|involved|focused) in)\b"
)
# Where one thing is said of one thing: negation and doubt reach no further.
_CLAUSES = re.compile(
    r"[.;!?。；：！？\n]+|(?:,\s*|\s+)(?=(?:but(?! also)|however|although|though|while|whereas|yet|"
    r"nonetheless|nevertheless)\b)|,\s*(?=(?:and\s+)?(?:he|she|it|they|i|we|his|her|their|the|this|"
    r"that|which|who|there|so|indicating|suggesting|showing|implying|expressing|displaying|"
    r"reflecting|conveying|based|considering|as (?:he|she|it|they|the|if|evidenced|indicated|seen|"
    r"shown|well as (?:his|her|their|the)))\b)|"
    r"，|,(?=[\u4e00-\u9fff])|(?=但|然而|而是|不过|反而|却)"
)
_NOT_EN = re.compile(
    r"\b(?:not(?!\s+only\b)|no(?!\s+doubt\b)|never|without|neither|nor|lack(?:s|ing)?|hardly|"
    r"rather than|instead of|unable|cannot|unclear|whether|if|"
    r"(?:difficult|hard|challenging|impossible) to (?:[a-z]+ly )?(?:tell|say|determine|"
    r"predict|infer|identify|discern|pinpoint|know|interpret|ascertain)|absence of|"
    r"free (?:of|from))\b|n['’]t\b"
)
# The writer of the description is not in the picture: "I am happy to help", "I am uncertain".
# What cannot be determined is no determination.
_WRITER = re.compile(
    r"\bi(?:['’]m| am|['’]d be| would be)\b[^,.;]*?(?=\bthat\b|\bbut\b|[,.;]|$)|"
    r"\b(?:can|cannot|can['’]t|could not)(?: not)?(?: only)? be (?:[a-z]+ly )?determined\b"
)
_CONCLUDES = re.compile(
    r"\b(?:overall|in (?:summary|conclusion|short|general)|to sum up|therefore|thus|hence|"
    r"based on|conclu\w+|infer\w*|predict\w*|taken together|considering|taking into account|"
    r"ultimately|it (?:is|seems) (?:likely|possible|evident|clear|reasonable))\b"
)
_REASONS = re.compile(r"\b(?:reasoning|reasons|basis)\b.{0,40}?(?:as follows|:)|^\s*first(?:ly)?,")
_REASONS_END = re.compile(
    r"\b(?:in (?:conclusion|summary)|overall|taking|based on the above|therefore|"
    r"it can be (?:concluded|inferred))\b"
)
_SUBTITLE = re.compile(
    r"\bsubtitles?\b[^.]{0,40}?\b(?:content|says?|states?|reads?|mentions?|asks?|is)\b"
)
_ELSEWHERE = re.compile(
    r"\b(?:the other|another|atmosphere|environment|setting|scene|background|room|conversation|"
    r"situation)\b"
)
_CONCLUDED, _OF_REASON, _OF_OTHERS, _SUPERSEDED = 2, -1, -2, -3
_LEVELS = (_STATED, _SHOWN, 0, _OF_REASON + _OF_OTHERS + _SUPERSEDED)

# ---- Chinese --------------------------------------------------------------------------------

_CONCLUDES_ZH = re.compile(
    r"因此|所以|综上|总之|总的来说|总体|整体|综合|结合|推测|推断|可以看出|表明|说明|暗示|反映|"
    r"情感|情绪|心情|感到|感觉"
)
# 不 and 没 inside a longer word are no negation of what follows.
_NOT_ZH = re.compile(
    r"没有|没能|没|并非|并不|绝非|毫无|缺乏|未能|未|无法|难以|很难|不是(?!一)|是否|"
    r"不(?!仅|但|断|禁|由|同|得|时|止|停|只|单|光|知|自觉|经意|管|论|久|少|可|如|过|再|住|了|出)|"
    r"无(?=明显|任何|一丝|丝毫)"
)


@lru_cache(maxsize=1)
def _zh_pattern() -> re.Pattern[str]:
    words = sorted(chinese_words(), key=lambda w: (-len(w), w))
    return re.compile("|".join(map(re.escape, words)))


@lru_cache(maxsize=1)
def _english_words() -> frozenset[str]:
    listed = {w for w in lexicon.table() if w.isascii() and len(w) > 2} - _FRAMING
    return frozenset(listed | set(_BEHAVIOR))


def extract_labels(text: str | None, language: Language = "auto") -> ParsedLabels:
    """Read what a description states about the emotional state of its main character.

    Args:
        text: Running text in Chinese or English; None counts as empty.
        language: "auto" takes Chinese when there are more Chinese characters than Latin words.

    Returns:
        English labels in order of first appearance, each once, with status "ok", "empty" (no
        text) or "unparsed" (no emotion word that is not negated). Cost: linear in the text.

    Raises:
        ValueError: unknown language.

    >>> text = "She smiles, but her voice is tense. Overall, she feels worried and a little sad."
    >>> extract_labels(text).labels
    ('worried', 'sad')
    >>> extract_labels("他没有生气，推测他的情感状态为高兴、惊讶。").labels
    ('happy', 'surprised')
    """
    if _language(text, language) == "zh":
        return _parsed(_read_chinese(text or ""), text)
    if only := _ONLY_STATES.fullmatch(text or ""):
        listed = parse_labels(f"[{only['labels']}]")
        if listed.labels:
            return _parsed(listed.labels, text)
    return _parsed(_read_english(text or ""), text)


def emotion_words(text: str | None, language: Language = "auto") -> ParsedLabels:
    """Find every emotion word of a text that is neither negated nor quoted.

    Whoever feels it, and whether it is concluded or only mentioned: what two texts have in
    common, or a text that is a conclusion already. Arguments, result and cost are those of
    :func:`extract_labels`.

    >>> emotion_words("He is not angry, but she looks worried and a little sad.").labels
    ('worried', 'sad')
    """
    language = _language(text, language)
    found: dict[str, None] = {}
    for clause in _CLAUSES.split(_without_quotations(text or "")):
        for word in _clause_words(clause or "", language):
            found.setdefault(normalise(word))
    return _parsed(tuple(found), text)


def _parsed(labels: tuple[str, ...], text: str | None) -> ParsedLabels:
    raw = text or ""
    return ParsedLabels(labels, "ok" if labels else "unparsed" if raw.strip() else "empty", raw)


def _language(text: str | None, language: Language) -> Language:
    if language not in ("auto", "zh", "en"):
        raise ValueError(f"unknown language {language!r}: choose auto, zh or en")
    if language != "auto":
        return language
    chinese, latin = len(_CHINESE.findall(text or "")), len(_LATIN.findall(text or ""))
    return "zh" if chinese > latin else "en"


def _without_quotations(text: str) -> str:
    """The text without quoted speech; single spaces, so that no pattern backtracks."""
    text = _QUOTED.sub(_unless_stated, text)
    return re.sub(r"\s+", lambda found: "\n" if "\n" in found.group() else " ", text)


def _unless_stated(found: re.Match[str]) -> str:
    """Blank a quotation, unless it is a word that is used, not said ("described as 'sad'")."""
    inside = found.group()[1:-1]
    called = _CALLED.search(found.string, max(0, found.start() - 9), found.start())
    used = called and len(inside.split()) <= 4 and not re.search(r"[.!?]\s", inside)
    return f" {inside} " if used or "emotional state" in inside.lower() else " "


def _clause_words(clause: str, language: Language) -> list[str]:
    """Emotion words of one clause that stand before any negation, or without one."""
    if language == "en":
        return [
            word
            for _, word in _lexicon_words(clause.lower())
            if word not in _SCENE and word in lexicon.table()
        ]
    matches = list(_zh_pattern().finditer(clause))
    # Words are blanked first: the 不 of 不满 negates nothing.
    masked = list(clause)
    for match in matches:
        masked[match.start() : match.end()] = "#" * (match.end() - match.start())
    negated = _NOT_ZH.search("".join(masked))
    limit = negated.start() if negated else len(clause)
    return [chinese_words()[match.group()] for match in matches if match.start() < limit]


def _lexicon_words(clause: str) -> Iterator[tuple[int, str]]:
    """Listed words of a lower-case clause with their positions, the longest first."""
    tokens = list(_TOKEN.finditer(clause))
    known = _english_words()
    spans: list[tuple[int, int]] = []
    i = 0
    while i < len(tokens):
        for n in range(min(_WORDS_MAX, len(tokens) - i), 0, -1):
            start, end = tokens[i].start(), tokens[i + n - 1].end()
            if clause[start:end].replace("’", "'") in known:
                spans.append((start, end))
                i += n - 1
                break
        i += 1
    # Words are blanked first: "can't wait" negates nothing.
    masked = list(clause)
    for start, end in spans:
        masked[start:end] = "#" * (end - start)
    negated = _NOT_EN.search("".join(masked))
    limit = negated.start() if negated else len(clause)
    for start, end in spans:
        if start < limit:
            yield start, clause[start:end].replace("’", "'")


def _read_chinese(text: str) -> tuple[str, ...]:
    """Words of the last sentence, else of the last one that concludes, else of the whole text."""
    sentences = [s for s in _SENTENCE.split(text) if s and s.strip()]
    concluding = [s for s in sentences if _CONCLUDES_ZH.search(s)]
    for chosen in (sentences[-1:], concluding[-1:], sentences):
        if labels := emotion_words(" ".join(chosen), "zh").labels:
            return labels
    return ()


def _read_english(text: str) -> tuple[str, ...]:
    """Words of the strongest statements, and of what is seen where they are few."""
    weights: dict[str, int] = {}
    for word, weight in _weighed(text):
        weights[word] = max(weight, weights.get(word, weight))
    named: list[str] = []
    for level in _LEVELS:
        found = [word for word, weight in weights.items() if weight >= level]
        named = [word for word in found if not _GENERIC.fullmatch(word)]
        # A single word is few: where one was concluded, what is seen mostly adds to it.
        if len(named) > (level == _STATED):
            break
    return tuple(named or weights)


def _weighed(text: str) -> list[tuple[str, int]]:
    """Every word that may be a label, with the weight of the statement it stands in."""
    rows: list[tuple[str, int]] = []
    before = None  # rows before the first sentence about the subtitle
    reasons = False
    for sentence in _SENTENCE.split(_without_quotations(text).lower()):
        if before is None and _SUBTITLE.search(sentence):
            before = len(rows)
        concludes = bool(_CONCLUDES.search(sentence))
        reasons = (reasons or bool(_REASONS.search(sentence))) and not _REASONS_END.search(sentence)
        change = _CONCLUDED if concludes else _OF_REASON * reasons
        for clause in _CLAUSES.split(_WRITER.sub(" ", sentence)):
            others = _OF_OTHERS * bool(_ELSEWHERE.search(clause))
            for word, weight in _statement_words(clause):
                rows.append((word, weight + others + (change if weight else min(change, 0))))
    if before is not None and any(weight >= _STATED for _, weight in rows[before:]):
        rows[:before] = [(word, weight + _SUPERSEDED) for word, weight in rows[:before]]
    return rows


def _statement_words(clause: str) -> Iterator[tuple[str, int]]:
    """Listed words of a lower-case clause, each with the weight of the opening it follows."""
    events = [
        (found.end(), 1, weight)
        for weight, opening in _OPENINGS
        for found in opening.finditer(clause)
    ]
    events += [(found.end(), 0, 0) for found in _CLOSING.finditer(clause)]
    events.sort()
    open_, i = 0, 0
    for start, word in _lexicon_words(clause):
        while i < len(events) and events[i][0] <= start:
            open_ = max(open_, events[i][2]) if events[i][1] else 0
            i += 1
        if open_ <= _SHOWN and word in _BEHAVIOR:
            yield _BEHAVIOR[word], open_
        elif word in lexicon.table() and open_ > _SCENE.get(word, -1):
            yield normalise(word), open_
