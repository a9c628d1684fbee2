"""Co-judgment: one list of labels out of several systems' lists.

=====================  ==================================================================
:func:`concat`         the paper's: everything, spliced
:func:`union`          everything, synonyms once
:func:`majority`       what most systems named
:func:`weighted_vote`  the same with weights, e.g. of :func:`reliability_weights`
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
from emolib.fusion.fuser import (
    CrossFusion,
    Fuser,
    FusionSettings,
    Verdict,
    cross_predict,
    fit,
    kept_labels,
)
from emolib.fusion.voting import concat, majority, reliability_weights, union, weighted_vote

__all__ = [
    "Candidate",
    "Choice",
    "CrossFusion",
    "Fuser",
    "FusionSettings",
    "GroupOf",
    "Verdict",
    "best_set",
    "candidates",
    "concat",
    "cross_predict",
    "fit",
    "kept_labels",
    "majority",
    "reliability_weights",
    "union",
    "weighted_vote",
]
