"""A cause put into made-up answers shows up where the notebook says one should look for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from emolib import ablation, tables
from emolib.params.stages import FaceAblation
from emolib.plots.faces import differences, face_sizes
from emolib.predict import Prediction
from emolib.scoring import open_grouping

N = 60
GOLD = {f"c{k:02d}": ("happy", "calm") for k in range(N)}


def row(name: str, right: bool, faces: dict[str, Any] | None = None) -> Prediction:
    info = {} if faces is None else {"faces": faces}
    labels = ("happy", "calm") if right else ("angry",)
    nothing: dict[str, Any] = {}
    return Prediction(name, "s", labels, "", "ok", "ok", None, "", nothing, "stop", 0.0, info)


def faces(found: int, size: float = 0.0) -> dict[str, Any]:
    return {"frames": 6, "found": found, "aligned": 0, "several": 0, "median_source_px": size}


def seen(k: int) -> dict[str, Any]:
    """Every third clip without a face, the others ever larger."""
    return faces(0) if k % 3 == 0 else faces(3 if k % 3 == 1 else 6, 50.0 + k)


def arms(face_right: Any) -> dict[Any, list[Prediction]]:
    """The whole image is always right; the crop when ``face_right(k)``; both together always."""
    return {
        "whole": [row(name, True) for name in GOLD],
        "face": [row(name, face_right(k), seen(k)) for k, name in enumerate(GOLD)],
        "both": [row(name, True, seen(k)) for k, name in enumerate(GOLD)],
    }


def judged(face_right: Any, bounds: tuple[float, ...] = (70.0, 90.0)) -> Any:
    made, grouping = arms(face_right), open_grouping("exact")
    parts = ablation.make_parts(made["face"], bounds)
    results = {r.name: r for r in ablation.by_part(GOLD, made, parts, grouping, seed=0)}
    scores = ablation.score_arms(GOLD, made, grouping, seed=0)
    return results, ablation.size_trend(scores, made["face"], seed=0, draws=500), scores


def loss(results: Any, name: str) -> float:
    return results[name].differences["whole - face"]["avg"]


def test_every_clip_has_one_place_in_each_division():
    parts = ablation.make_parts(arms(lambda k: True)["face"], (70.0, 90.0))
    assert sorted(parts[0].clips) == sorted(GOLD)
    by_found = [clip for part in parts if part.by == "face found" for clip in part.clips]
    assert sorted(by_found) == sorted(GOLD)
    by_size = {part.name: part.clips for part in parts if part.by == "face size"}
    assert list(by_size) == ["face below 70 px", "face 70 to 90 px", "face 90 px and more"]
    found = {name for k, name in enumerate(GOLD) if k % 3}
    assert {clip for clips in by_size.values() for clip in clips} == found
    assert "c20" in by_size["face 70 to 90 px"], "a face of exactly the bound is the larger kind"


def test_missed_faces_show_in_the_clips_without_a_face():
    results, trend, _ = judged(lambda k: k % 3 != 0)
    assert loss(results, "no face in any frame") == 1.0
    assert loss(results, "a face in every frame") == loss(results, "a face in some frames") == 0.0
    assert trend["whole - face"]["rho"] == 0.0


def test_resolution_shows_as_a_trend_over_face_size():
    results, trend, _ = judged(lambda k: k % 3 == 0 or k > 30)
    assert loss(results, "face below 70 px") == 1.0
    assert loss(results, "face 90 px and more") == 0.0
    assert loss(results, "no face in any frame") == 0.0
    assert trend["whole - face"]["rho"] < -0.7
    assert trend["whole - face"]["p"] < 0.01
    assert trend["both - whole"] == {"n": 40, "rho": 0.0, "p": 1.0}


def test_lost_surroundings_show_everywhere_alike():
    results, trend, _ = judged(lambda k: k % 2 == 0)
    for name in ("face below 70 px", "face 70 to 90 px", "face 90 px and more"):
        assert loss(results, name) == pytest.approx(0.5, abs=0.1)
    assert trend["whole - face"]["p"] > 0.2


def test_an_unreadable_clip_counts_and_has_no_size():
    made = arms(lambda k: True)
    made["face"][1] = row("c01", False)
    parts = ablation.make_parts(made["face"], ())
    assert "c01" in parts[0].clips
    assert not any("c01" in part.clips for part in parts[1:])
    assert parts[-1].name == "any size"


def test_few_or_no_clips_are_not_tested():
    made = {view: rows[:4] for view, rows in arms(lambda k: True).items()}
    parts = ablation.make_parts(made["face"], ablation.size_bounds(made["face"]))
    few = {name: GOLD[name] for name in list(GOLD)[:4]}
    results = ablation.by_part(few, made, parts, open_grouping("exact"), seed=0)
    assert [r.n for r in results if r.by == "face found"] == [2, 1, 1]
    assert not any(r.differences for r in results)
    assert all(set(r.avg) == {"whole", "face", "both"} for r in results if r.n)
    scores = ablation.score_arms(few, made, open_grouping("exact"), seed=0)
    assert ablation.size_trend(scores, made["face"], seed=0) == {}
    assert tables.parts_table("t", results)["rows"]
    assert tables.trend_table("t", {})["rows"] == []


def test_thirds_unless_bounds_are_given():
    made = arms(lambda k: True)["face"]
    low, high = ablation.size_bounds(made)
    counts = [len(p.clips) for p in ablation.make_parts(made, (low, high)) if p.by == "face size"]
    assert max(counts) - min(counts) <= 2
    assert ablation.size_bounds(made, [64.0]) == (64.0,)
    assert ablation.size_bounds([row("a", True, faces(0))]) == ()


@pytest.mark.parametrize("bounds", [[90.0, 70.0], [70.0, 70.0], [0.0]])
def test_bounds_out_of_order_are_refused(bounds):
    with pytest.raises(ValueError, match="face_px"):
        FaceAblation.model_validate(
            {"profile": "p", "model": "m", "models": {"m": {"model": "x"}}, "face_px": bounds}
        )


def test_three_tests_are_corrected_and_figures_are_drawn(tmp_path):
    results, _, scores = judged(lambda k: k % 4 != 0)
    made = tables.comparison_table("t", ablation.compare_arms(scores, seed=0))
    p, corrected = made["columns"].index("p (permutation)"), made["columns"].index("p (Holm)")
    assert [r[0] for r in made["rows"][::2]] == ["whole - face", "both - whole", "both - face"]
    assert all(r[p] <= r[corrected] <= 1 for r in made["rows"])
    assert made["rows"][0][corrected] == pytest.approx(3 * made["rows"][0][p], rel=0.5)
    figure, axes = plt.subplots(1, 2)
    face_sizes({"a": 80.0, "b": 120.0}, (100.0,), 224, axes[0])
    differences(list(results.values()), "whole - face", axes[1])
    labels = [text.get_text() for text in axes[1].get_yticklabels()]
    assert labels[0] == f"all clips (n={N})"
    figure.savefig(tmp_path / "parts.png")
    face_sizes({}, (), 224, axes[0])
    differences([], "whole - face", axes[1])
    plt.close(figure)
    table = tables.parts_table("t", list(results.values()))
    assert len(set(table["columns"])) == len(table["columns"])
    assert np.isfinite([r[1] for r in table["rows"]]).all()
