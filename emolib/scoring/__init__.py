"""Scores for open-vocabulary emotion labels: official to the last digit, with intervals.

>>> from emolib import scoring
>>> result = scoring.score(
...     {"clip": ["happy", "calm"]}, {"clip": ["happy"]}, scoring.open_grouping("exact")
... )
>>> result.accuracy, result.recall, result.avg
(1.0, 0.5, 0.75)
"""

from emolib.scoring.compare import Comparison, against_constants, compare, compare_means
from emolib.scoring.evaluate import score, score_texts
from emolib.scoring.grouping import Grouping, open_grouping, open_with_wheels
from emolib.scoring.many import score_systems
from emolib.scoring.result import Score

__all__ = [
    "Comparison",
    "Grouping",
    "Score",
    "against_constants",
    "compare",
    "compare_means",
    "open_grouping",
    "open_with_wheels",
    "score",
    "score_systems",
    "score_texts",
]
