"""How each cue is put into words: three wordings a cue, taken at random.

``{he}``, ``{his}``, ``{He}``, ``{His}`` and ``{person}`` are filled in by ``describe``.
"""

from __future__ import annotations

# Concept -> what can be seen of it in one image.
FACE: dict[str, tuple[str, str, str]] = {
    "core.happy.mild": (
        "The corners of {his} mouth are turned up in a smile.",
        "{He} smiles with closed lips.",
        "A gentle smile lies on {his} face.",
    ),
    "core.happy.strong": (
        "{He} laughs with an open mouth, and {his} cheeks are raised and flushed.",
        "{He} beams and shows {his} teeth in a broad smile.",
        "A wide laughing smile lifts {his} cheeks.",
    ),
    "core.sad.mild": (
        "The inner ends of {his} eyebrows are raised and the corners of {his} mouth droop.",
        "{He} lowers {his} eyes, and {his} mouth is turned down.",
        "{His} mouth droops and {his} gaze is cast down.",
    ),
    "core.sad.strong": (
        "Tears run down {his} cheeks and {his} mouth is drawn far down.",
        "{He} is crying, with raised inner eyebrows and heavy eyelids.",
        "{His} eyes are full of tears and {his} lips droop.",
    ),
    "core.angry.mild": (
        "{His} eyebrows are lowered and {his} lips are pressed together.",
        "{He} frowns with tight lips.",
        "{His} brows are drawn down over narrowed eyes.",
    ),
    "core.angry.strong": (
        "{His} face is red, {his} brows are drawn down hard and {he} bares {his} teeth.",
        "{He} shouts with bared teeth and deeply furrowed brows.",
        "{He} glares with a reddened face and an open, square mouth.",
    ),
    "core.afraid.mild": (
        "{His} eyebrows are raised and drawn together, and {his} eyes are wide.",
        "{He} stares with wide eyes and slightly parted lips.",
        "{His} eyes are opened wide under raised, drawn brows.",
    ),
    "core.afraid.strong": (
        "{His} face is pale with beads of sweat, and {his} eyes are torn open.",
        "{He} stares with huge eyes, pale skin and a stretched open mouth.",
        "Sweat stands on {his} pale forehead and {his} mouth is stretched wide.",
    ),
    "core.surprised.mild": (
        "{His} eyebrows are raised high and {his} lips are parted.",
        "{He} raises {his} eyebrows and opens {his} eyes.",
        "{His} brows are arched and {his} mouth is slightly open.",
    ),
    "core.surprised.strong": (
        "{His} mouth is wide open and round, and {his} eyebrows are raised to the limit.",
        "{His} jaw has dropped and {his} eyes are very wide under arched brows.",
        "{He} gapes with a round open mouth and wide eyes.",
    ),
    "core.disgusted.mild": (
        "{His} nose is wrinkled and {his} eyes are narrowed.",
        "{He} wrinkles {his} nose and turns {his} head a little aside.",
        "{He} narrows {his} eyes over a wrinkled nose.",
    ),
    "core.disgusted.strong": (
        "{His} upper lip is raised and {his} nose is deeply wrinkled.",
        "{He} squints, wrinkles {his} nose and curls {his} upper lip.",
        "With a curled lip and squinting eyes {he} turns {his} head away.",
    ),
    "core.worried.mild": (
        "{His} brows are drawn together and {his} gaze wanders aside.",
        "{He} looks to the side with a furrow between {his} brows.",
        "{His} forehead is furrowed and {his} eyes do not rest.",
    ),
    "core.worried.strong": (
        "{His} brows are tightly drawn, {he} sweats and presses {his} lips together.",
        "{He} presses {his} lips and looks about with a deeply furrowed forehead.",
        "There is sweat on {his} brow, and {his} eyes dart from side to side.",
    ),
    "core.calm.mild": (
        "{His} face is at rest and {his} brows are level.",
        "{He} looks straight ahead with a smooth, even face.",
        "{His} features are relaxed and still.",
    ),
    "core.calm.strong": (
        "{His} eyes are closed and a faint smile plays on {his} lips.",
        "{He} has closed {his} eyes, with a soft, smooth face.",
        "With closed eyes and a slight smile {he} seems at rest.",
    ),
}
TURNED = (
    "{His} face is turned away from the camera.",
    "{He} has turned {his} head aside, so that little of {his} face can be seen.",
    "{His} head is turned to the side.",
)

BODY: dict[str, tuple[str, str, str]] = {
    "defensive": (
        "{He} has crossed {his} arms in front of {his} chest.",
        "{His} arms are folded.",
        "{He} holds {his} arms tightly crossed.",
    ),
    "thoughtful": (
        "{He} rests {his} chin on {his} hand.",
        "{His} hand is at {his} chin.",
        "{He} holds one hand to {his} chin and supports the elbow with the other.",
    ),
    "determined": (
        "{He} raises a clenched fist.",
        "{His} fist is raised beside {his} head.",
        "{He} holds up one fist.",
    ),
    "confident": (
        "{He} stands upright with {his} hands on {his} hips.",
        "{His} hands are on {his} hips and {his} elbows point outwards.",
        "{He} stands tall, hands on hips.",
    ),
    "helpless": (
        "{He} shrugs with raised shoulders and open palms.",
        "{He} spreads {his} open hands and lifts {his} shoulders.",
        "{His} shoulders are raised and {his} palms are turned up.",
    ),
    "ashamed": (
        "{He} covers {his} eyes with one hand.",
        "{He} hides {his} face behind {his} hand and lowers {his} head.",
        "{He} holds {his} hand before {his} lowered face.",
    ),
    "excited": (
        "{He} throws both arms up in the air.",
        "Both of {his} arms are raised high with open hands.",
        "{He} holds both hands up beside {his} head.",
    ),
    "insecure": (
        "{He} wraps both arms around {himself} and hunches {his} shoulders.",
        "{He} hugs {himself}, holding {his} own upper arms.",
        "{His} shoulders are hunched and {his} arms are wrapped around {his} body.",
    ),
}

SETTING: dict[str, tuple[str, str, str]] = {
    "festive": (
        "Balloons and bunting hang around {him} and confetti is falling.",
        "The place is decorated with balloons and coloured flags, as for a party.",
        "Colourful flags, balloons and confetti fill the surroundings.",
    ),
    "mournful": (
        "Candles burn beside {him} and a wreath with a black ribbon hangs in the grey light.",
        "Behind {him} are a wreath with a black ribbon and burning candles.",
        "The grey surroundings hold a funeral wreath and candles.",
    ),
    "threatened": (
        "It is dark, with storm clouds, and a large shadow with pale eyes looms behind {him}.",
        "A dark figure with glowing eyes stands behind {him} under storm clouds.",
        "Behind {him} a shadowy figure rises in the dark.",
    ),
    "lonely": (
        "The surroundings lie in blue dusk, with nothing but empty chairs.",
        "Around {him} are only empty chairs in a dim blue light.",
        "The place is deserted; empty chairs stand in the dusk.",
    ),
    "pressured": (
        "Rows of people behind {him} stare at {him}.",
        "A whole audience is watching {him} closely.",
        "Many faces in the background look straight at {him}.",
    ),
    "romantic": (
        "Garlands of hearts and roses surround {him} in pink light.",
        "The pink surroundings are decorated with hearts and red roses.",
        "Hearts float around {him}, and there are roses.",
    ),
    "overwhelmed": (
        "High piles of paper surround {him}, and a clock runs fast.",
        "{He} stands between stacks of paper under a clock.",
        "Towers of paper rise on both sides of {him}, below a ticking clock.",
    ),
    "relaxed": (
        "A warm lamp glows beside {him}, plants hang down and a mug is steaming.",
        "The surroundings are warm: soft lamp light, hanging plants, a steaming mug.",
        "Beside {him} are a glowing lamp and a steaming mug.",
    ),
}

PROSODY: dict[str, tuple[str, str, str]] = {
    "core.happy.mild": (
        "the voice is bright and lively",
        "{he} speaks in a lively, rising melody",
        "the tone is light and bright",
    ),
    "core.happy.strong": (
        "the voice is high, loud and full of movement",
        "{he} speaks fast with a bright, jumping melody",
        "the tone is very bright and lively",
    ),
    "core.sad.mild": (
        "the voice is low and slow",
        "{he} speaks slowly with a falling melody",
        "the tone is soft and sinking",
    ),
    "core.sad.strong": (
        "the voice is very low, quiet and slow",
        "{he} speaks very slowly and almost without melody",
        "the tone is faint and falls with every word",
    ),
    "core.angry.mild": (
        "the voice is loud and firm",
        "{he} speaks fast and loudly",
        "the tone is sharp",
    ),
    "core.angry.strong": (
        "the voice is very loud and harsh",
        "{he} shouts in a harsh voice",
        "the tone is hard and shouting",
    ),
    "core.afraid.mild": (
        "the voice is raised and thin",
        "{he} speaks fast in a high voice",
        "the tone is high and tight",
    ),
    "core.afraid.strong": (
        "the voice is very high and the words come very fast",
        "{he} speaks in a shrill, hurried voice",
        "the tone is shrill and rushed upwards",
    ),
    "core.surprised.mild": (
        "the voice rises at the end",
        "{he} speaks with wide pitch movements",
        "the tone goes up clearly",
    ),
    "core.surprised.strong": (
        "the pitch jumps up and down widely",
        "{he} speaks with very large leaps in pitch",
        "the tone leaps upwards",
    ),
    "core.disgusted.mild": (
        "the voice is low and drawling",
        "{he} drags the words in a low voice",
        "the tone is low and stretched",
    ),
    "core.disgusted.strong": (
        "the voice is very low and creaking",
        "{he} drawls in a creaky voice",
        "the tone is rough, low and stretched",
    ),
    "core.worried.mild": (
        "the voice is subdued and a little raised",
        "{he} speaks quietly with a slight rise",
        "the tone is restrained",
    ),
    "core.worried.strong": (
        "the voice is quiet, tight and rising",
        "{he} speaks quickly and quietly",
        "the tone is strained and quiet",
    ),
    "core.calm.mild": ("the voice is even", "{he} speaks at an even pace", "the tone is level"),
    "core.calm.strong": (
        "the voice is soft and slow",
        "{he} speaks softly and evenly",
        "the tone is soft and steady",
    ),
}

VOICE: dict[str, tuple[str, str, str]] = {
    "nervous": (
        "the voice trembles",
        "a clear tremor runs through the voice",
        "{he} speaks with a shaking voice",
    ),
    "tired": (
        "{he} sighs before speaking and the voice is breathy",
        "a sigh is heard and the words are breathed",
        "the voice is full of breath after a long sigh",
    ),
    "amused": (
        "{he} chuckles before speaking",
        "a short laugh is heard at the beginning",
        "the sentence starts with a chuckle",
    ),
    "impatient": (
        "the syllables are hard and clipped",
        "{he} bites off every word",
        "every syllable is cut short",
    ),
    "bored": (
        "the pitch does not move at all",
        "{he} speaks in a monotone",
        "the melody is completely flat",
    ),
    "cautious": ("{he} only whispers", "the words are whispered", "the voice is a whisper"),
    "moved": (
        "the voice breaks and {he} sniffs",
        "a sniff is heard and the voice keeps breaking",
        "{he} sniffs, and syllables break off",
    ),
}

WORDS: dict[str, tuple[str, str, str]] = {
    "": (
        "This sentence states a plain fact.",
        "The words themselves carry no feeling.",
        "The sentence is neutral in content.",
    ),
    "grateful": (
        "With these words {he} thanks someone.",
        "This sentence expresses thanks.",
        "The words say thank you.",
    ),
    "apologetic": (
        "With these words {he} apologizes.",
        "This sentence is an apology.",
        "The words ask for forgiveness.",
    ),
    "resentful": (
        "With these words {he} blames someone.",
        "This sentence is an accusation.",
        "The words put the blame on another person.",
    ),
    "curious": (
        "With these words {he} asks to know more.",
        "This sentence is a question out of interest.",
        "The words ask for an explanation.",
    ),
    "hopeful": (
        "With these words {he} looks forward.",
        "This sentence speaks of a better future.",
        "The words express hope.",
    ),
    "disappointed": (
        "With these words {he} says that more was expected.",
        "This sentence speaks of an expectation that was not met.",
        "The words tell of a let-down.",
    ),
    "proud": (
        "With these words {he} points to something achieved.",
        "This sentence speaks of an own success.",
        "The words tell of an achievement.",
    ),
    "doubtful": (
        "With these words {he} questions what was said.",
        "This sentence expresses disbelief.",
        "The words show that {he} does not believe it.",
    ),
    "caring": (
        "With these words {he} offers help.",
        "This sentence shows care for another person.",
        "The words comfort someone.",
    ),
    "envious": (
        "With these words {he} wishes for what others have.",
        "This sentence compares {his} own luck with that of others.",
        "The words are about something another person got.",
    ),
    "confused": (
        "With these words {he} says that {he} cannot follow.",
        "This sentence shows that {he} does not understand.",
        "The words ask what is meant.",
    ),
}
INTERJECTION = (
    'The exclamation "{word}" suggests that {he} is {labels}.',
    '"{word}" at the beginning is the cry of someone {labels}.',
    'Beginning with "{word}" {he} sounds {labels}.',
)
OPENING = {
    "base": (
        "the screen shows {person} {place}.",
        "we see {person} {place}.",
        "there is {person} {place}.",
    ),
    "target": (
        "{person} appears {place}.",
        "the scene, {place}, shows {person}.",
        "the camera is on {person} {place}.",
    ),
}
SUMMARY = (
    "Taken together, these clues show that {he} feels {labels}.",
    "Based on these clues, {his} emotional state is {labels}.",
    "All in all it can be inferred that {he} is {labels}.",
)
SEEMS = (
    "{He} seems {labels}.",
    "{He} appears to be {labels}.",
    "{His} emotional state looks {labels}.",
)
UNCLEAR = (
    "{His} emotional state cannot be told from this image.",
    "The image does not show what {he} feels.",
    "It is not clear from the image how {he} feels.",
)
