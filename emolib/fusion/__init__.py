"""Co-judgment: one list of labels out of several systems' lists.

=====================  ==================================================================
:func:`concat`         the paper's: everything, spliced
:func:`union`          everything, synonyms once
:func:`majority`       what most systems named
:func:`weighted_vote`  the same with weights; :func:`fit_vote` finds them
:func:`fit`            ours: a calibrated probability for every candidate, and the list with
                       the highest expected score
``emolib.cojudge``     a language model is shown the candidates and who named them
=====================  ==================================================================

>>> from emolib import fusion
>>> fusion.concat([{"clip": ["happy"]}, {"clip": ["joyful", "surprised"]}])
{'clip': ['happy', 'joyful', 'surprised']}
>>> fusion.union({"a": {"clip": ["happy"]}, "b": {"clip": ["joyful", "surprised"]}})
{'clip': ['happy', 'surprised']}
"""

from emolib.fusion.candidates import Candidate, GroupOf, candidates
from emolib.fusion.expected import Choice, best_set
from emolib.fusion.fitting import CrossFusion, cross_predict, fit
from emolib.fusion.fuser import Fuser
from emolib.fusion.settings import FusionSettings
from emolib.fusion.verdict import Verdict, kept_labels
from emolib.fusion.voting import Vote, concat, fit_vote, majority, union, weighted_vote

__all__ = [
    "Candidate",
    "Choice",
    "CrossFusion",
    "Fuser",
    "FusionSettings",
    "GroupOf",
    "Verdict",
    "Vote",
    "best_set",
    "candidates",
    "concat",
    "cross_predict",
    "fit",
    "fit_vote",
    "kept_labels",
    "majority",
    "union",
    "weighted_vote",
]
