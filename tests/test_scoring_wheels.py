"""Wheel scores against the official metric of both years, case by case."""

from __future__ import annotations

import json

import pytest

from emolib import scoring
from emolib.errors import DataError, ScoreError
from emolib.labels import parse_labels
from emolib.scoring.files import read_labels
from emolib.scoring.wheels import WheelGrouping, WheelTables
from tests.shared import shared

pytestmark = pytest.mark.shared
YEARS = ("2025", "2026")


@pytest.fixture(scope="module")
def golden():
    return json.loads(shared("golden/metrics/wheel_cases.json").read_text())


@pytest.fixture(scope="module", params=YEARS)
def year(request):
    return request.param


@pytest.fixture(scope="module")
def tables(year):
    return WheelTables(shared(f"data/wheels/{year}"))


def near(value, expected):
    return value == pytest.approx(expected, abs=1e-9)


def cell(text):
    return float("nan") if text == "__NAN__" else text


def test_table_sizes(tables, year):
    # The official count includes one blank form.
    assert len(tables.forms) + 1 == {"2025": 7386, "2026": 7356}[year]
    assert len(tables.roots) == 1255
    assert [len(s) for s in tables.sectors] == [114, 126, 78, 102, 77]
    assert tables.year == year


def test_every_golden_case(golden, tables, year):
    grouping = WheelGrouping(tables, year)
    checked = 0
    for case in golden["cases"]:
        want = case[f"mer{year}"]
        gold, pred = (parse_labels(cell(case[side]), "mer2025").labels for side in ("gt", "pred"))
        assert sorted(x.lower() for x in want["parsed_gt"]) == sorted(gold), case["id"]
        lookups = {"case1": tables.m1, "case2": tables.m2}
        for wheel in range(1, 6):
            for level in (1, 2):
                name = f"case3_wheel{wheel}_level{level}"
                lookups[name] = lambda x, w=wheel, lev=level: tables.m3(x, w, lev)
        for name, look in lookups.items():
            for side, labels in (("gt_set", gold), ("pred_set", pred)):
                assert sorted({look(x) for x in labels} - {None}) == want[name][side], case["id"]
        if not gold or any(want[name]["n"] == 0 for name in lookups):
            continue  # the official metric is undefined without gold
        result = scoring.score({"a": gold}, {"a": pred}, grouping, resamples=0)
        for mine, theirs in (("m1", "case1"), ("m2", "case2")):
            assert near(result.wheel[mine]["precision"], want[theirs]["precision"])
            assert near(result.wheel[mine]["recall"], want[theirs]["recall"])
        for level in (1, 2):
            expected = want[f"wheel_level{level}_F_P_R"]
            if None not in expected:  # 2025 divides by zero where nothing is hit
                got = result.wheel[f"m3_level{level}"]
                assert near([got["f1"], got["precision"], got["recall"]], expected), case["id"]
        checked += 1
    assert checked >= 30


@pytest.fixture(scope="module")
def files():
    folder = shared("data/mer2024_ov")
    return [
        read_labels(folder / name, "mer2025").labels
        for name in ("check-openset.csv", "predict-openset.csv")
    ]


def test_aggregate_on_the_released_files(golden, tables, year, files):
    want = golden["ov_store_aggregate"][f"mer{year}"]
    result = scoring.score(*files, WheelGrouping(tables, year), resamples=300)
    for level in (1, 2):
        got = result.wheel[f"m3_level{level}"]
        assert near([got["f1"], got["precision"], got["recall"]], want[f"wheel_level{level}_F_P_R"])
    for mine, theirs in (("m1", "case1"), ("m2", "case2")):
        expected = [want[theirs][k] for k in ("F", "precision", "recall")]
        assert near([result.wheel[mine][k] for k in ("f1", "precision", "recall")], expected)
    f1 = [want[f"wheel_level{level}_F_P_R"][0] for level in (1, 2)]
    assert near(result.wheel["ranking"], sum(f1) / 2 if year == "2025" else f1[0])
    assert near([result.f1, result.accuracy, result.recall], want["wheel_level1_F_P_R"])
    assert year in result.grouping["version"]
    assert 0.86 < result.coverage_gold < 0.88  # 13 % of gold tokens are in no table
    assert result.ci95["f1"][0] < result.f1 < result.ci95["f1"][1]


def test_clips_without_known_gold_differ_by_wheel(golden, tables, year, files):
    want = golden["ov_store_aggregate"][f"mer{year}"]
    data = scoring.score(*files, WheelGrouping(tables, year), resamples=0).data
    n = [int(counts.valid.sum()) for counts in data.counts]
    assert n == [want[f"case3_wheel{k}_level1"]["n"] for k in range(1, 6)]


def test_invented_words_are_free_under_drop_and_cost_under_keep(tables, year, files):
    gold, pred = files
    invented = {name: [*labels, "zzz", "qwerty"] for name, labels in pred.items()}
    drop = WheelGrouping(tables, year)
    keep = WheelGrouping(tables, year, "keep")
    plain, padded = (scoring.score(gold, p, drop, resamples=0) for p in (pred, invented))
    assert (plain.accuracy, plain.f1) == (padded.accuracy, padded.f1)
    assert padded.coverage_pred < plain.coverage_pred
    plain, padded = (scoring.score(gold, p, keep, resamples=0) for p in (pred, invented))
    assert padded.accuracy < plain.accuracy - 0.1
    assert keep.version != drop.version


def test_antonyms_of_the_2025_tables(tables, year):
    same = [tables.m3("fear", k, 1) == tables.m3("joyful", k, 1) for k in range(1, 6)]
    assert sum(same) == {"2025": 2, "2026": 0}[year]


def test_tables_of_the_other_year_are_refused():
    with pytest.raises(ScoreError, match="holds the 2026 tables"):
        scoring.open_grouping("ew2025", tables=shared("data/wheels/2026"))


def test_missing_tables_name_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"no format\.csv"):
        scoring.open_grouping("ew2025", tables=tmp_path)
    with pytest.raises(ScoreError, match="--tables"):
        scoring.open_grouping("ew2025")
