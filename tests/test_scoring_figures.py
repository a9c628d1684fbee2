from __future__ import annotations

import matplotlib as mpl
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from emolib import scoring
from emolib.plots import scores as figures
from emolib.scoring.grouping import MappingGrouping
from emolib.scoring.tables import label_errors

GOLD = {"a": ["happy", "calm"], "b": ["sad"], "c": ["angry"]}
PRED = {"a": ["glad"], "b": ["sad", "angry"], "c": []}


@pytest.fixture(scope="module")
def result():
    return scoring.score(GOLD, PRED, MappingGrouping({"happy": "h", "glad": "h"}), resamples=200)


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    figure.canvas.draw()
    plt.close(figure)


def test_errors_by_label(result):
    table = label_errors(result)
    assert table.loc["calm"].tolist() == [1, 0, 1, 0]
    assert table.loc["glad"].tolist() == [0, 1, 0, 0]  # another word for a gold label
    assert table.loc["angry"].tolist() == [1, 1, 1, 1]
    assert table["missed"].sum() == 2
    assert table["invented"].sum() == 1


def test_plane_shows_every_system_and_the_constant_list(result, ax):
    assert figures.accuracy_recall({"ours": result, "again": result}, ax) is ax
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[0] == "ours (n=3, 1.0 labels)"
    assert texts[-1].startswith("constant: ")
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert [p.get_xydata()[0].tolist() for p in points] == [[result.accuracy, result.recall]] * 2


def test_plane_of_scores_without_intervals(ax):
    plain = scoring.score(GOLD, PRED, MappingGrouping({}), resamples=0)
    figures.accuracy_recall({"ours": plain}, ax)


def test_labels_per_clip_are_shares(result, ax):
    figures.labels_per_clip({"ours": result}, ax)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0, 2 / 3, 1 / 3])
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    figures.labels_per_clip({}, ax)


def test_missed_and_invented_bars(result, ax):
    figures.missed_and_invented(result, ax)
    assert sorted(bar.get_width() for bar in ax.patches) == [-1, -1, 1]
