"""The six-class model: published sizes, folds, no leak, calibration, scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from emolib.datasets.clip import Clip
from emolib.errors import DataError, LeakError
from emolib.features.table import FeatureTable
from emolib.features.words import count_table
from emolib.models.discriminative import measures, report
from emolib.models.discriminative.classes import CLASSES, class_of_labels, classes_of_clips
from emolib.models.discriminative.corpus import Corpus, corpus_of, open_clips
from emolib.models.discriminative.ensemble import Ensemble
from emolib.models.discriminative.fitting import class_weights, draw_space, fit_network
from emolib.models.discriminative.folds import inner_split, make_folds
from emolib.models.discriminative.networks import AttentionFusion, LowRankFusion, parameter_count
from emolib.models.discriminative.protocol import as_published, fit, out_of_fold
from emolib.params.discriminative import ClassifierParams, ProtocolParams
from emolib.params.schemas import DataParams
from emolib.params.stages import DiscriminativeModel

WIDTHS = [1024, 5120, 768]
QUICK = ClassifierParams(hidden=16, epochs=12, patience=4, learning_rate=1e-2)
LINEAR = ClassifierParams(kind="linear", strengths=(0.3, 3.0))
PROTOCOL = ProtocolParams(folds=3, inner=0.25)


def corpus(
    n: int = 90,
    signal: float = 1.5,
    unlabelled: int = 0,
    seed: int = 0,
    groups: int = 0,
    wide: int = 5,
) -> Corpus:
    """Clips of three classes with a visible signal in two of three modalities."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3)
    tables = []
    for number, modality in enumerate(("audio", "visual", "text")):
        width = wide + number
        centres = rng.normal(size=(3, width)) * (signal if number < 2 else 0)
        values = (centres[y] + rng.normal(size=(n, width))).astype(np.float32)
        missing = np.zeros(n, dtype=bool)
        tables.append(FeatureTable(f"f{number}", modality, values, None, missing))
    y = y.astype(np.int64)
    y[n - unlabelled :] = -1
    owner = tuple(f"g{k % groups}" if groups else "" for k in range(n))
    names = tuple(f"clip{k}" for k in range(n))
    return Corpus(names, tuple(tables), y, owner, CLASSES[:3])


@pytest.mark.parametrize(("hidden", "count"), [(64, 488_777), (128, 1_067_657), (256, 2_495_753)])
def test_attention_has_the_published_parameter_count(hidden, count):
    assert parameter_count(AttentionFusion(WIDTHS, hidden, 0.3)) == count


def test_unnormalised_attention_is_the_weighted_sum_of_raw_scores():
    network = AttentionFusion([4, 3], 8, 0.5, normalise=False).eval()
    inputs = [torch.randn(5, 4), torch.randn(5, 3)]
    states = [e(x) for e, x in zip(network.encoders, inputs, strict=True)]
    scores = network.scores(network.attention(torch.cat(states, dim=1)))
    fused = scores[:, :1] * states[0] + scores[:, 1:] * states[1]
    torch.testing.assert_close(network(inputs, [None] * 2)[0], network.classes(fused))
    network.normalise = True
    share = scores.softmax(dim=1)
    fused = share[:, :1] * states[0] + share[:, 1:] * states[1]
    torch.testing.assert_close(network(inputs, [None] * 2)[0], network.classes(fused))


def test_low_rank_fusion_is_the_full_outer_product():
    network = LowRankFusion([4, 3], 6, 0.0, rank=2).eval()
    inputs = [torch.randn(5, 4), torch.randn(5, 3)]
    states = [e(x) for e, x in zip(network.encoders, inputs, strict=True)]
    one = [torch.cat([s, torch.ones(5, 1)], dim=1) for s in states]
    outer = torch.einsum("bi,bj->bij", *one)
    weight = torch.einsum("r,rio,rjo->ijo", network.weights, *network.factors)
    fused = torch.einsum("bij,ijo->bo", outer, weight) + network.bias
    torch.testing.assert_close(
        network(inputs, [None] * 2)[0], network.classes(fused), atol=1e-4, rtol=1e-4
    )


def test_padding_of_a_sequence_changes_nothing():
    network = AttentionFusion([4], 8, 0.3, sequences=[True]).eval()
    x, n = torch.randn(2, 6, 4), torch.tensor([6, 3])
    padded = torch.cat([x, torch.randn(2, 5, 4)], dim=1)
    torch.testing.assert_close(network([x], [n])[0], network([padded], [n])[0])


def test_dropout_takes_the_stated_share_and_keeps_the_mean():
    layer = AttentionFusion([4], 8, 0.3).encoders[0].layers[0].train()
    out = layer(torch.ones(400, 400))
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(torch.ones(3)), torch.ones(3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=12, max_size=80),
    st.integers(2, 4),
    st.integers(0, 99),
)
def test_folds_never_split_a_group_and_use_every_fold(rows, k, seed):
    classes = [c for c, _ in rows]
    groups = [f"g{g}" if g < 8 else "" for _, g in rows]
    if len(set(groups) - {""}) + groups.count("") < k:
        with pytest.raises(DataError, match="cannot make"):
            make_folds(classes, groups, k, seed)
        return
    folds = make_folds(classes, groups, k, seed)
    assert set(folds) == set(range(k))
    for group in set(groups) - {""}:
        assert len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1
    np.testing.assert_array_equal(folds, make_folds(classes, groups, k, seed))


def test_folds_of_single_clips_are_stratified_to_one_clip():
    classes = ["a"] * 50 + ["b"] * 23 + ["c"] * 9
    folds = make_folds(classes, [""] * len(classes), 5, seed=3)
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 2
    for one in "abc":
        counts = np.bincount(folds[np.array(classes) == one], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(folds, make_folds(classes, [""] * 82, 5, seed=4))


def test_inner_split_has_its_share_and_whole_groups():
    groups = [f"g{k // 4}" for k in range(200)]
    held = inner_split([k % 3 for k in range(200)], groups, 0.15, seed=0)
    assert 0.1 <= held.mean() <= 0.2
    assert all(held[k] == held[k - k % 4] for k in range(200))


@pytest.mark.parametrize("params", [QUICK, LINEAR], ids=["attention", "linear"])
def test_learns_what_there_is_and_nothing_where_nothing_is(params):
    gold = corpus().y
    good = out_of_fold(corpus(), params, PROTOCOL)
    assert np.mean(good.table.argmax(axis=1) == gold) > 0.75
    noise = out_of_fold(corpus(n=300, signal=0.0), params, PROTOCOL)
    hits = np.mean(noise.table.argmax(axis=1) == corpus(n=300, signal=0.0).y)
    assert hits < 1 / 3 + 4 * np.sqrt(2 / 9 / 300)


@pytest.mark.parametrize(
    "params",
    [QUICK, QUICK.model_copy(update={"search": 2, "epochs": 4}), LINEAR],
    ids=["attention", "search", "linear"],
)
def test_a_clips_own_label_cannot_change_its_prediction(params):
    data = corpus()
    folds = make_folds(data.y.tolist(), data.groups, 3, 0)
    clean = out_of_fold(data, params, PROTOCOL, folds=folds)
    y = data.y.copy()
    fold = np.flatnonzero(folds == 1)
    y[fold] = (y[fold] + 1) % 3
    poisoned = out_of_fold(replace(data, y=y), params, PROTOCOL, folds=folds)
    np.testing.assert_array_equal(clean.table[fold], poisoned.table[fold])
    rest = np.flatnonzero(folds != 1)
    assert np.abs(clean.table[rest] - poisoned.table[rest]).max() > 0.01


def test_as_published_does_depend_on_the_clips_own_label_and_says_so():
    data = corpus(signal=0.0, wide=60)
    params = LINEAR.model_copy(update={"strengths": (30.0,)})
    leaked = as_published(data, params, PROTOCOL)
    honest = out_of_fold(data, params, PROTOCOL)
    hits = [np.mean(p.table.argmax(axis=1) == data.y) for p in (leaked, honest)]
    assert hits[0] > hits[1] + 0.5
    assert leaked.leaked == 90
    assert not leaked.out_of_fold
    assert "trained on these clips" in leaked.system
    assert (honest.leaked, honest.out_of_fold) == (0, True)
    row = leaked.rows(data)[0]
    assert row["out_of_fold"] is False
    assert "as published" in row["system"]


def test_the_guard_stands_before_every_prediction():
    data = corpus()
    index = data.labelled[:60]
    model = fit(data, index, LINEAR, 0.25, 0)
    ensemble = Ensemble([model], {"training": [data.names[k] for k in index]})
    assert ensemble.predict(data, data.labelled[60:]).shape == (30, 3)
    with pytest.raises(LeakError, match="1 of 31 evaluation clips were in training"):
        ensemble.predict(data, data.labelled[59:])


def test_groups_of_the_corpus_never_meet_their_own_model():
    data = corpus(groups=6)
    found = out_of_fold(data, LINEAR, PROTOCOL)
    for group in set(data.groups):
        own = [f for f, g in zip(found.fold, data.groups, strict=True) if g == group]
        assert len(set(own)) == 1


def test_same_seed_same_bytes_other_seed_other_folds():
    data = corpus()
    one, two = (out_of_fold(data, QUICK, PROTOCOL, seed=5) for _ in range(2))
    assert one.table.tobytes() == two.table.tobytes()
    other = out_of_fold(data, QUICK, PROTOCOL, seed=6)
    assert not np.array_equal(one.fold, other.fold)


def test_unlabelled_clips_are_predicted_and_pseudo_labels_are_used():
    data = corpus(n=120, unlabelled=40)
    plain = out_of_fold(data, LINEAR, PROTOCOL)
    assert (plain.fold[80:] == -1).all()
    np.testing.assert_allclose(plain.table.sum(axis=1), 1)
    pseudo = LINEAR.model_copy(update={"pseudo_threshold": 0.8})
    found = out_of_fold(data, pseudo, PROTOCOL)
    counts = [model["pseudo_labelled"] for model in found.runs[0]["models"]]
    assert 0 < min(counts) <= max(counts) <= 40
    assert np.abs(found.table - plain.table).max() > 1e-6
    assert (data.y[80:] == -1).all()


def test_pseudo_labels_without_unlabelled_clips_are_refused():
    wanted = LINEAR.model_copy(update={"pseudo_threshold": 0.8})
    with pytest.raises(DataError, match="pseudo_threshold is above 0, but every clip has a class"):
        out_of_fold(corpus(n=30), wanted, PROTOCOL)


def test_the_unlabelled_set_comes_without_its_labels(tmp_path):
    data = DataParams(kind="folder", root=str(tmp_path / "a"))
    more = DataParams(kind="folder", root=str(tmp_path / "b"), table="table.csv")
    for folder, name in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.mp4").touch()
    (tmp_path / "b/table.csv").write_text("name,labels\ntwo,\"['happy']\"\n")
    labelled, further = open_clips(data, more, tmp_path)
    assert [c.name for c in labelled] == ["one"]
    assert [(c.name, c.labels) for c in further] == [("two", None)]
    assert open_clips(data, None, tmp_path)[1] == []
    with pytest.raises(DataError, match="1 clips of the unlabelled set are in the labelled one"):
        open_clips(more, more, tmp_path)


def test_valence_is_predicted_out_of_fold():
    data = corpus(n=80, unlabelled=8)
    valence = data.y.clip(0) - 1.0 + np.random.default_rng(0).normal(0, 0.2, 80)
    valence[:5] = np.nan
    data = replace(data, valence=valence)
    wanted = QUICK.model_copy(update={"valence_weight": 1.0})
    protocol = PROTOCOL.model_copy(update={"repeats": 2})
    found = out_of_fold(data, wanted, protocol)
    [table] = report.valence_tables(data, {"p": found})
    (_, n, seen, rmse, r, ccc), mean = table["rows"]
    assert (n, seen) == (67, 0)
    assert rmse < mean[3]
    assert min(r, ccc) > 0.6
    assert found.rows(data)[79]["valence"] == pytest.approx(found.valence[79], abs=1e-4)
    once = out_of_fold(data, wanted, PROTOCOL)
    inside = once.fold == 0
    poisoned = replace(data, valence=np.where(inside, 50.0, valence))
    again = out_of_fold(poisoned, wanted, PROTOCOL)
    np.testing.assert_array_equal(again.valence[inside], once.valence[inside])
    assert np.abs(again.valence - once.valence).max() > 1
    seen = as_published(data, wanted, PROTOCOL)
    assert seen.valence is not None
    assert report.valence_tables(data, {"p": out_of_fold(data, QUICK, PROTOCOL)}) == []
    clips = [Clip("a", Path("a"), valence=2.5), Clip("b", Path("b"))]
    table = FeatureTable("f", "audio", np.zeros((2, 1)), None, np.zeros(2, bool))
    known = corpus_of(clips, [table], {})
    np.testing.assert_array_equal(known.valence, [2.5, np.nan])


def test_valence_scores_of_known_cases():
    gold = np.array([-1.0, 0.0, 1.0])
    assert measures.valence_scores(gold, gold) == pytest.approx((0, 1, 1))
    assert measures.valence_scores(gold, gold + 1) == pytest.approx((1, 1, 4 / 7))
    rmse, r, ccc = measures.valence_scores(gold, np.zeros(3))
    assert (r, ccc) == (None, 0.0)
    assert rmse == pytest.approx(np.sqrt(2 / 3))


def test_repeats_are_averaged_and_each_is_reported():
    data = corpus()
    runs = out_of_fold(data, LINEAR, PROTOCOL.model_copy(update={"repeats": 3})).runs
    assert len(runs) == 3
    assert all(0.5 < run["accuracy"] <= 1 for run in runs)


def test_a_clip_without_any_feature_is_an_error_row():
    data = corpus()
    for table in data.tables:
        table.missing[4] = True
    rows = out_of_fold(data, LINEAR, PROTOCOL).rows(data)
    assert (rows[4]["status"], rows[4]["labels"]) == ("error", [])
    assert rows[5]["status"] == "ok"
    assert rows[5]["labels"][0] == max(rows[5]["probabilities"], key=rows[5]["probabilities"].get)
    assert sum(rows[5]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["attention", "attention_topn", "lmf"])
def test_every_network_takes_frames_and_valence(kind):
    data = corpus(n=60)
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 6, size=60)
    steps = np.repeat(data.tables[0].values[:, None], 5, axis=1)
    frames = FeatureTable("seq", "audio", steps, lengths, np.zeros(60, bool))
    valence = data.y - 1.0
    valence[:10] = np.nan
    data = replace(data, tables=(*data.tables, frames), valence=valence)
    params = QUICK.model_copy(update={"kind": kind, "valence_weight": 0.5, "epochs": 20})
    model = fit_network(data, np.arange(45), np.arange(45, 60), params, 0)
    assert len(model.inputs) == 4
    assert np.mean(model.logits(data, np.arange(60)).argmax(axis=1) == data.y) > 0.6


def test_attention_joins_features_of_one_modality_and_topn_does_not():
    data = corpus(n=60)
    data = replace(data, tables=(*data.tables, replace(data.tables[0], name="more")))
    sizes = {}
    for kind in ("attention", "attention_topn"):
        params = QUICK.model_copy(update={"kind": kind, "epochs": 1})
        sizes[kind] = len(fit_network(data, np.arange(45), np.arange(45, 60), params, 0).inputs)
    assert sizes == {"attention": 3, "attention_topn": 4}


def test_sparse_counts_are_for_the_linear_model():
    words = ("ja", "nein", "vielleicht")
    data = corpus(n=60)
    table = count_table("n", [words[k] for k in data.y], 64)
    data = replace(data, tables=(table,))
    found = out_of_fold(data, LINEAR, PROTOCOL)
    assert (found.table.argmax(axis=1) == data.y).all()
    with pytest.raises(DataError, match="linear model alone"):
        out_of_fold(data, QUICK, PROTOCOL)


def test_search_draws_from_the_published_space_without_repeats():
    draws = draw_space(ClassifierParams(search=24), 0)
    assert len({(d.hidden, d.dropout, d.learning_rate) for d in draws}) == 24
    assert draw_space(QUICK, 0) == [QUICK]


def test_class_weights_have_mean_one_over_the_clips():
    y = np.array([0] * 6 + [1] * 3 + [2])
    weights = class_weights(y, 4)
    assert weights[3] == 0
    assert weights[y].mean() == pytest.approx(1)
    assert weights[2] == pytest.approx(6 * weights[0])


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_is_recovered_and_helps_on_other_clips(true):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(8000, 6)) * 2
    gumbel = rng.gumbel(size=honest.shape)
    gold = (honest + gumbel).argmax(axis=1)
    stated = honest * true
    found = measures.fit_temperature(stated[:4000], gold[:4000])
    assert found == pytest.approx(true, rel=0.1)
    before, after = (measures.nll(stated[4000:], gold[4000:], t) for t in (1.0, found))
    assert after < before or true == 1.0


def test_calibrated_networks_are_likelier_on_held_out_clips():
    data = corpus(n=240, signal=0.6)
    params = QUICK.model_copy(update={"epochs": 40, "patience": 40, "hidden": 64, "dropout": 0.0})
    gaps = []
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(240)
        model = fit_network(data, order[:120], order[120:180], params, seed)
        logits, gold = model.logits(data, order[180:]), data.y[order[180:]]
        gaps.append(measures.nll(logits, gold) - measures.nll(logits, gold, model.temperature))
    assert np.mean(gaps) > 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_metrics_are_those_of_scikit_learn(pairs):
    gold, predicted = (np.array(side) for side in zip(*pairs, strict=True))
    found = measures.class_score(gold, predicted, 4, resamples=20)
    assert found.values["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    expected = f1_score(gold, predicted, average="weighted", zero_division=0)
    assert found.values["weighted_f1"] == pytest.approx(expected)
    uar = recall_score(gold, predicted, labels=np.unique(gold), average="macro", zero_division=0)
    assert found.values["uar"] == pytest.approx(uar)
    np.testing.assert_array_equal(
        found.confusion, confusion_matrix(gold, predicted, labels=range(4))
    )
    low, high = found.ci95["accuracy"]
    assert 0 <= low <= high <= 1


def test_chance_test_tells_skill_from_luck():
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 6, 200)
    luck = rng.permutation(gold)
    skill = np.where(rng.random(200) < 0.3, gold, luck)
    assert measures.chance_p(gold, skill, 6, permutations=499)["uar"] == 1 / 500
    assert measures.chance_p(gold, luck, 6, permutations=499)["uar"] > 0.05


def test_reliability_of_honest_probabilities():
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(4), size=20_000)
    gold = (np.cumsum(table, axis=1) < rng.random((20_000, 1))).sum(axis=1)
    curve = measures.reliability(table, gold)
    assert curve.ece < 0.02
    sharp = table**4 / (table**4).sum(axis=1, keepdims=True)
    assert measures.reliability(sharp, gold).ece > 0.1


def test_labels_become_classes_by_the_first_that_has_one():
    assert class_of_labels(["curious", "terrified", "happy"]) == "worried"
    assert class_of_labels(["furious"]) == "angry"
    assert class_of_labels(["serene", "sad"]) == "neutral"
    assert class_of_labels(["zzz"]) is None


def test_demo_classes_are_the_latent_cores():
    from emolib.datasets.demo.world import CORES

    core_class = {"afraid": "worried", "disgusted": "angry", "calm": "neutral"}
    core_class["surprised"] = "surprise"
    exceptions = {"unhappy"}  # the lexicon counts it as anger
    for core, states in CORES.items():
        for word in (w for state in states for w in state.words if w not in exceptions):
            assert class_of_labels([word]) == core_class.get(core, core), word


def test_class_file_is_read_strictly(tmp_path):
    clips = [Clip(name, tmp_path / "x.mp4", group="g") for name in ("a", "b", "c")]
    file = tmp_path / "label-disdim.csv"
    file.write_text("name,discrete\na,happy\nb,sad\n")
    assert classes_of_clips(clips, file) == {"a": "happy", "b": "sad"}
    for text, match in [
        ("name,discrete\na,joy\n", "line 2: class 'joy'"),
        ("name,discrete\na,sad\na,sad\n", "given twice"),
        ("name,x\na,sad\n", "needs the columns"),
    ]:
        file.write_text(text)
        with pytest.raises(DataError, match=match):
            classes_of_clips(clips, file)
    with pytest.raises(DataError, match="not one of 3 clips"):
        classes_of_clips(clips)
    table = FeatureTable("f", "text", np.zeros((3, 2), np.float32), None, np.zeros(3, bool))
    made = corpus_of(clips, [table], {"a": "happy", "b": "sad"}, by_group=False)
    assert made.y.tolist() == [2, 3, -1]
    assert made.groups == ("", "", "")


def test_corpus_refuses_what_does_not_fit():
    data = corpus()
    with pytest.raises(DataError, match="same name"):
        replace(data, names=("x",) * 90)
    with pytest.raises(DataError, match="90 clips, but features"):
        replace(data, y=data.y[:5])
    with pytest.raises(DataError, match="fewer than two classes"):
        out_of_fold(replace(data, y=np.zeros_like(data.y)), LINEAR, PROTOCOL)


def test_the_notebooks_tables_mark_the_leak():
    data = corpus(n=60, unlabelled=6)
    params = DiscriminativeModel.model_validate(
        {
            "profile": "demo",
            "features": [{"kind": "voice"}],
            "classifier": {"hidden": 8, "epochs": 2},
            "protocol": {"folds": 2},
        }
    )
    found = report.predict_all(data, params)
    assert list(found) == ["predictions.jsonl", "baseline.jsonl", "as_published.jsonl"]
    scores = report.scores(data, found, 50, 0)
    seen = {p.system: p.leaked for p in found.values()}
    made = report.class_table("t", scores, seen)
    assert [row[2] for row in made["rows"]] == [0, 0, 54, 0]
    assert "leak" in made["notes"][-1]
    assert all(len(row) == len(made["columns"]) for row in made["rows"])
    paired = report.paired_table(data, found, 0)
    assert {row[0] for row in paired["rows"]} == {"attention - linear"}
    assert len(report.repeats_table(found)["rows"]) == 3
    assert report.feature_overview(data)["rows"][0][2] == 5


def test_figures_show_every_system_and_class():
    from matplotlib.figure import Figure

    from emolib.plots import discriminative as plots

    data = corpus(n=60)
    found = {"a": out_of_fold(data, LINEAR, PROTOCOL, system="a system")}
    scores = report.scores(data, found, 50, 0)
    [panel] = plots.confusion_matrices(scores, data.classes).axes
    assert sum(int(text.get_text()) for text in panel.texts) == 60
    axes = Figure().subplots(1, 3)
    assert len(plots.class_f1(scores, data.classes, axes[0]).patches) == 3
    dots = plots.interval_dots(scores, "accuracy", axes[1])
    assert [tick.get_text() for tick in dots.get_yticklabels()] == ["a system"]
    curve = report.reliabilities(data, found)
    assert "a system" in plots.calibration(curve, axes[2]).get_legend().get_texts()[0].get_text()
