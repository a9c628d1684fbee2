from __future__ import annotations

import numpy as np
import pytest

from emolib import scoring, tables
from emolib.errors import LeakError, ScoreError
from emolib.fusion import concat
from emolib.scoring import uncertainty
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.grouping import ExactGrouping, MappingGrouping, TableGrouping
from emolib.scoring.leak import check_leak
from emolib.scoring.openset import score_means

EXACT = ExactGrouping()


class TwoWheels(TableGrouping):
    """Two views; each leaves a word out."""

    name = "two wheels"

    def views(self, vocab):
        return [
            [None if x == "w0" else f"even {int(x[1:]) % 2}" for x in vocab],
            [None if x == "w8" else f"third {int(x[1:]) % 3}" for x in vocab],
        ]

    def known(self, vocab):
        return [True] * len(vocab)


def systems(n=120, seed=0):
    rng = np.random.default_rng(seed)
    gold = {f"c{i}": [f"w{k}" for k in rng.choice(9, 3, replace=False)] for i in range(n)}
    good = {name: labels[: int(rng.integers(1, 4))] for name, labels in gold.items()}
    bad = {name: [f"w{rng.integers(9)}"] for name in gold}
    return gold, good, bad


def direct_bootstrap(columns, resamples, seed):
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(columns), size=(resamples, len(columns)))
    return score_means(columns[picks].mean(axis=1))


def test_intervals_are_those_of_the_plain_bootstrap():
    gold, good, _ = systems()
    result = scoring.score(gold, good, EXACT)
    plain = np.quantile(direct_bootstrap(result.data.columns, 10_000, 1), [0.025, 0.975], axis=0)
    for m, name in enumerate(("accuracy", "recall", "avg", "f1")):
        assert result.ci95[name] == pytest.approx(plain[:, m], abs=0.006)
        low, high = result.ci95[name]
        assert low <= getattr(result, name) <= high


def test_bca_is_that_of_scipy():
    from scipy import stats

    values = np.random.default_rng(3).choice([0, 0.25, 0.5, 1.0], 80, p=[0.1, 0.1, 0.2, 0.6])
    found = uncertainty.bootstrap(values[:, None], lambda means: means, 20_000, 0)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.bca[0] == pytest.approx([theirs.low, theirs.high], abs=0.006)
    assert found.bca[0].tolist() != found.percentile[0].tolist()


def test_many_distinct_rows_go_through_the_normal_law():
    values = np.random.default_rng(0).random((6_000, 2))
    found = uncertainty.bootstrap(values, lambda means: means, 4_000, 0)
    half = 1.96 * values.std(axis=0) / np.sqrt(6_000)
    assert found.percentile[:, 1] - found.percentile[:, 0] == pytest.approx(2 * half, rel=0.06)


def test_same_seed_same_interval():
    gold, good, _ = systems()
    a, b, c = (scoring.score(gold, good, EXACT, seed=s).ci95 for s in (0, 0, 1))
    assert a == b != c


def test_one_clip_has_a_point_interval():
    result = scoring.score({"a": ["x", "y"]}, {"a": ["x"]}, EXACT, resamples=50)
    assert result.ci95["avg"] == result.ci95["avg_bca"] == [0.75, 0.75]


def test_no_resamples_no_intervals():
    assert scoring.score({"a": ["x"]}, {"a": ["x"]}, EXACT, resamples=0).ci95 == {}


def test_a_better_system_is_found_better():
    gold, good, bad = systems()
    a, b = (scoring.score(gold, pred, EXACT) for pred in (good, bad))
    found = scoring.compare(a, b)
    assert found.n == 120
    assert found.difference["avg"] == pytest.approx(a.avg - b.avg)
    assert found.ci95["avg"][0] > 0
    assert found.p_permutation["avg"] == pytest.approx(1 / 10_001)  # never 0
    assert found.p_bootstrap["avg"] < 0.001
    back = scoring.compare(b, a)
    assert back.difference["avg"] == -found.difference["avg"]
    assert back.p_permutation == found.p_permutation


def test_a_system_does_not_differ_from_itself():
    gold, good, _ = systems()
    a = scoring.score(gold, good, EXACT)
    found = scoring.compare(a, a)
    assert set(found.difference.values()) == {0.0}
    assert set(found.p_permutation.values()) == set(found.p_bootstrap.values()) == {1.0}


def test_permutation_test_holds_its_level():
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(200):
        pair = rng.choice([0, 0.5, 1.0], size=(2, 60, 1))
        hits += uncertainty.permutation_p(*pair, lambda m: m, 400, 0)[0] <= 0.05
    assert 0.01 <= hits / 200 <= 0.10


def test_permutation_p_is_that_of_all_swaps():
    a, b = np.array([[1.0], [0.5], [1.0], [0.0]]), np.array([[0.0], [0.0], [0.5], [0.5]])
    signs = np.array(np.meshgrid(*[[1, -1]] * 4)).reshape(4, -1).T
    gaps = np.abs(signs @ (a - b)[:, 0])
    exact = (gaps >= abs((a - b).sum())).mean()
    found = uncertainty.permutation_p(a, b, lambda means: means, 40_000, 0)[0]
    assert found == pytest.approx(exact, abs=0.01)


def test_different_groupings_are_not_compared():
    gold, good, bad = systems()
    other = scoring.score(gold, bad, CachedGrouping(dict.fromkeys(gold, "[['w1', 'w2']]")))
    with pytest.raises(ScoreError, match="different groups"):
        scoring.compare(scoring.score(gold, good, EXACT), other)


def test_stored_groups_must_know_both_systems():
    gold, a, b = {"c": ["x"]}, {"c": ["y"]}, {"c": ["z"]}
    for_a = CachedGrouping({"c": "[['x', 'y']]"})
    scores = [scoring.score(gold, pred, for_a, resamples=0) for pred in (a, b)]
    assert [s.avg for s in scores] == [1, 0]  # b was never given the chance to be grouped
    with pytest.raises(ScoreError, match="partition of its own"):
        scoring.compare(*scores)
    union = CachedGrouping({"c": "[['x', 'y', 'z']]"})
    found = scoring.compare(*(scoring.score(gold, p, union, resamples=0) for p in (a, b)))
    assert found.difference["avg"] == 0


def test_different_clips_are_compared_only_when_asked():
    gold, good, bad = systems()
    few = {name: gold[name] for name in list(gold)[:50]}
    a = scoring.score(gold, good, EXACT)
    b = scoring.score(few, bad, EXACT, extra="drop")
    with pytest.raises(ScoreError, match="120 and 50 clips, 50 of them shared"):
        scoring.compare(a, b)
    found = scoring.compare(a, b, clips="shared")
    assert (found.n, found.left_out) == (50, 70)


def test_pairing_does_not_depend_on_clip_order():
    gold, good, bad = systems()
    turned = {name: gold[name] for name in reversed(list(gold))}
    a = scoring.score(gold, good, EXACT)
    b, c = (scoring.score(g, bad, EXACT) for g in (gold, turned))
    assert scoring.compare(a, b).to_json() == scoring.compare(a, c).to_json()


def test_leak_is_found_and_refused():
    training = {"train.csv": ["a.mp4", "x"], "more.txt": ["b", "a"], "clean": ["z"]}
    with pytest.raises(LeakError, match=r"2 of 3 evaluation clips .* 1 in train\.csv; 2 in more"):
        check_leak(["a", "b", "c"], training)
    report = check_leak(["a", "b", "c"], training, allow=True)
    assert report.leaked == ["a", "b"]
    assert report.overlaps == {"train.csv": ["a"], "more.txt": ["a", "b"]}
    assert check_leak(["q"], training).overlaps == {}


def test_concat_is_the_union_in_order_without_repeats():
    a, b = {"c": ["Happy", "calm"], "d": []}, {"c": ["happy ", "sad"], "d": ["shy", ""]}
    assert concat([a, b]) == {"c": ["happy", "calm", "sad"], "d": ["shy"]}
    assert concat([a]) == {"c": ["happy", "calm"], "d": []}


def test_concat_wants_the_same_clips():
    with pytest.raises(ScoreError, match="differ in 1 clips"):
        concat([{"c": []}, {"d": []} | {"c": []}])
    with pytest.raises(ScoreError, match="at least one"):
        concat([])


LISTS = ("same_length", "any_length", "best_f1")


@pytest.mark.parametrize(
    "grouping",
    [
        EXACT,
        MappingGrouping({"w0": "a", "w1": "a", "w2": "b", "w3": "b"}),
        TwoWheels(),
    ],
)
def test_against_a_constant_list_is_against_a_system_that_always_says_it(grouping):
    gold, good, _ = systems()
    score = scoring.score(gold, good, grouping)
    best = score.constant_list
    found = scoring.against_constants(score, resamples=500, seed=3)
    assert tuple(found) == LISTS
    for which, labels in zip(
        LISTS,
        (best["same_length"]["labels"], best["labels"], best["best_f1"]["labels"]),
        strict=True,
    ):
        always = scoring.score(gold, dict.fromkeys(gold, labels), grouping)
        same = scoring.compare(score, always, resamples=500, seed=3)
        assert found[which].to_json() == same.to_json()


def test_against_constant_lists_under_groups_made_clip_by_clip():
    gold, good, _ = systems(40)
    answers = {
        name: str([[x] for x in sorted({*labels, *good[name]})]) for name, labels in gold.items()
    }
    score = scoring.score(gold, good, CachedGrouping(answers))
    best = score.constant_list
    for which, one in scoring.against_constants(score, resamples=100).items():
        listed = best if which == "any_length" else best[which]
        for metric in ("accuracy", "recall", "avg", "f1"):
            assert one.b[metric] == pytest.approx(listed[metric])
            assert one.difference[metric] == pytest.approx(getattr(score, metric) - listed[metric])
        assert one.b["labels_per_clip"] == len(listed["labels"])


def test_a_system_that_looks_is_above_every_list_and_one_that_does_not_is_not():
    gold, good, _ = systems(300)
    for one in scoring.against_constants(scoring.score(gold, good, EXACT)).values():
        assert one.difference["avg"] > 0 < one.difference["f1"]
        assert one.p_permutation["avg"] < 0.001 > one.p_permutation["f1"]
    listed = dict.fromkeys(gold, scoring.score(gold, good, EXACT).constant_list["labels"])
    score = scoring.score(gold, listed, EXACT)
    same = scoring.against_constants(score)["any_length"]
    assert same.difference["avg"] == 0
    assert same.p_permutation["avg"] == 1


def test_the_table_against_constant_lists_says_whom_it_favours():
    gold, good, bad = systems(60)
    scores = {name: scoring.score(gold, x, EXACT) for name, x in (("a", good), ("b", bad))}
    made = tables.constant_table("t", scores, resamples=200)
    assert [row[0] for row in made["rows"]] == ["a"] * 3 + ["b"] * 3
    assert "favour them" in made["notes"][0]
    assert len(made["notes"]) == 1
    lead = scoring.against_constants(scores["b"], resamples=200)["same_length"]
    first = dict(zip(made["columns"], made["rows"][3], strict=True))
    assert first["its labels"] == 1
    assert first["constant list"] == "best Avg, no longer"
    assert first["Avg -"] == lead.difference["avg"]
    assert first["p, F1"] == lead.p_permutation["f1"]
