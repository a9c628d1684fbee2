"""Co-judgment by rule and by the fitted model."""

from __future__ import annotations

import importlib
import json
import re
from itertools import combinations, product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolib import fusion, scoring
from emolib.errors import LeakError, ScoreError
from emolib.fusion import folds, logistic
from emolib.fusion.expected import (
    Expectation,
    best_candidates,
    best_set,
    expected_terms,
    f1_weight,
)
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.grouping import MappingGrouping, TableGrouping
from tests.shared import shared

# --- by rule ---------------------------------------------------------------------------------

SYSTEMS = {
    "a": {"x": ["happy", "surprised"], "y": []},
    "b": {"x": ["joyful"], "y": ["sad"]},
    "c": {"x": ["angry", "Joyful"], "y": ["sad", "tired"]},
}


def test_concat_keeps_every_spelling_and_union_one_of_each_group():
    assert fusion.concat(list(SYSTEMS.values())) == {
        "x": ["happy", "surprised", "joyful", "angry"],
        "y": ["sad", "tired"],
    }
    assert fusion.union(SYSTEMS) == {"x": ["joyful", "surprised", "angry"], "y": ["sad", "tired"]}


def test_union_scores_as_concat_with_fewer_labels():
    gold = {"x": ["glad", "astonished"], "y": ["sorrow"]}
    grouping = scoring.open_grouping("lexicon")
    spliced = scoring.score(gold, fusion.concat(list(SYSTEMS.values())), grouping, resamples=0)
    joined = scoring.score(gold, fusion.union(SYSTEMS), grouping, resamples=0)
    assert (spliced.accuracy, spliced.recall) == (joined.accuracy, joined.recall)
    assert joined.labels_per_clip < spliced.labels_per_clip


def test_majority_counts_synonyms_as_agreement():
    assert fusion.majority(SYSTEMS) == {"x": ["joyful"], "y": ["sad"]}
    assert fusion.majority(SYSTEMS, grouping=scoring.open_grouping("exact"))["x"] == ["joyful"]
    assert fusion.majority(SYSTEMS, at_least=1) == fusion.union(SYSTEMS)


def test_majority_without_a_winner_gives_the_most_named():
    split = {"a": {"x": ["happy"]}, "b": {"x": ["sad"]}, "c": {"x": []}}
    assert fusion.majority(split) == {"x": ["happy", "sad"]}


def test_weighted_vote_follows_the_heavy_system():
    weights = {"a": 5.0, "b": 1.0, "c": 1.0}
    assert fusion.weighted_vote(SYSTEMS, weights)["x"] == ["joyful", "surprised"]
    with pytest.raises(ScoreError, match="'b' needs a weight"):
        fusion.weighted_vote(SYSTEMS, {"a": 1.0})


def test_fit_vote_trusts_the_better_system():
    gold = {str(i): ["happy"] for i in range(20)}
    systems = {
        "good": {c: ["joyful"] for c in gold},
        "bad": {c: ["sad", "angry"] for c in gold},
    }
    vote = fusion.fit_vote(gold, systems)
    assert vote.weights["good"] > 0.9 > 0.1 > vote.weights["bad"]
    assert vote.predict(systems) == {c: ["joyful"] for c in gold}


@pytest.mark.parametrize("fuse", [fusion.union, fusion.majority])
def test_systems_must_cover_the_same_clips(fuse):
    with pytest.raises(ScoreError, match="differ in 1 clips"):
        fuse({"a": {"x": ["happy"]}, "b": {"x": ["sad"], "y": []}})
    with pytest.raises(ScoreError, match="at least one system"):
        fuse({})


def test_groups_that_depend_on_the_clip_are_refused():
    with pytest.raises(ScoreError, match="depend on the label alone"):
        fusion.union(SYSTEMS, CachedGrouping({"x": "[['happy']]"}))
    with pytest.raises(ScoreError, match="at least one grouping"):
        fusion.union(SYSTEMS, [])


@pytest.mark.parametrize("odd", ["w" * 9000, {f"word {k}" for k in range(9000)}])
def test_a_refusal_shows_a_few_items_only(odd):
    with pytest.raises(ScoreError) as error:
        fusion.union(SYSTEMS, [odd])
    assert len(str(error.value)) < 400


class TwoRings(TableGrouping):
    """Two views: an inner ring that both words of joy share, and an outer one that parts them."""

    name = "rings"
    INNER: ClassVar = {"happy": "joy", "joyful": "joy", "sad": "pain", "angry": "pain"}
    OUTER: ClassVar = {"happy": "calm", "joyful": "loud", "angry": "loud", "proud": "calm"}

    def views(self, vocab):
        return [[ring.get(label) for label in vocab] for ring in (self.INNER, self.OUTER)]

    def known(self, vocab):
        return [label in self.INNER or label in self.OUTER for label in vocab]


def test_labels_are_one_candidate_when_they_agree_in_every_view():
    group_of = fusion.GroupOf(TwoRings())
    assert group_of("happy") == "joy / calm"
    assert group_of("Joyful") == "joy / loud"
    assert group_of("sad") == "pain / -"
    assert group_of("chair") is None
    assert group_of.views("pain / -") == ("pain", None)
    assert group_of.sets_of(["happy", "sad", "chair"]) == ({"joy", "pain"}, {"calm"})
    assert group_of.correct({"joy / loud", "pain / -"}, ["happy", "angry"]) == pytest.approx(1.5)
    systems = {"a": {"x": ["happy", "chair"]}, "b": {"x": ["joyful", "sad"]}}
    assert fusion.union(systems, TwoRings()) == {"x": ["happy", "joyful", "sad"]}


def test_a_dictionary_and_several_groupings_are_groupings():
    mine = {"happy": "plus", "angry": "minus", "sad": "minus"}
    assert fusion.GroupOf(mine)("happy") == fusion.GroupOf(MappingGrouping(mine))("happy")
    assert fusion.GroupOf(mine).version != fusion.GroupOf({"happy": "minus"}).version
    both = fusion.GroupOf([mine, TwoRings()])
    assert both.name == "mapping + rings"
    assert both.weights.tolist() == [0.5, 0.25, 0.25]  # groupings count the same
    assert both("sad") != both("angry")  # one group of the first, two of the second


# --- the list with the highest expected score ------------------------------------------------

PROBABILITIES = st.lists(st.floats(0, 1), min_size=0, max_size=6)
CAPS = st.integers(1, 6)
PRICES = st.sampled_from([0.0, 0.002, 0.05])
MISSED = st.lists(st.floats(0.01, 1), min_size=1, max_size=4).map(lambda q: np.array(q) / sum(q))


def enumerated(p, missed, chosen, objective, weight):
    """Expected score of a list, by going through every world."""
    total = 0.0
    for world in product((0, 1), repeat=len(p)):
        chance = np.prod([q if x else 1 - q for q, x in zip(p, world, strict=True)])
        for more, share in enumerate(missed):
            hits, n, m = sum(world[i] for i in chosen), sum(world) + more, len(chosen)
            if not hits:
                continue
            score = weight * hits / m + (1 - weight) * hits / n
            total += chance * share * (2 * hits / (m + n) if objective == "clip_f1" else score)
    return total


@settings(max_examples=60, deadline=None)
@given(PROBABILITIES, MISSED, st.sampled_from(["avg", "clip_f1"]), st.floats(0, 1), CAPS, PRICES)
def test_best_set_equals_brute_force_over_all_lists(p, missed, objective, weight, cap, price):
    choice = best_set(np.array(p), missed, objective, weight, cap, price)
    every = [s for m in range(min(len(p), cap) + 1) for s in combinations(range(len(p)), m)]
    values = {s: enumerated(p, missed, s, objective, weight) - price * len(s) for s in every}
    assert choice.value == pytest.approx(max(values.values()), abs=1e-9)
    assert values[tuple(sorted(choice.chosen))] == pytest.approx(choice.value, abs=1e-9)
    assert len(choice.chosen) <= cap


@settings(max_examples=40, deadline=None)
@given(PROBABILITIES, MISSED, st.sampled_from(["avg", "clip_f1"]), PRICES)
def test_gains_are_differences_of_expected_scores(p, missed, objective, price):
    choice = best_set(np.array(p), missed, objective, price=price)
    for i in range(len(p)):
        other = set(choice.chosen) ^ {i}
        changed = enumerated(p, missed, sorted(other), objective, 0.5) - price * len(other)
        sign = 1 if i in choice.chosen else -1
        assert choice.gains[i] == pytest.approx(sign * (choice.value - changed), abs=1e-9)
        assert sign * choice.gains[i] >= -1e-9


def test_certain_groups_are_kept_and_impossible_ones_dropped():
    choice = best_set(np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0]))
    assert choice.chosen == (1, 3)
    assert choice.value == pytest.approx(1)
    assert best_set(np.zeros(3), np.array([1.0])).chosen == ()
    assert best_set(np.zeros(0), np.array([1.0])).chosen == ()


def test_precision_weight_runs_from_everything_to_the_safest():
    p, missed = np.array([0.8, 0.5, 0.2, 0.1]), np.array([0.5, 0.3, 0.2])
    sizes = [len(best_set(p, missed, "avg", w).chosen) for w in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (4, 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(PROBABILITIES, min_size=1, max_size=4), MISSED, st.sampled_from([None, 1, 2]), PRICES
)
def test_the_weight_for_f1_is_the_best_of_its_grid(clips, missed, cap, price):
    def f1(weight):
        a = r = 0.0
        for p in clips:
            chosen = best_set(np.array(p), missed, "avg", weight, cap, price).chosen
            a += enumerated(p, missed, chosen, "avg", 1.0)
            r += enumerated(p, missed, chosen, "avg", 0.0)
        return 2 * a * r / (a + r) if a + r else 0.0

    found = f1_weight([np.array(p) for p in clips], missed, cap, price)
    assert f1(found) == pytest.approx(max(f1(step / 20) for step in range(1, 20)), abs=1e-9)


def test_the_weight_for_f1_makes_up_for_low_recall():
    short = [np.array([0.9, 0.5, 0.4, 0.3])] * 5
    assert f1_weight(short, np.array([0.0, 0.0, 0.0, 1.0])) < 0.5  # three more that nobody named
    assert f1_weight([np.zeros(0)], np.array([1.0])) == 0.5


def test_f1_as_objective_lengthens_lists_where_recall_lags():
    gold, systems, sure = world(60)
    gold = {c: [*labels, "jealous", "ashamed", "curious"] for c, labels in gold.items()}
    wanted = (fusion.FusionSettings(objective=o) for o in ("avg", "f1"))
    plain, harmonic = (fusion.fit(gold, systems, sure, settings=s) for s in wanted)
    assert plain.precision_weight == 0.5
    assert harmonic.precision_weight < 0.5
    new = later(systems, sure)
    lengths = [sum(map(len, f.predict(*new).values())) for f in (plain, harmonic)]
    assert lengths[0] < lengths[1]


def test_many_candidates_stay_exact():
    p = np.random.default_rng(0).uniform(0, 1, 60)
    terms = expected_terms(p, np.array([0.2, 0.5, 0.3]), precision_weight=0.0)[60]
    # Recall of naming everything is E[H / (H + M)]; one simulation of it.
    rng = np.random.default_rng(1)
    hits = (rng.uniform(size=(20_000, 60)) < p).sum(axis=1)
    more = rng.choice(3, p=[0.2, 0.5, 0.3], size=20_000)
    assert terms.sum() == pytest.approx((hits / (hits + more)).mean(), abs=1e-3)


def test_the_official_wheels_are_a_grouping():
    wheels = scoring.open_grouping("ew2026", tables=shared("data/wheels/2026"))
    gold, systems, sure = world()
    group_of = fusion.GroupOf(wheels)
    assert len(group_of.weights) == 5
    assert group_of("joyful") == group_of("joyfully") is not None
    fused = fusion.cross_predict(gold, systems, sure, grouping=wheels, outer=4)
    spliced = fusion.concat(list(systems.values()))
    f1 = [scoring.score(gold, x, wheels, resamples=0).f1 for x in (fused.labels, spliced)]
    assert f1[0] > f1[1]


RINGS = st.lists(
    st.tuples(st.integers(-1, 2), st.integers(-1, 3)), min_size=1, max_size=6, unique=True
)


@settings(max_examples=60, deadline=None)
@given(
    RINGS,
    st.lists(st.floats(0, 1), min_size=7, max_size=7),
    MISSED,
    st.floats(0, 1),
    st.sampled_from(["avg", "clip_f1"]),
    CAPS,
    PRICES,
)
def test_the_expectation_over_views_equals_brute_force(
    rings, p, missed, weight, objective, cap, price
):
    chances = np.array(p[:3]), np.array(p[3:])
    shares = 0.3, 0.7
    views = [
        Expectation(
            np.array([ring[v] for ring in rings]),
            expected_terms(chances[v], missed, objective, weight),
            shares[v],
        )
        for v in (0, 1)
    ]
    every = [s for m in range(min(len(rings), cap) + 1) for s in combinations(range(len(rings)), m)]

    def value(chosen):
        parts = [sorted({rings[i][v] for i in chosen} - {-1}) for v in (0, 1)]
        worlds = [enumerated(chances[v], missed, parts[v], objective, weight) for v in (0, 1)]
        return shares[0] * worlds[0] + shares[1] * worlds[1]

    values = {s: value(s) - price * len(s) for s in every}
    for chosen in every:
        row = np.isin(np.arange(len(rings)), chosen).astype(float)[None]
        found = sum(view.weight * view.value(row)[0] for view in views)
        assert found == pytest.approx(values[chosen] + price * len(chosen), abs=1e-9)
    order = np.array([np.mean([chances[v][r] for v, r in enumerate(ring)]) for ring in rings])
    choice = best_candidates(views, order, cap, price)
    mine = set(choice.chosen)
    assert len(mine) <= cap
    assert choice.value == pytest.approx(values[tuple(sorted(mine))], abs=1e-9)
    for other in every:  # no addition, removal or swap of one candidate is better
        change = mine ^ set(other)
        if len(change) == 1 or (len(change) == 2 and len(other) == len(mine)):
            assert values[other] <= choice.value + 1e-9
        if len(change) == 1:
            gain = choice.gains[change.pop()] * (1 if len(other) < len(mine) else -1)
            assert gain == pytest.approx(choice.value - values[other], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(PROBABILITIES, MISSED, st.floats(0, 1), CAPS)
def test_with_one_view_the_climb_finds_the_exact_list(p, missed, weight, cap):
    exact = best_set(np.array(p), missed, "avg", weight, cap)
    view = Expectation(np.arange(len(p)), expected_terms(np.array(p), missed, "avg", weight), 1.0)
    assert best_candidates([view], np.array(p), cap).value == pytest.approx(exact.value, abs=1e-9)


# --- the fitted model ------------------------------------------------------------------------

WORDS = ["happy", "sad", "angry", "surprised", "tired", "proud", "grateful", "bored"]


def world(n=60, seed=0, noise=0.15):
    """Clips with one to three gold words; "good" hears most of them, "bad" guesses."""
    rng = np.random.default_rng(seed)
    gold, good, bad, sure = {}, {}, {}, {}
    for i in range(n):
        true = list(rng.choice(WORDS, size=rng.integers(1, 4), replace=False))
        heard = [w for w in true if rng.random() > noise]
        name = f"clip{i:03d}"
        gold[name] = true
        good[name] = heard + [w for w in rng.choice(WORDS, size=1) if rng.random() < noise]
        bad[name] = list(rng.choice(WORDS, size=3, replace=False))
        sure[name] = {w: 0.9 if w in heard else 0.1 for w in WORDS[:4]}
    return gold, {"good": good, "bad": bad}, {"good": sure}


def avg(gold, pred):
    return scoring.score(gold, pred, scoring.open_grouping("lexicon"), resamples=0).avg


def test_learns_whom_to_trust_and_beats_splicing():
    gold, systems, _ = world()
    fused = fusion.cross_predict(gold, systems, outer=5)
    assert avg(gold, fused.labels) > avg(gold, fusion.concat(list(systems.values()))) + 0.1
    model = fused.fusers[0].views[0].model
    weight = dict(zip(model.features, model.weights, strict=True))
    assert weight["named: good"] > weight["named: bad"]


def test_a_clips_own_gold_changes_nothing():
    gold, systems, sure = world()
    plain = fusion.cross_predict(gold, systems, sure, outer=4)
    for fold in range(4):
        poisoned = {
            c: ["disgusted", "jealous", *WORDS] if plain.fold_of[c] == fold else labels
            for c, labels in gold.items()
        }
        again = fusion.cross_predict(poisoned, systems, sure, outer=4)
        inside = [c for c in gold if plain.fold_of[c] == fold]
        assert all(again.verdicts[c] == plain.verdicts[c] for c in inside)
        assert again.fold_of == plain.fold_of
        outside = [c for c in gold if plain.fold_of[c] != fold]
        assert any(again.verdicts[c] != plain.verdicts[c] for c in outside)  # the poison works


VARIED = (
    {"grouping": TwoRings()},
    {"grouping": [TwoRings(), None]},
    {"families": {"good": "one", "bad": "one"}},
    {"settings": fusion.FusionSettings(similar=True)},
    {
        "grouping": TwoRings(),
        "settings": fusion.FusionSettings(similar=True, objective="f1", add=2),
    },
)


@pytest.mark.parametrize("options", VARIED)
def test_a_clips_own_gold_changes_nothing_whatever_the_options(options):
    gold, systems, sure = world()
    plain = fusion.cross_predict(gold, systems, sure, outer=4, **options)
    inside = [c for c in gold if plain.fold_of[c] == 1]
    poisoned = {c: ["proud", "sad", "bored"] if c in inside else x for c, x in gold.items()}
    again = fusion.cross_predict(poisoned, systems, sure, outer=4, **options)
    assert all(again.verdicts[c] == plain.verdicts[c] for c in inside)
    assert any(again.verdicts[c] != plain.verdicts[c] for c in gold if c not in inside)
    for fuser in plain.fusers[:1]:
        text = json.dumps(fuser.to_json(), allow_nan=False)
        back = fusion.Fuser.from_json(json.loads(text), options.get("grouping"))
        new = later(systems, sure)
        assert back.explain(*new) == fuser.explain(*new)
        assert all(0 < v.probability < 1 for rows in fuser.explain(*new).values() for v in rows)


def test_fitting_under_the_groups_that_are_scored_is_better_there():
    gold, systems, sure = world(120)
    rings, words = TwoRings(), scoring.open_grouping("exact")
    fitted = {g: fusion.cross_predict(gold, systems, sure, grouping=g) for g in (rings, words)}
    for here, there in ((rings, words), (words, rings)):
        scores = [
            scoring.score(gold, fitted[g].labels, here, empty_gold="drop", resamples=0).avg
            for g in (here, there)
        ]
        assert scores[0] > scores[1] - 0.01


def test_variants_of_one_model_have_one_vote_together():
    gold, systems, _ = world()
    copies = {f"bad {k}": systems["bad"] for k in range(5)}
    families = dict.fromkeys(copies, "bad")
    many = fusion.fit(gold, {**systems, **copies}, families=families | {"bad": "bad"})
    plain = fusion.fit(gold, systems)
    assert many.views[0].model.features == plain.views[0].model.features
    new, more = later(systems)[0], later({**systems, **copies})[0]
    for clip, verdicts in plain.explain(new).items():
        others = {v.group: v for v in many.explain(more)[clip]}
        for v in verdicts:
            assert others[v.group].probability == pytest.approx(v.probability, abs=1e-9)
    with pytest.raises(ScoreError, match="families: 'x' is none of"):
        fusion.fit(gold, systems, families={"x": "y"})


def test_similar_clips_teach_what_single_groups_cannot():
    rng = np.random.default_rng(0)
    gold, said = {}, {}
    for k in range(120):  # "sad" is right when "tired" was named beside it, and only then
        beside = rng.random() < 0.5
        gold[f"c{k:03d}"] = ["sad"] if beside else ["proud"]
        said[f"c{k:03d}"] = ["sad", "tired", "proud"] if beside else ["sad", "bored", "proud"]
    systems = {"a": said}
    fused = fusion.cross_predict(gold, systems, settings=fusion.FusionSettings(similar=True))
    assert np.mean([fused.labels[c] == gold[c] for c in gold]) > 0.95
    fuser = fused.fusers[0]
    model = fuser.views[0].model
    assert model.features[-1] == "similar clips"
    assert model.weights[-1] == max(model.weights)


def test_deterministic_and_independent_of_the_order_of_clips():
    gold, systems, sure = world(40)
    first = fusion.fit(gold, systems, sure)
    turned = {s: dict(reversed(rows.items())) for s, rows in systems.items()}
    second = fusion.fit(dict(reversed(gold.items())), turned, sure)
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())


def later(systems, sure=None):
    """The same lists under names the fuser has not seen."""
    named = {s: {f"new {c}": x for c, x in rows.items()} for s, rows in systems.items()}
    return named, later(sure)[0] if sure else None


def test_clips_of_the_fit_are_refused():
    gold, systems, _ = world(30)
    fuser = fusion.fit(gold, systems)
    with pytest.raises(LeakError, match="30 of 30 evaluation clips"):
        fuser.predict(systems)
    assert set(fuser.predict(systems, allow_leak=True)) == set(gold)


def test_json_round_trip():
    gold, systems, sure = world(40)
    new = later(systems, sure)
    for options in ({}, {"objective": "f1", "cap": 2, "add": 3}, {"objective": "clip_f1"}):
        fuser = fusion.fit(gold, systems, sure, settings=fusion.FusionSettings(**options))
        text = json.dumps(fuser.to_json(), allow_nan=False)
        again = fusion.Fuser.from_json(json.loads(text))
        assert again.to_json() == fuser.to_json()
        assert again.explain(*new) == fuser.explain(*new)


def test_json_of_other_groups_is_refused():
    gold, systems, _ = world(40)
    mine = MappingGrouping({"happy": "joy"}, version="mine")
    data = fusion.fit(gold, systems, grouping=mine).to_json()
    with pytest.raises(ScoreError, match="fitted with groups"):
        fusion.Fuser.from_json(data)
    assert fusion.Fuser.from_json(data, mine).grouping["version"] == "mine"
    with pytest.raises(ScoreError, match="format"):
        fusion.Fuser.from_json({**data, "format": 0})


def test_explains_every_candidate_and_the_list_follows():
    gold, systems, sure = world()
    settings = fusion.FusionSettings(cap=2)
    fuser = fusion.fit(gold, systems, sure, settings=settings)
    systems, sure = later(systems, sure)
    fused = fuser.predict(systems, sure)
    group_of = fusion.GroupOf()
    capped = 0
    for clip, verdicts in fuser.explain(systems, sure).items():
        assert {v.group for v in verdicts} == {
            group_of(x) for rows in systems.values() for x in rows[clip]
        }
        assert fused[clip] == [v.label for v in verdicts if v.decision == "kept"]
        assert len(fused[clip]) <= 2
        p = [v.probability for v in verdicts]
        assert p == sorted(p, reverse=True)
        for v in verdicts:
            said = {s for s, rows in systems.items() for x in rows[clip] if group_of(x) == v.group}
            assert set(v.sources) == said
            assert 0 < v.probability < 1
            assert (v.gain > 0) == (v.decision != "dropped") or abs(v.gain) < 1e-9
            capped += v.decision == "over the cap"
    assert capped


def test_one_system_gives_its_list_or_less():
    gold, systems, _ = world()
    fuser = fusion.fit(gold, {"bad": systems["bad"]})
    new, _ = later({"bad": systems["bad"]})
    fused = fuser.predict(new)
    assert all(set(fused[c]) <= set(new["bad"][c]) and fused[c] for c in fused)


def test_nothing_named_gives_an_empty_list_unless_words_may_be_added():
    gold, systems, _ = world()
    gold = {c: [*labels, "happy"] for c, labels in gold.items()}  # happy is in every clip
    new = {"good": {"new": []}, "bad": {"new": []}}
    assert fusion.fit(gold, systems).predict(new) == {"new": []}
    adding = fusion.fit(gold, systems, settings=fusion.FusionSettings(add=1))
    assert adding.predict(new) == {"new": ["happy"]}
    assert adding.explain(new)["new"][0].sources == ()


def test_probabilities_are_calibrated():
    gold, systems, sure = world(200)
    fused = fusion.cross_predict(gold, systems, sure, outer=5)
    group_of = fusion.GroupOf()
    pairs = [
        (v.probability, v.group in group_of.set_of(gold[c]))
        for c, verdicts in fused.verdicts.items()
        for v in verdicts
    ]
    p, y = np.array(pairs, float).T
    assert p.mean() == pytest.approx(y.mean(), abs=0.03)
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        inside = (p >= low) & (p < high)
        if inside.sum() >= 40:
            assert p[inside].mean() == pytest.approx(y[inside].mean(), abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, s: ({**g, "clip000": []}, s), "no gold label"),
        (lambda g, s: ({**g, "other": ["happy"]}, s), "no prediction of 'good'"),
        (lambda g, s: ({c: ["bored"] for c in g}, {"a": {c: ["sad"] for c in g}}), "all or none"),
        (lambda g, s: ({"clip000": g["clip000"]}, s), "cannot make 5 folds"),
    ],
)
def test_what_cannot_be_fitted_is_named(change, message):
    gold, systems = change(*world(20)[:2])
    with pytest.raises(ScoreError, match=message):
        fusion.fit(gold, systems)


def test_other_systems_than_fitted_are_refused():
    gold, systems, _ = world(30)
    with pytest.raises(ScoreError, match="the fuser knows systems"):
        fusion.fit(gold, systems).predict({"good": systems["good"]})
    with pytest.raises(ScoreError, match="none of the systems"):
        fusion.fit(gold, systems, {"third": {}})
    with pytest.raises(ScoreError, match="cap at least 1"):
        fusion.FusionSettings(cap=0)


# --- folds and regression --------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=12, max_size=60), st.integers(2, 4), st.integers(0, 9))
def test_folds_keep_blocks_whole(owners, k, seed):
    blocks = {f"c{i}": str(owner) for i, owner in enumerate(owners) if owner < 6}
    names = [f"c{i}" for i in range(len(owners))]
    if len(set(blocks.values())) + owners.count(6) + owners.count(7) + owners.count(8) < k:
        return
    fold_of = folds.split(names, k, seed, blocks)
    assert fold_of == folds.split(names[::-1], k, seed, blocks)
    assert set(fold_of) == set(names)
    for block in set(blocks.values()):
        assert len({fold_of[n] for n in blocks if blocks[n] == block}) == 1


def test_newton_finds_the_minimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = (rng.uniform(size=200) < logistic.sigmoid(x @ [2.0, -1.0, 0.0])).astype(float)
    ridge, centre = np.array([1.0, 0.1, 5.0]), np.array([0.0, 1.0, 0.0])
    w = logistic.newton(x, y, ridge, centre)
    gradient = x.T @ (logistic.sigmoid(x @ w) - y) + ridge * (w - centre)
    assert np.abs(gradient).max() < 1e-6
    # Perfectly separable data do not run away.
    assert np.isfinite(logistic.newton(x[:2], np.array([0.0, 1.0]), ridge, centre)).all()


# --- the page and its record -----------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]


def test_every_table_of_the_page_is_in_the_record():
    record = json.loads((ROOT / "outputs/record/fusion_study.json").read_text())
    checked, table = 0, None
    for line in (ROOT / "docs/fusion_study.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if found := re.fullmatch(r"<!-- record: (\w+)/(\w+) -->", line):
            table = record[found[1]][found[2]]
        elif not line:
            table = None
        elif table and "n = " in line:
            assert cells[0].endswith(f"n = {table['n']}")
        elif table and not line.startswith("|--"):
            row = table["systems"][cells[0]]
            shown = [f"{row[m]:.3f}" for m in ("avg", "f1", "accuracy", "recall")]
            assert cells[1:6] == [*shown, f"{row['labels_per_clip']:.2f}"], line
            if "minus_concat" in row:
                lead = row["minus_concat"]
                for cell, metric in zip(cells[6:], ("avg", "f1"), strict=True):
                    low, high = lead["ci95"][metric]
                    start = f"{lead['difference'][metric]:+.3f} [{low:+.3f}, {high:+.3f}] p "
                    p = lead["p"][metric]
                    assert cell == start + ("< 0.001" if p < 0.001 else f"{p:.3f}"), line
            checked += 1
    assert checked >= 40


def test_tables_of_the_first_results_are_the_record(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("published_outputs")
    record = json.loads((ROOT / "outputs/record/published.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs/fusion.md").read_text(encoding="utf-8")
    shown = page.partition(benchmark.BEGIN)[2].partition(benchmark.END)[0].strip()
    assert shown == "\n\n".join(benchmark.markdown(record))


def test_the_record_of_published_outputs_shows_what_is_claimed():
    record = json.loads((ROOT / "outputs/record/published.json").read_text(encoding="utf-8"))
    main = record["sets"]["all outputs and the text model"]
    rivals = set(record["transfer"]["lead_survives_all_groupings_over"])
    assert {rule.split(" ")[0] for rule in rivals} == {"concatenation", "majority", "best"}
    for grouping in ("lexicon", "ew2026"):
        found = main[grouping]
        assert found["n"] == 332
        assert found["minus"].keys() == rivals
        for lead in (*found["minus"].values(), *found["minus_constant"].values()):
            assert lead["f1"]["ci95"][0] > 0
        assert found["rules"]["calibrated fusion"]["labels_per_clip"] <= 3.5
    assert main["ew2026"]["rules"]["calibrated fusion"]["f1"] > 0.74


def test_the_record_meets_the_target():
    record = json.loads((ROOT / "outputs/record/fusion_study.json").read_text())
    row = record["sample_and_text"]
    fused, concat = (row["lexicon"]["systems"][s] for s in ("fused for F1, 5 added", "concat"))
    assert fused["minus_concat"]["p"]["avg"] < 0.05 < fused["minus_concat"]["difference"]["f1"]
    assert fused["minus_concat"]["difference"]["avg"] > 0
    assert fused["labels_per_clip"] < concat["labels_per_clip"]
    for view in ("lexicon", "lexicon_held_out"):
        six = record["sample_and_six_class"][view]["systems"]
        lead = six["fused, 5 added"]["minus_concat"]
        assert lead["p"]["avg"] < 0.05 < lead["difference"]["f1"]
        assert six["fused, 5 added"]["labels_per_clip"] < six["concat"]["labels_per_clip"]
