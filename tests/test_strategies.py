"""Notebook 07's pieces: what is read, what is fused out of fold, what is explained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from emolib import scoring, strategies
from emolib.datasets.clip import Clip
from emolib.errors import DataError, LeakError, ScoreError
from emolib.params.fusion import FusionParams
from emolib.params.stages import SCHEMAS
from emolib.plots import fusion as plots
from emolib.strategies.sources import TITLES, Source
from tests.media_files import write_video
from tests.test_notebooks import ROOT, papermill

WORDS = ("happy", "sad", "angry", "surprised", "tired", "proud")
GROUPING = scoring.open_grouping("lexicon")
PARAMS = FusionParams(outer=4, inner=3)


def world(n=40, seed=0):
    """Clips, gold, and three systems: one good, one poor, one with probabilities."""
    rng = np.random.default_rng(seed)
    gold, good, poor, sure = {}, {}, {}, {}
    for k in range(n):
        true = [str(w) for w in rng.choice(WORDS, size=rng.integers(1, 3), replace=False)]
        name = f"clip{k:02d}"
        gold[name] = tuple(true)
        good[name] = tuple(w for w in true if rng.random() > 0.2)
        poor[name] = tuple(rng.choice(WORDS, size=3, replace=False))
        sure[name] = {w: 0.8 if w == true[0] else 0.1 for w in WORDS[:3]}
    first = {c: (max(table, key=table.get),) for c, table in sure.items()}
    sources = {
        "zero_shot": Source("zero_shot", "poor", poor),
        "fine_tuned": Source("fine_tuned", "good", good),
        "discriminative": Source("discriminative", "six", first, sure),
    }
    clips = [
        Clip(c, Path(f"{c}.mp4"), subtitle=f"words {k // 2}", labels=labels)
        for k, (c, labels) in enumerate(gold.items())
    ]
    return clips, gold, sources


@pytest.fixture(scope="module")
def fused():
    clips, gold, sources = world()
    done = strategies.fuse(gold, sources, PARAMS, blocks=strategies.blocks_of(clips))
    rows = {**{s.title: s.labels for s in sources.values()}, **done.labels}
    scores = {n: scoring.score(gold, x, GROUPING, resamples=200) for n, x in rows.items()}
    return clips, gold, sources, done, scores


def test_every_rule_covers_every_clip_and_ours_leads(fused):
    _, gold, _, done, scores = fused
    assert list(done.labels) == [
        *(strategies.CONCAT, "union of groups", strategies.MAJORITY),
        *("weighted vote, fitted", strategies.SINGLE, strategies.OURS),
    ]
    assert all(list(rows) == list(gold) for rows in done.labels.values())
    best = max(done.labels, key=lambda rule: scores[rule].f1)
    assert best == strategies.OURS
    assert scores[strategies.OURS].labels_per_clip < scores[strategies.CONCAT].labels_per_clip
    assert "never saw the clip" in done.note
    assert done.rows()[0] == {
        "name": "clip00",
        "system": strategies.OURS,
        "labels": done.labels[strategies.OURS]["clip00"],
    }


def test_the_gold_of_a_fold_plays_no_part_in_it(fused):
    clips, gold, sources, done, _ = fused
    fold_of = done.cross.fold_of
    poisoned = {c: ("proud", "tired") if fold_of[c] == 0 else x for c, x in gold.items()}
    again = strategies.fuse(poisoned, sources, PARAMS, blocks=strategies.blocks_of(clips))
    inside = [c for c in gold if fold_of[c] == 0]
    for rule in done.labels:
        assert all(again.labels[rule][c] == done.labels[rule][c] for c in inside), rule
    assert all(again.cross.verdicts[c] == done.cross.verdicts[c] for c in inside)
    others = [c for c in gold if fold_of[c] != 0]
    assert any(again.cross.verdicts[c] != done.cross.verdicts[c] for c in others)


def test_clips_with_the_same_words_or_group_stay_together(fused):
    clips, _, _, done, _ = fused
    fold_of = done.cross.fold_of
    assert all(
        fold_of[a.name] == fold_of[b.name] for a, b in zip(clips[::2], clips[1::2], strict=True)
    )
    grouped = [Clip("a", Path("a"), subtitle="x", group="g"), Clip("b", Path("b"), subtitle="x")]
    assert strategies.blocks_of(grouped) == {"a": "group g", "b": "words x"}
    assert strategies.blocks_of([Clip("c", Path("c"))]) == {}


def test_few_clips_mean_fewer_folds_and_nothing_to_learn_is_said():
    _, gold, sources = world(5)
    small = strategies.fuse(gold, sources, FusionParams(outer=10, inner=5))
    assert len(small.cross.fusers) == 5
    assert small.cross.fusers[0].settings.folds == 4
    wrong = {k: Source(k, s.title, {c: ("bored",) for c in gold}) for k, s in sources.items()}
    none = strategies.fuse(gold, wrong, PARAMS)
    assert none.cross is None
    assert "calibrated fusion was not fitted: 3 candidates on 3 training clips" in none.note
    assert none.best_rule == strategies.CONCAT
    assert none.rows()[0]["system"] == strategies.CONCAT
    assert none.to_json() == {"note": none.note}
    assert list(strategies.verdict_rows(gold, none)) == []
    assert strategies.verdict_table("t", list(gold), gold, none)["rows"] == []
    assert strategies.left_out(gold, wrong, PARAMS) == {}
    with pytest.raises(ScoreError, match="none of"):
        strategies.fuse(gold, {"face": sources["zero_shot"]}, PARAMS)


def test_each_system_left_out_once(fused):
    clips, gold, sources, done, _ = fused
    options = {"blocks": strategies.blocks_of(clips)}
    without = strategies.left_out(gold, sources, PARAMS, **options)
    assert list(without) == ["poor", "good", "six"]
    rest = {k: s for k, s in sources.items() if k != "fine_tuned"}
    alone = strategies.fuse(gold, rest, PARAMS, **options)
    assert without["good"] == alone.labels[strategies.OURS]
    assert without["good"] != done.labels[strategies.OURS]


def test_what_each_system_brings_adds_up(fused):
    _, gold, _, done, _ = fused
    table = strategies.system_table("t", gold, done)
    by = {row[0]: row for row in table["rows"]}
    assert by["good"][2] == 1.0  # names nothing wrong
    assert by["poor"][2] < 0.5
    assert by["six"][1] == 1.0
    assert by["good"][5] > by["poor"][5]  # kept more often


def test_every_label_is_explained_and_the_reasons_add_up(fused):
    clips, gold, _, done, scores = fused
    rows = list(strategies.verdict_rows(gold, done))
    json.dumps(rows, allow_nan=False)
    kept = {
        c: [r["label"] for r in rows if r["name"] == c and r["decision"] == "kept"] for c in gold
    }
    assert kept == done.labels[strategies.OURS]
    for row in rows:
        fuser = done.cross.fusers[row["fold"]]
        model = fuser.views[0].model
        base = model.shift + model.slope * model.intercept
        odds = np.log(row["probability"] / (1 - row["probability"]))
        assert base + sum(row["because"].values()) == pytest.approx(odds, abs=1e-9)
        assert row["name"] not in fuser.trained_on
    names = strategies.best_and_worst(scores, 6)
    gaps = {
        c: scores[strategies.OURS].columns[k, :2].sum()
        - scores[strategies.CONCAT].columns[k, :2].sum()
        for k, c in enumerate(gold)
    }
    assert gaps[names[0]] == max(gaps.values())
    assert all(gaps[c] != 0 for c in names)
    shown = [clip for clip in clips if clip.name in names]
    moved = strategies.moved_table("t", shown, gold, done, scores)
    assert [row[0] for row in moved["rows"]] == [clip.name for clip in shown]
    assert f"Of {len(gold)} clips calibrated fusion wins" in moved["notes"][0]
    why = strategies.verdict_table("t", names, gold, done)
    assert {row[2] for row in why["rows"]} <= {"kept", "dropped", "over the cap"}
    assert all(row[7] for row in why["rows"])


def test_comparisons_name_their_systems_and_impossible_ones_are_told(fused):
    _, gold, _, done, scores = fused
    pairs = strategies.pairs(done, scores)
    found, notes = strategies.compare_all(pairs, 200, 0)
    assert f"{strategies.OURS} - {strategies.CONCAT}" in found
    assert f"{strategies.OURS} - good" in found
    assert notes == []
    other = scoring.score(
        gold, done.labels["majority"], scoring.open_grouping("exact"), resamples=0
    )
    found, notes = strategies.compare_all([(other, scores["good"], "x")], 200, 0)
    assert found == {}
    assert "not compared: x: the systems were scored with different groups" in notes[0]


def test_figures_show_every_system_and_case(fused):
    clips, gold, _, done, scores = fused
    _, (left, right) = plt.subplots(1, 2)
    plots.brought(strategies.system_table("t", gold, done), left)
    assert [t.get_text() for t in left.get_yticklabels()] == ["poor", "good", "six"]
    widths = [p.get_width() for p in left.patches]
    assert sum(widths[:4]) == pytest.approx(3.0)  # groups the poor system names
    found, _ = strategies.compare_all(strategies.pairs(done, scores), 200, 0)
    plots.differences(found, right, "title")
    assert len(right.get_yticklabels()) == len(found)
    picture = np.zeros((4, 4, 3), np.uint8)
    lines = strategies.gallery_rows(clips[:2], gold, done)
    figure = plots.cases([[picture] * 2, []], ["a", "b"], lines)
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert all(who in texts for who in ("gold", "poor", strategies.OURS))
    plt.close("all")


# --- reading ---------------------------------------------------------------------------------


def write(file: Path, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def folders(tmp_path, affectgpt=("x",)):
    """Run folders of 03 to 06 with predictions of two clips."""
    plain = [{"name": c, "labels": ["sad"]} for c in "xy"]
    for name in ("lora/zero_shot", "lora/fine_tuned", "face/face"):
        write(tmp_path / f"{name}.jsonl", plain)
    six = [
        {
            "name": c,
            "labels": ["sad"],
            "probabilities": {"sad": 0.7, "happy": 0.3},
            "out_of_fold": True,
        }
        for c in "xyz"
    ]
    write(tmp_path / "six/predictions.jsonl", six)
    write(tmp_path / "six/as_published.jsonl", [{**row, "out_of_fold": False} for row in six])
    said = [{"name": c, "system": "AffectGPT-SFT", "labels": ["happy"]} for c in affectgpt]
    write(tmp_path / "gpt/predictions/01.jsonl", said)
    split = {"splits": {"train": ["y"], "test": list(affectgpt)}}
    (tmp_path / "gpt/split.json").write_text(json.dumps(split))


def cfg(tmp_path, **more):
    given = {
        "profile": "demo",
        "lora_run": str(tmp_path / "lora"),
        "face_run": str(tmp_path / "face"),
        "discriminative_run": str(tmp_path / "six"),
        "affectgpt_run": str(tmp_path / "gpt"),
        **more,
    }
    return SCHEMAS["07_fusion_analysis"].model_validate(given)


def test_reads_every_system_and_leaves_out_what_was_not_run(tmp_path):
    folders(tmp_path)
    gold = {"x": ("happy",), "y": ("sad",)}
    found = strategies.read_sources(cfg(tmp_path), gold)
    assert list(found) == list(TITLES)
    assert found["discriminative"].confidences["x"] == {"sad": 0.7, "happy": 0.3}
    assert [key for key, source in found.items() if source.seen] == ["as_published"]
    assert [key for key, source in found.items() if not source.covers(gold)] == ["affectgpt"]
    rows = strategies.spliced(found)
    assert [name for name in rows if "as published (trained on these clips)" in name]
    part, own = strategies.on_clips_of("affectgpt", found, rows, gold)
    assert part == {"x": ("happy",)}
    assert list(own) == ["AffectGPT", *rows]
    assert all(list(x) == ["x"] for x in own.values())
    (tmp_path / "face/face.jsonl").unlink()
    fewer = strategies.read_sources(cfg(tmp_path, affectgpt_run=""), gold)
    assert fewer.keys() == TITLES.keys() - {"face", "affectgpt"}
    assert strategies.on_clips_of("affectgpt", fewer, rows, gold) == ({}, {})


def test_contaminated_predictions_cannot_pass_for_clean_ones(tmp_path):
    folders(tmp_path)
    seen = (tmp_path / "six/as_published.jsonl").read_text()
    (tmp_path / "six/predictions.jsonl").write_text(seen)
    with pytest.raises(LeakError, match="predictions.jsonl: 1 clips were predicted by models"):
        strategies.read_sources(cfg(tmp_path), {"x": ("happy",)})
    folders(tmp_path, affectgpt="xy")
    with pytest.raises(LeakError, match="1 in AffectGPT's train clips"):
        strategies.read_sources(cfg(tmp_path), {"x": ("happy",), "y": ("sad",)})


def test_what_cannot_be_fused_is_named(tmp_path):
    folders(tmp_path)
    gold = {"x": ("happy",), "y": ("sad",)}
    with pytest.raises(DataError, match="'affectgpt' has no answer for 1 of 2"):
        strategies.read_sources(cfg(tmp_path, fusion={"systems": ("zero_shot", "affectgpt")}), gold)
    with pytest.raises(DataError, match=r"no 'other' in .*choose from \['AffectGPT-SFT'\]"):
        strategies.read_sources(cfg(tmp_path, affectgpt_system="other"), gold)
    write(tmp_path / "lora/zero_shot.jsonl", [{"name": "x", "labels": "sad"}])
    with pytest.raises(DataError, match="row 1: a prediction needs"):
        strategies.read_sources(cfg(tmp_path), gold)


@pytest.mark.notebook
def test_notebook_07_over_given_predictions(tmp_path):
    """The whole notebook, AffectGPT on some clips only, without any model."""
    _, gold, _ = world(12)
    (tmp_path / "data").mkdir()
    video = write_video(tmp_path / "data/clip00.mp4", 8)
    lines = ["name,labels"]
    for name, labels in gold.items():
        if name != "clip00":
            shutil.copy(video, video.with_stem(name))
        lines.append(f'{name},"{list(labels)}"')
    (tmp_path / "data/table.csv").write_text("\n".join(lines))
    rows = {name: {"name": name, "labels": list(labels)} for name, labels in gold.items()}
    said = [
        {**row, "labels": [*row["labels"][k % 2 :], "bored"]} for k, row in enumerate(rows.values())
    ]
    six = [
        {**row, "labels": row["labels"][:1], "probabilities": {row["labels"][0]: 0.6}}
        for row in rows.values()
    ]
    write(tmp_path / "lora/zero_shot.jsonl", said)
    write(tmp_path / "lora/fine_tuned.jsonl", said[::-1])
    write(tmp_path / "face/face.jsonl", [{**row, "labels": ["sad"]} for row in rows.values()])
    write(tmp_path / "six/predictions.jsonl", [{**row, "out_of_fold": True} for row in six])
    write(tmp_path / "six/as_published.jsonl", [{**row, "out_of_fold": False} for row in six])
    write(
        tmp_path / "gpt/predictions/00.jsonl", [{**r, "system": "AffectGPT-SFT"} for r in said[:5]]
    )
    (tmp_path / "gpt/split.json").write_text('{"splits": {"train": []}}')
    for stage in ("lora", "face", "six", "gpt"):
        (tmp_path / stage / "result.json").write_text("{}")
    given = {
        "data": {"kind": "folder", "root": str(tmp_path / "data"), "table": "table.csv"},
        "run_dir": str(tmp_path / "run"),
        "co_judges": [],
        "split": "",
        "resamples": 200,
        "fusion": {"outer": 3, "inner": 2},
        "lora_run": str(tmp_path / "lora"),
        "face_run": str(tmp_path / "face"),
        "discriminative_run": str(tmp_path / "six"),
        "affectgpt_run": str(tmp_path / "gpt"),
    }
    (tmp_path / "extra.yaml").write_text(json.dumps(given))
    done = papermill(
        ROOT, "07_fusion_analysis", tmp_path / "out.ipynb", "-f", str(tmp_path / "extra.yaml")
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run/result.json").read_text())
    tables = {table["title"]: table for table in result["tables"]}
    systems = [row[0] for row in tables["Table 2 (ours): systems"]["rows"]]
    assert "AffectGPT" not in systems
    both = [name for name in systems if name.startswith("zero-shot + fine-tuned + discriminative")]
    assert ["as published" in name for name in both] == [False, True]
    assert tables["On AffectGPT's test clips"]["rows"][0][:2] == ["AffectGPT", 5]
    assert strategies.OURS in [row[0] for row in tables["Table 2 (ours): fusion"]["rows"]]
    assert tables["Why"]["rows"]
    kept = [json.loads(x) for x in (tmp_path / "run/fused.jsonl").read_text().splitlines()]
    assert [row["name"] for row in kept] == list(rows)
    assert {"accuracy_recall", "systems", "cases", "missed_and_invented"} == {
        p.stem for p in (tmp_path / "run/figures").glob("*.png")
    }
