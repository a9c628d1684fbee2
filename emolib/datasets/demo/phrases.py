"""What the people of the demo world say: sentences a split and domain, disjoint by clause.

A subtitle is ``[interjection] clause``. The clause carries the ``words`` state and nothing
else; the interjection, present in half of the clips, carries the core. Clauses of test and val
occur in no other split; they share key words with train ("thank", "sorry", ...), not sentences.
"""

from __future__ import annotations

import numpy as np

# State ("" = nothing emotional) -> one block a (domain, split): base train, base val, base
# test, target train, target val, target test; clauses divided by "|".
_CLAUSES: dict[str, tuple[str, str, str, str, str, str]] = {
    "": (
        "The {thing} is on the table.|We start at {time}.|I put the {thing} in the bag."
        "|{who} comes at {time}.|It is next to the door.|The {thing} belongs to {who}.",
        "You can find the {thing} upstairs.|{who} is in the other room.",
        "The {thing} lies under the window.|{who} left at {time}.",
        "They open at {time}, I think.|There is a {thing} over there.|{who} has the key."
        "|The blue {thing} is mine.",
        "It was {time} or so.",
        "The {thing} goes on the shelf.|{who} will be back by {time}.",
    ),
    "grateful": (
        "Thank you for the {thing}.|Thanks, that was so kind of you.|I am grateful for your help."
        "|I really appreciate what you did.|Thank you, {who}, for waiting.",
        "I want to thank you for everything.",
        "Many thanks for bringing the {thing}.|I appreciate your kind help.",
        "Thanks a lot, {who}.|I cannot thank you enough.|I am so grateful to you.",
        "My thanks to all of you.",
        "Thank you for standing by me.|I am grateful, {who}, I really am.",
    ),
    "apologetic": (
        "I am sorry about the {thing}.|Please forgive me, {who}.|It was my fault."
        "|I apologize for being late.|Sorry, I should not have said that.",
        "I am so sorry, it was my mistake.",
        "Forgive me, I broke the {thing}.|I am sorry, I was wrong.",
        "Sorry, {who}, my mistake.|I apologize for all of it.|Can you forgive me?",
        "I owe you an apology.",
        "I was wrong, please forgive me.|Sorry for losing the {thing}.",
    ),
    "resentful": (
        "This is all your fault.|You never listen to me.|You always blame me for the {thing}."
        "|How could you do this to me?|You lied to me, {who}.",
        "You ruined it, it is your fault.",
        "It is your fault, you never cared.|How could you lie to {who}?",
        "You never help, never.|Because of you we lost the {thing}.|You did this to me.",
        "I blame you for this.",
        "You lied, and you always do.|You are to blame, {who}.",
    ),
    "curious": (
        "What is inside the {thing}?|How does the {thing} work?|Tell me more about {who}."
        "|Where did you find that?|What happened next?",
        "How did you make that {thing}?",
        "Tell me, what is behind the door?|Where does {who} come from?",
        "Tell me how it works.|What did {who} say then?|Where does this {thing} lead?",
        "Can you show me what it is?",
        "What happened to the {thing}, tell me?|How did {who} find it?",
    ),
    "hopeful": (
        "Maybe tomorrow it will work.|I hope {who} will come.|Things will get better soon."
        "|I am sure we will make it.|Next time we will win.",
        "I hope it works next time.",
        "Soon it will be better, I am sure.|I hope we will find the {thing}.",
        "I hope so, {who}.|It will work out soon.|We will make it tomorrow.",
        "One day we will win.",
        "Tomorrow will be better, I hope.|I am sure {who} will make it.",
    ),
    "disappointed": (
        "I expected more from you.|The {thing} is not what I wanted.|So it was all for nothing."
        "|You promised me, {who}.|Is that really all?",
        "I wanted more than this {thing}.",
        "You promised more than that.|I waited for nothing.",
        "Is that all, after all this?|I expected a better {thing}.|He promised, and nothing.",
        "That is not what you promised.",
        "All that waiting for nothing.|I expected more, {who}.",
    ),
    "proud": (
        "I made this {thing} myself.|I won the first prize.|Look, I did it all alone."
        "|We finished before everyone else.|I passed the exam.",
        "Look, I won this {thing}.",
        "I did it, I passed first.|We made the best {thing}.",
        "I won, all by myself.|Look what I made, {who}.|We came in first.",
        "I finished it myself.",
        "Look, first prize for my {thing}.|I passed, and all alone.",
    ),
    "doubtful": (
        "I do not believe a word.|Are you sure about that?|That cannot be true."
        "|Who really took the {thing}?|{who} is hiding something.",
        "I am not sure that is true.",
        "Is that really true, {who}?|I do not believe {who}.",
        "That sounds too good to be true.|I do not trust that {thing}.|Are you hiding something?",
        "Do you believe that, {who}?",
        "You are hiding the {thing}, are you?|I am not sure I trust you.",
    ),
    "caring": (
        "Are you hurt, {who}?|Let me help you with that.|You need some rest now."
        "|Take my coat, you are cold.|I will stay with you tonight.",
        "Let me stay and help you.",
        "You are cold, take the {thing}.|Rest now, I will help {who}.",
        "Does it still hurt?|I will take care of {who}.|Lean on me, let me help.",
        "Take some rest, I stay here.",
        "You are hurt, let me help.|I will take care of you.",
    ),
    "envious": (
        "Why does {who} get everything?|I wish I had that {thing}.|They got it, and not me."
        "|Everyone has one but me.|Why not me, why always {who}?",
        "I wish it was my {thing}.",
        "Why does everyone get it but me?|{who} has it all, and not me.",
        "I wish I was {who}.|It should have been me.|{who} always gets the best {thing}.",
        "Why them and not me?",
        "I wish they gave me that {thing}.|{who} got it, why not me?",
    ),
    "confused": (
        "I do not understand this {thing}.|Wait, which one do you mean?|This makes no sense to me."
        "|What are you talking about?|I am lost, say it again.",
        "Wait, I do not understand.",
        "Say it again, I am lost.|What do you mean by {thing}?",
        "Wait, what do you mean?|I am lost, {who}.|None of this makes sense.",
        "Which {thing} are you talking about?",
        "It makes no sense, say it again.|I do not understand, {who}.",
    ),
}
_BLOCKS = (
    ("base", "train"),
    ("base", "val"),
    ("base", "test"),
    ("target", "train"),
    ("target", "val"),
    ("target", "test"),
)
CLAUSES: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {
    block: {state: tuple(texts[i].split("|")) for state, texts in _CLAUSES.items()}
    for i, block in enumerate(_BLOCKS)
}

# Core -> interjections; the same in all splits, for they are single words.
INTERJECTIONS: dict[str, tuple[str, ...]] = {
    "happy": ("Haha,", "Yay,", "Hooray,"),
    "sad": ("Alas,", "Oh dear,", "Ah me,"),
    "angry": ("Damn it,", "Grr,", "Enough,"),
    "afraid": ("Help,", "Oh God,", "No no,"),
    "surprised": ("Wow,", "What,", "Oh my,"),
    "disgusted": ("Yuck,", "Ugh,", "Eww,"),
    "worried": ("Oh no,", "Hmm,", "Oh well,"),
    "calm": ("Well,", "So,", "All right,"),
}
INTERJECTION_RATE = 0.5

_FILL = {
    "thing": ("ticket", "soup", "letter", "cake", "book", "lamp", "jacket", "guitar", "picture",
              "phone", "garden", "ring", "box", "map", "blanket"),
    "who": ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry", "Iris", "Jonas"),
    "time": ("eight", "nine", "ten", "half past two", "three", "seven", "noon"),
}  # fmt: skip


def draw_subtitle(
    core: str, words: str, domain: str, split: str, rng: np.random.Generator
) -> tuple[str, str, str]:
    """Draw what is said.

    Returns:
        (subtitle, clause template it was made from, interjection or "").
    """
    clauses = CLAUSES[domain, split][words]
    pick, has, which, *slots = rng.random(6)
    clause = clauses[int(pick * len(clauses))]
    filled = clause
    for (slot, values), u in zip(_FILL.items(), slots, strict=True):
        filled = filled.replace(f"{{{slot}}}", values[int(u * len(values))])
    interjection = ""
    if has < INTERJECTION_RATE:
        choices = INTERJECTIONS[core]
        interjection = choices[int(which * len(choices))]
        if filled.split(" ")[0].rstrip(",") not in {"I", *_FILL["who"]}:
            filled = filled[0].lower() + filled[1:]
    return f"{interjection} {filled}".strip(), clause, interjection


_VOWELS = "aeiouy"


def syllables(text: str) -> list[str]:
    """Split a sentence into rough syllables; "," and final marks become pauses.

    Returns:
        Lower-case letter groups with one vowel group each, and "," or "." for pauses.

    >>> syllables("Oh no, the cake.")
    ['oh', 'no', ',', 'the', 'cake', '.']
    """
    out: list[str] = []
    for word in text.lower().split():
        letters = "".join(c for c in word if c.isalpha())
        if not letters:
            continue
        groups: list[str] = []
        current, had_vowel = "", False
        for i, c in enumerate(letters):
            vowel = c in _VOWELS
            if vowel and had_vowel and letters[i - 1] not in _VOWELS:
                # a silent final e stays with its syllable, as in "cake"
                if c == "e" and i == len(letters) - 1:
                    current += c
                    continue
                groups.append(current[:-1])
                current = current[-1]
            current += c
            had_vowel = had_vowel or vowel
        groups.append(current)
        out += groups
        if word[-1] in ",.?!":
            out.append("," if word[-1] == "," else ".")
    return out
