"""Official numbers, edge cases beside the official behaviour, and invariants."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolib import scoring
from emolib.errors import DataError, ScoreError
from emolib.labels import parse_labels
from emolib.scoring import reference
from emolib.scoring.cached import CachedGrouping
from emolib.scoring.grouping import ExactGrouping, MappingGrouping
from tests.shared import shared

EXACT = ExactGrouping()
DATA = Path(__file__).parent / "data"


def read(path, mode="mer2024"):
    with path.open(encoding="utf-8") as file:
        return {r["name"]: parse_labels(r["openset"], mode).labels for r in csv.DictReader(file)}


@pytest.fixture(scope="module")
def official():
    folder = shared("data/mer2024_ov")
    gold, pred = read(folder / "check-openset.csv"), read(folder / "predict-openset.csv")
    return gold, pred, scoring.open_grouping("cached", folder / "openset-synonym.zip")


@pytest.mark.shared
def test_official_numbers_to_the_last_digit(official):
    result = scoring.score(*official)
    assert result.n == 332
    assert result.accuracy == pytest.approx(0.5817771084337349, abs=2e-16)
    assert result.recall == pytest.approx(0.4977911646586346, abs=2e-16)
    assert result.avg == pytest.approx(0.5397841365461847, abs=2e-16)
    assert result.coverage == 1


@pytest.mark.shared
def test_official_numbers_per_clip(official):
    table = scoring.score(*official, resamples=0).per_clip.set_index("name")
    with (DATA / "ov_store_per_sample.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 332
    for row in rows:
        found = table.loc[row["name"], ["accuracy", "recall"]].tolist()
        assert found == [float(row["accuracy"]), float(row["recall"])], row["name"]


@pytest.mark.shared
def test_known_alternatives_on_the_same_files(official):
    gold, pred, grouping = official
    exact = scoring.score(gold, pred, EXACT, resamples=0)
    assert (exact.accuracy, exact.recall) == pytest.approx((0.2542, 0.1757), abs=5e-5)
    said = {name: labels for name, labels in pred.items() if labels}
    dropped = scoring.score(gold, said, grouping, missing="drop", resamples=0)
    assert (dropped.accuracy, dropped.recall) == pytest.approx((0.5907, 0.5054), abs=5e-5)
    assert dropped.n == 327
    assert dropped.names == {"missing_dropped": 5}


@pytest.mark.shared
def test_interval_of_the_official_numbers(official):
    result = scoring.score(*official)
    assert result.ci95["avg"] == pytest.approx([0.499, 0.580], abs=0.003)
    assert result.ci95["avg_bca"] == pytest.approx(result.ci95["avg"], abs=0.003)
    assert result.constant_list["avg"] > 0.45  # with no model at all


@pytest.mark.shared
def test_json_has_the_promised_keys(official):
    result = scoring.score(*official, resamples=200).to_json()
    assert set(result) == {
        *("n", "accuracy", "recall", "avg", "f1", "labels_per_clip", "coverage"),
        *("constant_list", "ci95", "grouping"),
    }
    assert set(result["grouping"]) == {"name", "version"}
    assert result["labels_per_clip"] == pytest.approx(2.33, abs=0.005)


# --- every edge case of the official script, its behaviour beside ours -------------------

GROUPS = "[['happy', 'joyful'], ['sad']]"


def ours(gold, pred, answer=GROUPS, mode="tolerant", **options):
    lists = {"a": parse_labels(gold, mode).labels}, {"a": parse_labels(pred, mode).labels}
    result = scoring.score(*lists, CachedGrouping({"a": answer}), resamples=0, **options)
    return result.accuracy, result.recall


@pytest.mark.parametrize("empty", ["[]", "", float("nan")])
def test_empty_prediction_scores_zero_and_stays_in_the_mean(empty):
    assert ours("['happy']", empty) == (0, 0)
    if isinstance(empty, str):
        assert reference.score_clip("['happy']", empty, GROUPS) == (0, 0)


def test_empty_gold_is_refused_or_dropped_by_name():
    with pytest.raises(ZeroDivisionError):
        reference.score_clip("[]", "['happy']", GROUPS)
    with pytest.raises(ScoreError, match=r"1 clips have no gold label \(first: 'a'\)"):
        ours("[]", "['happy']")
    gold, pred = {"a": [], "b": ["sad"]}, {"a": ["happy"], "b": ["sad"]}
    result = scoring.score(gold, pred, EXACT, empty_gold="drop", resamples=0)
    assert (result.n, result.accuracy, result.names) == (1, 1.0, {"empty_gold_dropped": 1})


def test_both_empty_is_an_empty_gold():
    assert reference.score_clip("[]", "[]", GROUPS) == (0, 0)
    with pytest.raises(ScoreError, match="no gold label"):
        ours("[]", "[]")


def test_text_without_bracket():
    with pytest.raises(IndexError):
        reference.score_clip("['happy']", "happy", GROUPS)
    assert ours("['happy']", "happy") == (1, 1)


def test_unquoted_list():
    assert reference.score_clip("['happy', 'sad']", "[happy, sad]", GROUPS) == (0, 0)
    assert ours("['happy', 'sad']", "[happy, sad]", mode="mer2024") == (0, 0)
    assert ours("['happy', 'sad']", "[happy, sad]") == (1, 1)


def test_numeric_cell_is_no_label():
    with pytest.raises(AttributeError):
        reference.score_clip("['happy']", 3, GROUPS)  # type: ignore[arg-type]
    assert parse_labels(3).status == "unparsed"
    assert ours("['happy']", 3) == (0, 0)


def test_clip_without_groups():
    cells = {"a": "['happy']", "b": "['happy']"}
    assert reference.score_files(cells, cells, {"a": GROUPS})[2] == 1  # b silently vanishes
    with pytest.raises(ScoreError, match="no groups for clip 'b'"):
        scoring.score({"b": ["happy"]}, {"b": ["happy"]}, CachedGrouping({"a": GROUPS}))


def test_groups_of_other_clips_do_no_harm():
    with pytest.raises(KeyError):
        reference.score_files({"a": "['happy']"}, {}, {"a": GROUPS, "b": GROUPS})
    assert ours("['happy']", "['joyful']") == (1, 1)
    more = CachedGrouping({"a": GROUPS, "b": GROUPS})
    assert scoring.score({"a": ["happy"]}, {"a": ["joyful"]}, more, resamples=0).avg == 1


def test_no_groups_at_all():
    with pytest.raises(ValueError, match="unpack"):
        reference.score_files({"a": "['happy']"}, {"a": "['happy']"}, {})
    with pytest.raises(ScoreError, match="no answers"):
        CachedGrouping({})


def test_duplicate_labels_collapse():
    for text in ("['happy', 'happy', 'sad']", "['happy', 'joyful', 'sad']"):
        assert reference.score_clip("['happy']", text, GROUPS) == (0.5, 1)
        assert ours("['happy']", text) == (0.5, 1)


def test_label_outside_the_groups_stands_for_itself():
    assert reference.score_clip("['shy']", "['shy']", GROUPS) == (1, 1)
    assert ours("['shy']", "['shy']") == (1, 1)
    result = scoring.score(
        {"a": ["shy", "sad"]}, {"a": ["shy"]}, CachedGrouping({"a": GROUPS}), resamples=0
    )
    assert result.coverage == pytest.approx(1 / 3)
    assert (result.coverage_gold, result.coverage_pred) == (0.5, 0)


def test_capital_letters_in_the_groups():
    answer = "[['Happy', 'Joyful']]"
    assert reference.score_clip("['happy']", "['joyful']", answer) == (0, 0)
    assert ours("['happy']", "['joyful']", answer) == (1, 1)


def test_trailing_space_in_a_label():
    assert reference.score_clip("['happy']", "['joyful ']", GROUPS) == (0, 0)
    assert ours("['happy']", "['joyful ']", mode="mer2024") == (0, 0)
    assert ours("['happy']", "['joyful ']") == (1, 1)


def test_label_in_two_groups_is_no_partition():
    answer = "[['a', 'b'], ['c', 'a']]"
    assert reference.score_clip("['b']", "['a']", answer) == (0, 0)
    with pytest.raises(ScoreError, match=r"\['a'\] in more than one group"):
        scoring.score({"x": ["b"]}, {"x": ["a"]}, CachedGrouping({"x": answer}))
    last = CachedGrouping({"x": answer}, overlap="last")  # the official rule, by name
    assert scoring.score({"x": ["b"]}, {"x": ["a"]}, last, resamples=0).avg == 0
    assert scoring.score({"x": ["c"]}, {"x": ["a"]}, last, resamples=0).avg == 1


def test_flat_list_is_one_group():
    answer = "['happy', 'joyful']"
    assert reference.score_clip("['happy']", "['joyful']", answer) == (1, 1)
    assert ours("['happy']", "['joyful']", answer) == (1, 1)


@pytest.mark.parametrize("answer", ["", "[]", "sorry", "[['happy', 'joyful'], ['sa"])
def test_empty_or_truncated_answer_is_an_error(answer):
    reference.score_clip("['happy']", "['joyful']", answer)  # scores as if nothing was wrong
    with pytest.raises(ScoreError, match="clip 'a' has an empty or broken answer"):
        ours("['happy']", "['joyful']", answer)


def test_label_with_apostrophe():
    text = '["don\'t believe"]'
    assert reference.score_clip(text, "['don']", GROUPS) == (1, 0.5)  # false credit
    assert ours(text, text) == (1, 1)
    assert ours(text, "['don']") == (0, 0)


# --- names ------------------------------------------------------------------------------


def test_missing_prediction():
    gold, pred = {"a": ["x"], "b": ["y"]}, {"a": ["x"]}
    with pytest.raises(ScoreError, match=r"1 of 2 gold clips have no prediction \(first: 'b'"):
        scoring.score(gold, pred, EXACT)
    zero = scoring.score(gold, pred, EXACT, missing="zero", resamples=0)
    assert (zero.n, zero.avg, zero.names) == (2, 0.5, {"missing_zeroed": 1})
    drop = scoring.score(gold, pred, EXACT, missing="drop", resamples=0)
    assert (drop.n, drop.avg, drop.names) == (1, 1.0, {"missing_dropped": 1})
    assert drop.to_json()["names"] == {"missing_dropped": 1}


def test_extra_prediction():
    gold, pred = {"a": ["x"]}, {"a": ["x"], "b": ["y"]}
    with pytest.raises(ScoreError, match="1 predictions have no gold clip"):
        scoring.score(gold, pred, EXACT)
    assert scoring.score(gold, pred, EXACT, extra="drop", resamples=0).names == {"extra_dropped": 1}


def test_bare_strings_and_non_strings_are_refused():
    with pytest.raises(ScoreError, match="bare string"):
        scoring.score({"a": "happy"}, {"a": ["happy"]}, EXACT)
    with pytest.raises(ScoreError, match="must be strings"):
        scoring.score({"a": ["happy"]}, {"a": [3]}, EXACT)  # type: ignore[list-item]
    with pytest.raises(ScoreError, match="None"):
        scoring.score({"a": ["happy"]}, {"a": [None]}, EXACT)  # type: ignore[list-item]


def test_nothing_to_score():
    with pytest.raises(ScoreError, match="no clip left"):
        scoring.score({}, {}, EXACT)


def test_all_predictions_empty():
    result = scoring.score({"a": ["x"], "b": ["y"]}, {"a": [], "b": []}, EXACT, resamples=50)
    assert (result.avg, result.f1, result.labels_per_clip) == (0, 0, 0)
    assert result.ci95["avg"] == result.ci95["avg_bca"] == [0, 0]


# --- cached files -------------------------------------------------------------------------


def test_pickled_answer_is_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array({"x": 1}, dtype=object))
    with pytest.raises(DataError, match=r"a\.npy: a pickled array"):
        scoring.open_grouping("cached", tmp_path)


def test_folder_zip_and_json_of_answers_are_the_same(tmp_path):
    import json
    import zipfile

    folder = tmp_path / "groups"
    folder.mkdir()
    np.save(folder / "a.npy", np.array(GROUPS))
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as archive:
        archive.write(folder / "a.npy", "groups/a.npy")
    (tmp_path / "g.json").write_text(json.dumps({"a": GROUPS}))
    paths = folder, tmp_path / "g.zip", tmp_path / "g.json"
    assert len({scoring.open_grouping("cached", path).version for path in paths}) == 1


@pytest.mark.parametrize("content", [b"", b"not numpy", b"PK\x03\x04broken"])
def test_broken_answer_files(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy"):
        scoring.open_grouping("cached", tmp_path)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip"):
        scoring.open_grouping("cached", tmp_path / "a.zip")


def test_unknown_grouping_names_the_choices():
    with pytest.raises(ScoreError, match="exact, cached, lexicon"):
        scoring.open_grouping("wordnet")
    with pytest.raises(ScoreError, match="--groups"):
        scoring.open_grouping("cached")


# --- invariants ---------------------------------------------------------------------------

LABELS = [f"w{i}" for i in range(8)]
lists = st.lists(st.sampled_from(LABELS), max_size=5)
clips = st.lists(st.tuples(lists.filter(bool), lists), min_size=1, max_size=6)
groupings = st.dictionaries(st.sampled_from(LABELS), st.sampled_from(["g", "h", "w0"]))


def numbers(pairs, grouping, order=None):
    names = [f"c{i}" for i in range(len(pairs))]
    names = names if order is None else [names[i] for i in order]
    rows = {f"c{i}": pair for i, pair in enumerate(pairs)}
    gold, pred = ({n: rows[n][side] for n in names} for side in (0, 1))
    return scoring.score(gold, pred, grouping, resamples=50)


@given(clips, groupings)
def test_scores_are_fractions(pairs, groups):
    result = numbers(pairs, MappingGrouping(groups))
    values = [result.accuracy, result.recall, result.avg, result.f1, result.coverage]
    assert all(0 <= value <= 1 for value in values)
    assert result.per_clip[["accuracy", "recall"]].stack().between(0, 1).all()
    assert min(result.accuracy, result.recall) <= result.avg + 1e-12
    best = result.constant_list
    assert 0 < best["avg"] <= 1
    assert best["avg"] >= best["same_length"]["avg"] - 1e-12


@given(clips, groupings, st.randoms())
def test_order_and_duplicates_of_labels_do_not_matter(pairs, groups, random):
    shuffled = []
    for gold, pred in pairs:
        both = [gold + random.sample(gold, 1), pred + pred[:2]]
        for labels in both:
            random.shuffle(labels)
        shuffled.append(both)
    a, b = (numbers(x, MappingGrouping(groups)) for x in (pairs, shuffled))
    assert (a.accuracy, a.recall, a.f1, a.ci95) == (b.accuracy, b.recall, b.f1, b.ci95)


@given(clips, st.data())
def test_permuting_clips_changes_nothing(pairs, data):
    order = data.draw(st.permutations(range(len(pairs))))
    a, b = numbers(pairs, EXACT), numbers(pairs, EXACT, order)
    assert a.to_json() == b.to_json()


@given(clips)
def test_singleton_groups_are_exact(pairs):
    singletons = MappingGrouping({label: label for label in LABELS})
    a, b = numbers(pairs, singletons), numbers(pairs, EXACT)
    assert (a.accuracy, a.recall, a.f1) == (b.accuracy, b.recall, b.f1)
    answer = "[" + ", ".join(f"['{label}']" for label in LABELS) + "]"
    c = numbers(pairs, CachedGrouping({f"c{i}": answer for i in range(len(pairs))}))
    assert (a.accuracy, a.recall, a.f1) == (c.accuracy, c.recall, c.f1)


@given(clips, groupings)
def test_a_wrong_label_never_raises_accuracy(pairs, groups):
    grouping = MappingGrouping(groups)
    worse = [(gold, [*pred, "no such emotion"]) for gold, pred in pairs]
    a, b = numbers(pairs, grouping), numbers(worse, grouping)
    assert b.accuracy <= a.accuracy
    assert b.recall == a.recall


@given(clips, groupings)
@settings(max_examples=40)
def test_same_numbers_as_the_official_script(pairs, groups):
    by_group: dict[str, list[str]] = {}
    for label in LABELS:
        by_group.setdefault(groups.get(label, label + "!"), []).append(label)
    answer = repr(list(by_group.values()))
    names = [f"c{i}" for i in range(len(pairs))]
    gold, pred = (dict(zip(names, side, strict=True)) for side in zip(*pairs, strict=True))
    answers = dict.fromkeys(names, answer)
    result = scoring.score(gold, pred, CachedGrouping(answers), resamples=0)
    texts = [{n: repr(labels) for n, labels in side.items()} for side in (gold, pred)]
    expected = reference.score_files(*texts, answers)
    assert (result.accuracy, result.recall, result.n) == pytest.approx(expected, abs=1e-12)


@given(clips, groupings)
@settings(max_examples=40)
def test_best_constant_list_is_what_it_says_and_is_best(pairs, groups):
    grouping = MappingGrouping(groups)
    result = numbers(pairs, grouping)
    best = result.constant_list
    replay = numbers([(gold, best["labels"]) for gold, _ in pairs], grouping)
    assert (replay.accuracy, replay.recall) == pytest.approx((best["accuracy"], best["recall"]))
    vocabulary = sorted({label for gold, _ in pairs for label in gold})
    for size in range(1, 3):
        trial = numbers([(gold, vocabulary[:size]) for gold, _ in pairs], grouping)
        assert trial.avg <= best["avg"] + 1e-12
    for_f1 = best["best_f1"]
    replay = numbers([(gold, for_f1["labels"]) for gold, _ in pairs], grouping)
    assert replay.f1 == pytest.approx(for_f1["f1"])
    rivals = [best["labels"], best["same_length"]["labels"], *([x] for x in vocabulary)]
    for labels in rivals:
        trial = numbers([(gold, labels) for gold, _ in pairs], grouping)
        assert trial.f1 <= for_f1["f1"] + 1e-9
