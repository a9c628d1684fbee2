"""Tables to look at: which labels a system misses and which it invents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from emolib.scoring.encode import LabelSets, distinct
from emolib.scoring.result import Score

if TYPE_CHECKING:
    import pandas as pd


def label_errors(score: Score) -> pd.DataFrame:
    """Count for every label how often it was right, missed and invented.

    A gold label is missed when no predicted label is in its group, a predicted label is
    invented when no gold label is in its group (wheels: on the first wheel). Labels outside
    the wheel tables, which the official rule drops, count as neither.

    Returns:
        One row a label, index ``label``: ``gold`` and ``predicted`` (clips that have it),
        ``missed`` and ``invented`` (of those); most frequent first.
    """
    import pandas as pd

    data = score.data
    view = data.grouped.views[0]
    size = max(len(view.names), 1)
    keys = {
        "gold": distinct(data.gold.rows, view.gold, size),
        "pred": distinct(data.pred.rows, view.pred, size),
    }

    def count(sets: LabelSets, ids: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alone = ~np.isin(sets.rows * size + ids, other) & (ids >= 0)
        n = len(data.vocab)
        return np.bincount(sets.codes, minlength=n), np.bincount(sets.codes[alone], minlength=n)

    gold, missed = count(data.gold, view.gold, keys["pred"])
    predicted, invented = count(data.pred, view.pred, keys["gold"])
    table = pd.DataFrame(
        {"gold": gold, "predicted": predicted, "missed": missed, "invented": invented},
        index=pd.Index(data.vocab, name="label"),
    )
    order = sorted(data.vocab, key=lambda label: (-table.loc[label].sum(), label))
    return table.loc[order]
