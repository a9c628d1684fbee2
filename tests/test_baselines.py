"""Recipes, prompts, stored outputs, combinations, published results and the one table."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from emolib import overview, published, runs, tables
from emolib.__main__ import main
from emolib.baselines import chat, joined, stored
from emolib.baselines.prompting import question
from emolib.baselines.run import run_systems
from emolib.datasets.clip import Clip
from emolib.errors import DataError, EngineError, ParamsError
from emolib.files import write_jsonl
from emolib.ledger import Ledger
from emolib.params import ModelParams, profiles
from emolib.params.baselines import Recipe
from emolib.params.loading import Source, merge
from emolib.params.stages import Baselines
from emolib.predict import Prediction
from emolib.summaries import from_text, in_english
from tests.fakes import FakeEngine
from tests.media_files import tone, write_audio, write_video
from tests.shared import shared

ROOT = Path(__file__).resolve().parents[1]
PLAIN = {"title": "A", "inputs": ["frames", "words"], "model": {"model": "x"}}


def check(recipe: dict[str, Any], **more: Any) -> Baselines:
    sources = [
        Source("p", {"profile": "p", "models": {"m": {"model": "y"}}, **more}),
        Source("a.yaml", {"recipes": {"a": recipe}}),
    ]
    return merge(Baselines, sources)


@pytest.mark.parametrize("profile", ["demo", "h200", "paper"])
def test_every_recipe_of_every_profile_is_read(profile):
    found = profiles.recipes(ROOT, profile)
    files = {f.stem for f in (ROOT / "params" / profile / "baselines").glob("*.yaml")}
    assert found.recipes.keys() == files
    assert files


def test_the_papers_five_have_recipes():
    titles = {r.title.split(" (")[0] for r in profiles.recipes(ROOT, "paper").recipes.values()}
    assert {"Video-LLaMA", "SALMONN", "mPLUG-Owl", "Qwen-Audio", "GPT-4V"} <= titles


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inptus": []}, r"a.yaml: unknown key 'recipes.a.inptus'.*did you mean 'inputs'"),
        ({"inputs": ["smell"]}, r"a.yaml: recipes.a.inputs.*'frames', 'audio' or 'words'"),
        ({"inputs": ["words", "words"]}, "names one twice"),
        ({"inputs": []}, "inputs: empty"),
        ({"use": "m"}, r"exactly one of .*not \['model', 'use'\]"),
        ({"model": None}, "not none"),
        ({"model": None, "use": "n"}, r"recipes.a.use: no model 'n': choose from \['m'\]"),
        ({"model": None, "combine": ["b", "c"], "inputs": []}, "no plain recipe 'b'"),
        ({"model": None, "combine": ["b"], "inputs": []}, "names two or more"),
        ({"interface": "affectgpt", "model": {"model": "x", "engine": "server"}}, "only"),
    ],
)
def test_a_wrong_recipe_names_file_key_and_choices(change, told):
    with pytest.raises(ParamsError, match=told):
        check({**PLAIN, **change})


def test_names_are_unique_and_parts_come_first():
    with pytest.raises(ParamsError, match="same name"):
        merge(
            Baselines,
            [
                Source("p", {"profile": "p", "models": {"a": {"model": "y"}}}),
                Source("a.yaml", {"recipes": {"a": PLAIN}}),
            ],
        )
    both = {"b": {**PLAIN, "title": "B"}, "ab": {"title": "AB", "combine": ["a", "b"]}}
    found = check(PLAIN, recipes=both, systems=["ab"])
    assert list(found.chosen()) == ["a", "b", "ab"]
    with pytest.raises(ParamsError, match="given twice"):
        check(PLAIN, recipes={"b": PLAIN})
    with pytest.raises(ParamsError, match=r"systems: no recipe 'x': choose from \['a'\]"):
        check(PLAIN, systems=["x"])


def test_a_missing_model_and_a_new_file_of_outputs_change_the_runs_key(tmp_path):
    from emolib.sources import source_hashes

    file = tmp_path / "out.csv"
    recipe = {"title": "S", "inputs": ["audio"], "file": str(file)}
    (tmp_path / "data").mkdir()
    params = check(recipe, data={"kind": "folder", "root": str(tmp_path / "data")})
    before = source_hashes(tmp_path, params)
    file.write_text("name,description\nc,He is angry.\n")
    after = source_hashes(tmp_path, params)
    assert before != after
    assert "recipe:a" in after


def test_the_question_speaks_of_what_is_there():
    all_three = question("describe", ("frames", "audio", "words")).template
    assert "facial expressions, body movements, environment, acoustic information" in all_three
    sound = question("describe", ("audio",)).template
    assert "acoustic information" in sound
    assert not any(word in sound for word in ("facial", "picture", "subtitle", "{text}"))
    own = question('Say {text} as JSON {"a": [1]}.', ("words",))
    assert own.render(text="hi") == 'Say hi as JSON {"a": [1]}.'


@pytest.fixture
def clip(tmp_path):
    video = write_video(tmp_path / "c.mp4", 30)
    sound = write_audio(tmp_path / "c.wav", tone(2.0)[None])
    return Clip("c", video, audio=sound, subtitle="Go <image> away.", labels=("angry",))


def ask(clip: Clip, tmp_path: Path, engine: FakeEngine | None = None, **recipe: Any):
    engine = engine or FakeEngine(lambda request: "He shouts. He is angry.")
    plain = Recipe(
        **{"title": "S", "inputs": ("frames",), "model": ModelParams(model="x")} | recipe
    )
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        [row] = chat.describe([clip], plain, engine, ledger)
    return row, engine


def test_a_recipe_sees_its_inputs_and_nothing_else(clip, tmp_path):
    row, engine = ask(clip, tmp_path, inputs=("audio",), seconds=1.5)
    [request] = engine.seen
    assert request.images == ()
    assert len(request.audio[0]) == 24_000
    assert (row.info["sound_s"], row.info["heard_s"]) == (2.0, 1.5)
    assert (row.labels, row.parse) == (("angry",), "lexicon")
    row, engine = ask(clip, tmp_path, inputs=("frames",), prompt="zero-shot", frames=3)
    assert len(engine.seen[0].images) == 3
    assert "picture are unknown." in engine.seen[0].prompt, "words are no input"
    row, engine = ask(clip, tmp_path, inputs=("words",), system="Be brief.")
    assert "Go ‹image> away." in engine.seen[0].prompt
    assert engine.seen[0].system == "Be brief."


def test_settings_have_answers_of_their_own_and_the_same_question_is_not_asked_twice(
    clip, tmp_path
):
    _, engine = ask(clip, tmp_path)
    for change, asked in [
        ({}, 1),
        ({"title": "another name"}, 1),
        ({"frames": 4}, 2),
        ({"sampling": "uniform"}, 3),
        ({"prompt": "caption"}, 4),
        ({"system": "s"}, 5),
        ({"inputs": ("frames", "audio")}, 6),
        ({"inputs": ("frames", "audio"), "seconds": 1.0}, 7),
    ]:
        ask(clip, tmp_path, engine, **change)
        assert len(engine.seen) == asked, change


def test_a_clip_without_the_only_input_or_gone_is_an_error_row(clip, tmp_path):
    mute = replace(clip, audio=None)
    row, engine = ask(mute, tmp_path, inputs=("audio",))
    assert row.status == "error"
    assert "has none of ['audio']" in row.error
    row, _ = ask(mute, tmp_path, inputs=("audio", "words"))
    assert row.status == "ok"
    assert row.info["absent"] == ["audio"]
    mute.video.unlink()
    row, _ = ask(mute, tmp_path, inputs=("frames",))
    assert "cannot be read" in row.error
    assert engine.seen == []


def said(name: str, labels: tuple[str, ...], error: str | None = None) -> Prediction:
    return Prediction(
        name,
        "s",
        labels,
        "" if error else "text",
        "ok",
        "error" if error else "ok",
        error,
        "",
        {"engine": "fake"},
        "stop",
        1.0,
        {},
    )


def test_joining_keeps_who_said_what_and_fails_only_with_all():
    recipe = Recipe(title="both", combine=("a", "b"))
    parts = {
        "a": [said("1", ("happy",)), said("2", (), "down"), said("3", (), "down")],
        "b": [said("3", (), "late"), said("1", ("joyful", "sad")), said("2", ("angry",))],
    }
    rows = joined.join(recipe, parts)
    assert [row.name for row in rows] == ["1", "2", "3"]
    assert rows[0].labels == ("happy", "joyful", "sad")
    assert rows[0].info["labels"] == {"a": ["happy"], "b": ["joyful", "sad"]}
    assert (rows[1].status, rows[1].labels) == ("ok", ("angry",))
    assert rows[1].info["failed"] == {"a": "down"}
    assert (rows[2].status, rows[2].error) == ("error", "a: down; b: late")
    union = joined.join(recipe.model_copy(update={"rule": "union"}), parts)
    assert union[0].labels == ("happy", "sad"), "synonyms once"
    with pytest.raises(DataError, match="'b' does not cover the same clips"):
        joined.join(recipe, {**parts, "b": parts["b"][:2]})


def test_outputs_made_elsewhere_are_predictions(tmp_path):
    clips = [Clip(n, Path(n)) for n in ("a", "b", "c")]
    file = tmp_path / "x.csv"
    file.write_text('names,chi_reasons\na,"他没有生气，推测他的情感状态为高兴。"\nb,\n')
    recipe = Recipe(title="S", inputs=("audio",), file=str(file))
    rows = stored.read(recipe, clips)
    assert [row.labels for row in rows] == [("happy",), (), ()]
    assert [row.status for row in rows] == ["ok", "ok", "error"]
    assert rows[2].error == "no row in the file"
    ours = tmp_path / "ours.jsonl"
    lines = [said("a", ("sad",)), said("b", (), "time-out"), said("c", ("高兴", "calm"))]
    ours.write_text("".join(json.dumps(row.to_json()) + "\n" for row in lines))
    rows = stored.read(recipe.model_copy(update={"file": str(ours)}), clips)
    assert [row.labels for row in rows] == [("sad",), (), ("happy", "calm")]
    assert rows[1].error == "time-out"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no rows"),
        ("clip,said\na,b\n", "needs a column of names"),
        ("name,text\na,x\na,y\n", "row 2: 'a' occurs twice"),
        ("name,text\n,x\n", "row 1: no name"),
    ],
)
def test_a_file_that_is_none_is_named(text, told, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        stored.read_rows(file)
    with pytest.raises(DataError, match="no such file"):
        stored.read_rows(tmp_path / "y.csv")


def test_line_separators_of_unicode_end_no_row(tmp_path):
    """Only line feeds part rows: models and subtitles write U+2028 and U+0085, too."""
    file = tmp_path / "x.csv"
    file.write_text("name,description\na,He is\u2028angry.\x85\nb,She smiles.\n", encoding="utf-8")
    assert {name: row["description"] for name, row in stored.read_rows(file).items()} == {
        "a": "He is\u2028angry.\x85",
        "b": "She smiles.",
    }


def test_training_rows_with_such_separators_are_one_row_each(tmp_path):
    from emolib.sft.worker import _media

    file = tmp_path / "train.jsonl"
    write_jsonl(file, [{"text": "a\u2028b", "videos": [f"{n}.mp4"]} for n in range(3)])
    assert [p.name for p in _media(["--dataset", str(file)], "videos", {2})] == ["0.mp4", "2.mp4"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("他皱着眉头。因此，推测他的情感状态为悲伤、失望。", ("sad", "disappointed")),
        ("她一开始很高兴。总体而言，她感到生气。然后她离开了房间。", ("angry",)),
        ("没有任何迹象表明他生气。", ()),
        ("他说：“我很高兴。”因此推测他很难过。", ("sad",)),
        ("[高兴, 惊讶]", ("happy", "surprised")),
        ('他笑了。["高兴"、"有点惊讶"]', ("happy", "surprised")),
        ("He laughs. Therefore he is happy.", ("happy",)),
    ],
)
def test_labels_of_chinese_and_english_answers(text, labels):
    assert from_text(text)[0] == labels


def test_unknown_chinese_words_stay_and_known_ones_become_english():
    assert in_english(("高兴", "有点难过", "哦", "calm")) == ("happy", "sad", "哦", "calm")


@pytest.mark.shared
def test_reading_real_chinese_descriptions_finds_their_emotion():
    """The human references of EMER v1: the class of at least nine in ten is among the words."""
    from emolib import scoring

    with shared("data/emer/gt-chi.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    gold = {r["names"]: [{"surprise": "surprised"}.get(r["emotions"], r["emotions"])] for r in rows}
    texts = stored.read_rows(shared("data/mllm_outputs/gt.csv"))
    found = {name: from_text(texts[name]["description"])[0] for name in gold}
    score = scoring.score(gold, found, scoring.open_grouping("lexicon"), resamples=0)
    assert score.n == 100
    assert score.recall >= 0.9
    assert score.accuracy >= 0.75


def test_published_results_are_those_printed():
    rows = {(r.table, r.system, r.input): r for r in published.published()}
    assert len(rows) == 6
    last = rows["2", "zero-shot + fine-tuned + discriminative", "whole image"]
    assert (last.n, last.accuracy, last.recall, last.avg) == (332, 0.3895, 0.8439, 0.6167)
    assert all(abs((r.accuracy + r.recall) / 2 - r.avg) < 1e-4 for r in rows.values())
    others = {r.system: r for r in published.published(None, set_name="MER2024-OV") if not r.table}
    pair = others["SALMONN + mPLUG-Owl"]
    assert (pair.f1, pair.accuracy, pair.recall) == (0.5870, 0.5177, 0.6776)
    assert pair.avg == pytest.approx(0.5977, abs=1e-4), "formed, not printed"
    assert (others["GPT-4V"].f1, others["GPT-4V"].avg) == (0.5551, None)
    for row in published.published(None):
        if row.f1 and row.accuracy and row.recall:
            made = 2 * row.accuracy * row.recall / (row.accuracy + row.recall)
            assert row.f1 == pytest.approx(made, abs=2e-3), row.system
        assert row.source
        assert row.n in (66, 332, 532, 1200)


def a_run(root: Path, stage: str, avgs: dict[str, float], **data: Any) -> Path:
    folder = root / stage
    folder.mkdir()
    constant = {"labels": ["happy"], "accuracy": 0.5, "recall": 0.3, "avg": 0.4, "f1": 0.375}
    scores = {
        name: {
            "n": 9,
            "accuracy": avg,
            "recall": avg,
            "avg": avg,
            "f1": avg,
            "labels_per_clip": 1.0,
            "ci95": {"avg": [avg - 0.1, avg + 0.1]},
            "constant_list": constant,
            "grouping": {"name": "lexicon", "version": "1"},
        }
        for name, avg in avgs.items()
    }
    (folder / "manifest.json").write_text(
        json.dumps({"format": runs.FORMAT, "stage": stage, "profile": "demo"})
    )
    (folder / "result.json").write_text(json.dumps({"scores": scores, "tables": []}))
    params = {"data": {"kind": "demo", "clips": 48, "seed": 0, **data}, "split": "test"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


def test_one_table_ranks_within_blocks_only(tmp_path):
    ours = a_run(tmp_path, "03_internvl_lora", {"InternVL": 0.3, "InternVL fine-tuned": 0.5})
    again = a_run(tmp_path, "07_fusion_analysis", {"InternVL": 0.3, "fused": 0.6})
    other = a_run(tmp_path, "08_baselines", {"GPT": 0.45})
    made = overview.overview([ours, again, other])
    rows = [dict(zip(made["columns"], row, strict=True)) for row in made["rows"]]
    block = [r for r in rows if r["set"].startswith("demo")]
    assert [(r["system"], r["kind"]) for r in block] == [
        ("fused", "ours"),
        ("InternVL fine-tuned", "ours"),
        ("GPT", "baseline"),
        ("constant list, no model", "no model"),
        ("InternVL", "ours"),
    ]
    assert {(r["n"], r["metric"], r["grouping"]) for r in block} == {(9, "Avg", "lexicon 1")}
    blocks = [(r["set"], r["n"], r["grouping"], r["metric"]) for r in rows]
    assert len({*blocks}) == sum(a != b for a, b in zip(blocks, [None, *blocks[:-1]], strict=True))
    for key in {*blocks}:
        values = [r["value"] for r, b in zip(rows, blocks, strict=True) if b == key]
        assert values == sorted(values, reverse=True)
    kinds = {b: {r["kind"] for r, c in zip(rows, blocks, strict=True) if c == b} for b in blocks}
    assert all(found == {"published"} for b, found in kinds.items() if not b[0].startswith("demo"))
    named = {r["system"] for r in rows if r["kind"] == "published"}
    assert all(any(r.system in name for name in named) for r in published.published(None))
    by_f1 = [r["system"] for r in rows if r["metric"] == "F1" and r["n"] == 332]
    assert by_f1.index("SALMONN + mPLUG-Owl, audio, frames") < by_f1.index("GPT-4V, frames")
    # The published row whose model has very likely seen the test clips is never shown without it.
    assert published.SEEN_NOTE in made["notes"]
    assert tables.published_table("t", published.published("2"))["notes"] == [published.SEEN_NOTE]
    assert "notes" not in tables.published_table("t", published.published("3"))


def test_report_prints_and_writes_the_one_table(tmp_path, monkeypatch, capsys):
    real = profiles.base_params
    monkeypatch.setattr(
        profiles,
        "base_params",
        lambda r, p: real(r, p).model_copy(update={"outputs": str(tmp_path)}),
    )
    folder = a_run(tmp_path, "08_baselines", {"GPT": 0.45})
    assert main(["report", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "Ours, baselines and published results" in text
    assert "SALMONN + mPLUG-Owl" in text
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "Ours, baselines and published results" in page
    assert runs.read_result(folder)["scores"]


def test_predict_runs_a_recipe_and_refuses_what_is_none(tmp_path, monkeypatch, capsys):
    real = profiles.base_params
    monkeypatch.setattr(
        profiles,
        "base_params",
        lambda r, p: real(r, p).model_copy(update={"outputs": str(tmp_path / "outputs")}),
    )
    video = write_video(tmp_path / "c.mp4", 12, audio=tone(0.5)[None])
    out = tmp_path / "out.jsonl"
    options = ["--system", "qwen2_audio_llava", "--out", str(out)]
    assert main(["predict", str(video), *options]) == 0
    [row] = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert row["system"].startswith("Qwen2-Audio (tiny, untrained) + LLaVA (nano")
    assert set(row["info"]["labels"]) == {"qwen2_audio", "llava_1_5"}
    assert (tmp_path / "outputs/demo/ledger/predict.jsonl").is_file()
    assert main(["predict", str(video), "--system", "gpt"]) == 2
    assert "qwen2_audio_llava" in capsys.readouterr().err
    assert main(["predict", str(video), "--labels-by", "llava"]) == 2


def test_profile_paper_ends_without_the_servers_that_nobody_ships(tmp_path, clip):
    params = profiles.resolve(ROOT, "paper", "08_baselines")
    recipes = {
        name: recipe
        for name, recipe in params.chosen().items()
        if recipe.combine or recipe.model is not None
    }
    assert {"salmonn", "mplug_owl", "qwen_audio", "salmonn_mplug_owl"} == recipes.keys()
    with Ledger(tmp_path / "ledger") as ledger:
        ran = run_systems([clip], recipes, params.models, ledger)
    ran.check(params.missing)  # does not stop
    assert ran.predictions == {}
    assert set(ran.absent) == set(recipes)
    with pytest.raises(EngineError, match="salmonn"):
        ran.check("stop")


def test_tables_of_the_docs_are_the_record():
    text = (ROOT / "docs/baselines.md").read_text(encoding="utf-8")
    record = json.loads((ROOT / "outputs/record/mllm_outputs.json").read_text(encoding="utf-8"))
    assert record["command"] in text
    blocks = re.findall(r"<!-- record: (\w+)/(\w+) -->\n(.*?)\n\n", text, re.DOTALL)
    assert len(blocks) == 3
    for where, view, table in blocks:
        found = record[where][view]
        assert f"n = {found['n']}" in table.splitlines()[0]
        for line in table.splitlines()[2:]:
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            row = found["systems"].get(name, found["best_constant_list"])
            numbers = [row[m] for m in ("accuracy", "recall", "avg", "f1")]
            assert [cells[i] for i in (0, 1, 2, 4)] == [f"{x:.3f}" for x in numbers], name
            if name in found["systems"]:
                for at, metric in ((3, "avg"), (5, "f1")):
                    low, high = row[f"ci95_{metric}"]
                    assert cells[at] == f"{low:.3f} to {high:.3f}", name
