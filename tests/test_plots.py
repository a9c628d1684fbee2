"""Figures take any words a data set may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from emolib.datasets.clip import Clip
from emolib.plots import data


@pytest.mark.parametrize("words", [r"it costs $5 and $\frac", "x $^$ y", "a_b^{c}", ""])
def test_words_are_no_formulas(tmp_path, words):
    clip = Clip("a", Path("a.mp4"), subtitle=words or None, labels=(words or "sad",))
    figure = data.gallery([[np.zeros((8, 8, 3), np.uint8)]], [data.clip_title(clip)])
    figure.savefig(tmp_path / "gallery.png")
    figure, ax = plt.subplots()
    data.label_frequencies([clip], ax)
    figure.savefig(tmp_path / "labels.png")
    plt.close(figure)
