"""Tile grids and token counts from image sizes alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolib.errors import DataError
from emolib.models.internvl.budget import (
    Sample,
    Tiling,
    TokenBudgetError,
    preflight,
    tile_count,
    tile_grid,
    tiling_of,
)
from emolib.rehearsal.internvl_files import write_source

GRIDS = json.loads((Path(__file__).parent / "data/internvl_grids.json").read_text())
SIDES = st.integers(1, 5000)
V1_5 = Tiling()


@pytest.mark.parametrize("row", GRIDS["rows"], ids=lambda row: f"{row[0]}x{row[1]}")
def test_grids_of_the_published_code(row):
    width, height, *grids = row
    for max_num, grid in zip(GRIDS["max_num"], grids, strict=True):
        assert tile_grid((width, height), max_num) == tuple(grid)


@settings(max_examples=300, deadline=None)
@given(width=SIDES, height=SIDES, max_num=st.integers(1, 40))
def test_grids_equal_the_processors(width, height, max_num):
    from transformers import GotOcr2ImageProcessorPil

    processor = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1
    )
    want = processor.get_number_of_image_patches(height, width, {"max_patches": max_num})
    assert tile_count((width, height), max_num) == want


@pytest.mark.parametrize(("size", "max_num"), [((640, 480), 12), ((333, 777), 6), ((9, 9), 1)])
def test_counts_equal_what_the_processor_makes(size, max_num):
    from PIL import Image
    from transformers import GotOcr2ImageProcessorPil

    processor = GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, min_patches=1
    )
    made = processor(images=[Image.new("RGB", size)], max_patches=max_num, return_tensors="np")
    assert (
        made["num_patches"] == [tile_count(size, max_num, tile=28)] == [len(made["pixel_values"])]
    )


@given(width=SIDES, height=SIDES, max_num=st.integers(1, 39))
def test_more_tiles_allowed_never_means_fewer(width, height, max_num):
    assert tile_count((width, height), max_num) <= tile_count((width, height), max_num + 1)


def test_known_costs_of_six_frames():
    """At 12 tiles six 640x480 frames cost 19,968 image tokens, six 720p frames 13,824."""
    assert V1_5.image_tokens([(640, 480)] * 6) == 19_968
    assert V1_5.image_tokens([(1280, 720)] * 6) == 13_824
    worst = max(V1_5.image_tokens([(w, h)] * 6, 4) for w in range(100, 3000, 97)
                for h in range(100, 3000, 97))  # fmt: skip
    assert worst == 7_680


@given(
    sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=8),
    other=st.integers(0, 600),
    limit=st.integers(600, 30_000),
)
def test_the_finest_tiling_that_fits(sizes, other, limit):
    totals = {top: other + V1_5.image_tokens(sizes, top) for top in range(1, 13)}
    good = [top for top, total in totals.items() if total <= limit]
    if not good:
        with pytest.raises(TokenBudgetError, match="fewer images"):
            V1_5.fit(sizes, other, limit)
    else:
        assert V1_5.fit(sizes, other, limit) == (max(good), totals[max(good)])


def test_what_does_not_fit_says_what_would():
    frames = [(640, 480)] * 6
    assert V1_5.check(frames, 200, 8192, max_num=4) == 200 + 6 * 256
    with pytest.raises(TokenBudgetError, match=r"20168 tokens.*max_num = 5 fits with 1736"):
        V1_5.check(frames, 200, 8192)


def test_block_marks():
    assert [V1_5.marks(n) for n in (0, 1, 6)] == [0, 2, 2]
    assert [Tiling(layout="separate").marks(n) for n in (0, 1, 6)] == [0, 2, 12]


def test_preflight_finds_one_tiling_for_all_and_names_who_cannot_fit():
    samples = [
        Sample("short", ((640, 480),), 50),
        Sample("six", ((640, 480),) * 6, 300),
        Sample("words", (), 900),
    ]
    best, rows = preflight(samples, V1_5, 8192)
    assert best == 5
    assert [(r["name"], r["tokens"], r["max_num"]) for r in rows] == [
        ("short", 306, 12),
        ("six", 1836, 5),
        ("words", 900, 12),
    ]
    with pytest.raises(TokenBudgetError, match=r"^six: .*more than max_length = 1000"):
        preflight(samples, V1_5, 1000)
    assert preflight([], V1_5, 100) == (12, [])


@given(
    sets=st.lists(st.lists(st.tuples(SIDES, SIDES), max_size=4), min_size=1, max_size=4),
    limit=st.integers(2000, 9000),
)
def test_preflight_never_lets_a_sample_overflow(sets, limit):
    samples = [Sample(str(i), tuple(sizes), 100) for i, sizes in enumerate(sets)]
    _, rows = preflight(samples, V1_5, limit)
    assert all(row["tokens"] <= limit for row in rows)


def test_tiling_is_read_from_a_converted_folder(tmp_path):
    from emolib.models.internvl.convert import convert

    convert(write_source(tmp_path / "source", max_dynamic_patch=6), tmp_path / "out")
    assert tiling_of(tmp_path / "out") == Tiling(4, 56, 1, 6, "joint")
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(DataError, match="not converted here"):
        tiling_of(tmp_path / "out")


@pytest.mark.parametrize(("size", "max_num"), [((0, 5), 3), ((5, 5), 0)])
def test_impossible_grids_are_refused(size, max_num):
    with pytest.raises(ValueError, match="no grid"):
        tile_grid(size, max_num)
