"""Emotion words out of a free description, Chinese or English, by table and by rule.

No model is asked, so the result is the same everywhere and costs microseconds. The tables:
English words are those of :mod:`emolib.scoring.lexicon`, less the ones that describe a scene
more often than a feeling; Chinese words are in ``data/emotion_words_zh.csv``, each with the
English word it is given as (both written for this project).

Rules, per clause: quoted speech is left out, the longest word wins ("不满意" before "满意"), a
word under a negation ("没有生气", "not angry", "no sign of anger") or a doubt ("无法判断是否生气",
"hard to tell whether he is angry") is left out, and so are the further words of its list ("not
angry or sad") up to a "but".

This is a reader of descriptions, not a replacement for a summarising model: everything that is
named counts, main emotion or not. ``docs/fusion.md`` gives its precision and recall.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from emolib.labels import ParsedLabels, chinese_words, normalise
from emolib.scoring import lexicon

Language = Literal["auto", "zh", "en"]

# Lexicon entries that in running text are mostly about the picture, the talk or the writer.
_SCENE_WORDS = """
    able action active advice agree alert approval ask asking attention avoid avoiding aware
    believe believing bit body bright certain clear close cold command commanding complete
    concentrating contemplate contemplating content continue cool dark decide decision deep
    direct distance down emotion emotional emotions emphasis emphasise energetic energy engage
    engaged engagement explain explaining explanation expression fast firm focus focused formal
    forward free hard heart heat heavy high hope important inquire inquiry intense intensity
    interest involved kind light like listen listening lively look looking loud low manner
    monotonous mouth move moving natural normal observe observing open opinion order part
    patient power powerful pressure question questions quick quiet rapid reaction recall
    recalling rely request response rise rising say sense sharp short silence silent slow soft
    speech state steady still strength stress strong suggest suggested suggesting suggestion
    support talk tell tension think thinking thought thoughts tone touch touched turn unchanged
    upright upward urge voice volume wait waiting wake want warn weak weight whole wide wild
    will wonder work
"""
_SCENE = frozenset(_SCENE_WORDS.split())

_QUOTED = re.compile(r"“[^”]*”|「[^」]*」|『[^』]*』|\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)|‘[^’]*’")
_CLAUSES = re.compile(
    r"[.;:!?。；：！？\n]+|"
    r"(?:,\s*|\s+)(?=(?:but|however|although|though|while|whereas|yet)\b)|"
    r",\s*(?=(?:and\s+)?(?:he|she|it|they|his|her|their|the|this|that|which|who|there|we|with|as|"
    r"so|indicating|suggesting|showing|implying|expressing|displaying|reflecting|conveying)\b)|"
    r"，|,(?=[\u4e00-\u9fff])|(?=但|然而|而是|不过|反而|却)"
)
_NOT_EN = re.compile(
    r"\b(?:not(?!\s+only\b)|no(?!\s+doubt\b)|never|without|neither|nor|lack(?:s|ing)?|hardly|"
    r"rather than|instead of|unable|cannot|unclear|whether|if|difficult to|hard to|absence of|"
    r"free (?:of|from))\b|n['’]t\b"
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
def _en_pattern() -> re.Pattern[str]:
    words = [w for w in lexicon.table() if w.isascii() and w not in _SCENE and len(w) > 2]
    words.sort(key=lambda w: (-len(w), w))
    return re.compile(r"\b(?:" + "|".join(re.escape(w) for w in words) + r")\b")


def extract_labels(text: str | None, language: Language = "auto") -> ParsedLabels:
    """Find the emotion words of a description.

    Args:
        text: Running text in Chinese or English; None counts as empty.
        language: "auto" takes Chinese when the text has any Chinese character.

    Returns:
        English labels in order of first appearance, each once, with status "ok", "empty" (no
        text) or "unparsed" (no emotion word that is not negated). Cost: linear in the text.

    Raises:
        ValueError: unknown language.

    >>> extract_labels("He is not angry, but she looks worried and a little sad.").labels
    ('worried', 'sad')
    >>> extract_labels("他没有生气，推测他的情感状态为高兴、惊讶。").labels
    ('happy', 'surprised')
    """
    if language not in ("auto", "zh", "en"):
        raise ValueError(f"unknown language {language!r}: choose auto, zh or en")
    raw = text or ""
    if not raw.strip():
        return ParsedLabels((), "empty", raw)
    if language == "auto":
        language = "zh" if re.search(r"[\u4e00-\u9fff]", raw) else "en"
    found: dict[str, None] = {}
    for clause in _CLAUSES.split(_QUOTED.sub(" ", raw)):
        for word in _words(clause or "", language):
            found.setdefault(normalise(word))
    return ParsedLabels(tuple(found), "ok" if found else "unparsed", raw)


def _words(clause: str, language: str) -> list[str]:
    """Emotion words of one clause that stand before any negation, or without one."""
    pattern, negation = _zh_pattern(), _NOT_ZH
    if language == "en":
        clause, pattern, negation = clause.lower(), _en_pattern(), _NOT_EN
    matches = list(pattern.finditer(clause))
    # Words are blanked first: the 不 of 不满 negates nothing.
    masked = list(clause)
    for match in matches:
        masked[match.start() : match.end()] = "#" * (match.end() - match.start())
    negated = negation.search("".join(masked))
    limit = negated.start() if negated else len(clause)
    words = [match.group() for match in matches if match.start() < limit]
    return words if language == "en" else [chinese_words()[word] for word in words]
