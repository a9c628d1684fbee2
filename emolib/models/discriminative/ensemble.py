"""Trained models that know what they were trained on.

The leak guard stands in every prediction: clips the members were trained on are refused unless
the published, contaminated variant is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from emolib.models.discriminative import measures
from emolib.models.discriminative.corpus import Corpus
from emolib.models.discriminative.fitting import Fitted
from emolib.scoring.leak import LeakReport, check_leak


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Trained models and the clips each was trained on.

    Attributes:
        members: The models.
        training: Readable name of each training list -> labelled clips used in any way: to
            learn, to stop, to choose or to calibrate.
    """

    members: Sequence[Fitted]
    training: Mapping[str, Sequence[str]]

    def predict(self, corpus: Corpus, index: np.ndarray) -> np.ndarray:
        """Mean of the members' calibrated probabilities, float64 [clips, classes].

        Raises:
            LeakError: a clip was used in the training of any member.
        """
        check_leak([corpus.names[k] for k in index], self.training)
        tables = [
            measures.probabilities(m.logits(corpus, index), m.temperature) for m in self.members
        ]
        return np.mean(tables, axis=0)

    def valence(
        self, corpus: Corpus, index: np.ndarray, *, allow_leak: bool = False
    ) -> np.ndarray | None:
        """Mean of the members' valences, float64 [clips]; None without valence output.

        Raises:
            LeakError: see :meth:`predict`, unless ``allow_leak``.
        """
        check_leak([corpus.names[k] for k in index], self.training, allow=allow_leak)
        found = [m.valence(corpus, index) for m in self.members]
        known = [one for one in found if one is not None]
        return np.mean(known, axis=0) if known else None

    def predict_as_published(
        self, corpus: Corpus, index: np.ndarray
    ) -> tuple[np.ndarray, LeakReport]:
        """Softmax of the members' mean logits, seen clips or not, and which were seen.

        Source: MER2024 baseline, ``main-release.py`` (behaviour): test logits of the five fold
        models are averaged.
        """
        report = check_leak([corpus.names[k] for k in index], self.training, allow=True)
        logits = np.mean([m.logits(corpus, index) for m in self.members], axis=0)
        return np.asarray(softmax(logits, axis=1)), report
