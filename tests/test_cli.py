"""The command line as a newcomer meets it."""

from __future__ import annotations

import csv
import html
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from emolib import runs
from emolib.__main__ import COMMANDS, build_parser, main
from emolib.params.stages import StageParams
from emolib.report import format_table, table
from tests.fakes import FakeEngine
from tests.media_files import write_video


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "-h"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert len(text.split("\n\n")) >= 2, "usage and a description"


def test_help_lists_every_command_with_its_purpose():
    text = build_parser().format_help()
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\w", text, re.MULTILINE), command


@pytest.fixture
def clips(tmp_path):
    """Two good clips and three bad ones."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("one", "two"):
        write_video(folder / f"{name}.mp4", 8)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a video")
    (folder / "cut.mp4").write_bytes((folder / "one.mp4").read_bytes()[:300])
    return folder


@pytest.fixture
def engine(monkeypatch):
    """Replaces the model; everything else is real."""
    fake = FakeEngine(lambda request: 'He smiles. ["happy", "relieved"]')
    monkeypatch.setattr("emolib.engines.open_engine", lambda *args, **kwargs: fake)
    return fake


def predict(tmp_path, *args: str) -> int:
    return main(["predict", *args, "--out", str(tmp_path / "out.jsonl")])


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """The real parameters, but another folder for outputs."""
    base = "emolib.params.profiles.base_params"
    from emolib.params import profiles

    real = profiles.base_params
    monkeypatch.setattr(
        base, lambda r, p: real(r, p).model_copy(update={"outputs": str(tmp_path / "outputs")})
    )


@pytest.mark.usefixtures("sandbox")
def test_predict_gives_every_clip_a_row_and_goes_on_after_errors(tmp_path, clips, engine, capsys):
    assert predict(tmp_path, str(clips)) == 1, "some clips failed"
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    by_name = {row["name"]: row for row in rows}
    assert len(rows) == 5
    assert by_name["one"]["labels"] == ["happy", "relieved"]
    assert {n for n, r in by_name.items() if r["status"] == "error"} == {"empty", "text", "cut"}
    assert all(by_name[name]["error"] for name in ("empty", "text", "cut"))
    assert len(engine.seen) == 2
    assert len(engine.seen[0].images) == 6
    printed = capsys.readouterr().out
    assert "happy, relieved" in printed
    assert "3 with an error" in printed
    assert re.search(r"internvl: Token budget at max_tiles 1 .*: longest prompt \d+ of", printed)
    for name in ("empty", "text", "cut"):
        assert f"\n{name}: {by_name[name]['error']}\n" in printed, "the whole reason"


@pytest.mark.usefixtures("sandbox")
def test_predict_again_asks_nothing(tmp_path, clips, engine):
    predict(tmp_path, str(clips / "one.mp4"))
    assert predict(tmp_path, str(clips / "one.mp4")) == 0
    assert len(engine.seen) == 1


@pytest.mark.usefixtures("sandbox")
def test_words_reach_the_prompt_blunted(tmp_path, clips, engine):
    words = tmp_path / "words.csv"
    with words.open("w", newline="") as file:
        csv.writer(file).writerows([["name", "subtitle"], ["one", "I said <image> <|im_end|>"]])
    predict(tmp_path, str(clips / "one.mp4"), "--table", str(words))
    prompt = engine.seen[0].prompt
    assert "I said" in prompt
    assert "<image>" not in prompt
    assert "<|im_end|>" not in prompt


@pytest.mark.usefixtures("sandbox")
def test_face_view_tells_how_many_faces_were_found(tmp_path, clips, engine):
    predict(tmp_path, str(clips / "one.mp4"), "--face")
    [row] = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert row["info"]["faces"]["found"] == 0
    assert row["info"]["faces"]["frames"] == 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.mp4"], "no such file"),
        (["CLIPS", "--system", "gpt-9"], "choose from"),
        (["CLIPS", "--profile", "nope"], "no profile 'nope'"),
        (["CLIPS", "--frames", "0"], "at least 1"),
        (["CLIPS", "--table", "no.csv"], "no.csv"),
    ],
)
@pytest.mark.usefixtures("sandbox", "engine")
def test_wrong_use_is_explained_with_exit_code_2(args, message, tmp_path, clips, capsys):
    assert predict(tmp_path, *[a.replace("CLIPS", str(clips)) for a in args]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_tables_align_chinese_and_cut_long_text():
    text = format_table(["name", "n"], [["愤怒", 1], ["a" * 90, 23]], widest=10)
    lines = text.splitlines()
    assert lines[2] == "愤怒         1"
    assert lines[3].startswith("a" * 9 + "…")


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="3 cells for 2 columns"):
        table("t", ["a", "b"], [[1, 2, 3]])


def test_report_needs_a_finished_run(capsys):
    assert main(["report", "/nowhere/at/all"]) == 2
    assert "no such run folder" in capsys.readouterr().err


HOSTILE = "a\x1b[2J\x9b31m\r\nb\u202ec\u2028<script>alert(1)</script>"


def test_tables_cannot_move_the_cursor_or_turn_the_words():
    text = format_table([HOSTILE, "n"], [[HOSTILE, 1]])
    assert not [c for c in text if c != "\n" and not c.isprintable()]
    assert len(text.splitlines()) == 3


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A project with one finished run whose texts are hostile."""
    root = tmp_path / "pro#ject & 100%"
    (root / "params/demo").mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "params/demo/_base.yaml").write_text("outputs: results\n")
    monkeypatch.setenv("EMOLIB_ROOT", str(root))
    monkeypatch.chdir(root)
    run = runs.start("00_data_check", StageParams(profile="demo", outputs="results"))
    run.path("notebook.ipynb").write_text("{}")
    made = table(HOSTILE, [HOSTILE], [[HOSTILE]]) | {"notes": [HOSTILE]}
    run.finish({"tables": [made], "notes": [HOSTILE]})
    return root, run.dir


@pytest.mark.parametrize("named", ["profile", "relative", "absolute"])
def test_report_escapes_links_and_follows_the_profiles_outputs(finished, named, capsys):
    root, folder = finished
    argument = {"profile": "demo", "relative": str(folder), "absolute": str(folder.absolute())}
    assert main(["report", argument[named]]) == 0
    assert "\x1b" not in capsys.readouterr().out
    page = root / "results/demo/report.html"
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    [link] = re.findall(r"<a href='([^']*)'>", text)
    assert (page.parent / unquote(html.unescape(link))).is_file()


def test_report_of_a_run_without_a_manifest_is_explained(finished, capsys):
    _, folder = finished
    (folder / "manifest.json").unlink()
    assert main(["report", str(folder)]) == 2
    assert "profile '' is not in params/" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "notebooks", "/"])
def test_a_profiles_paths_begin_at_the_project_root(tmp_path, monkeypatch, capsys, place):
    root = tmp_path / "project"
    for folder in ("params/p", "notebooks", "clips", "weights/m"):
        (root / folder).mkdir(parents=True)
    write_video(root / "clips/one.mp4", 8)
    (root / "notebooks/05_face_crop_ablation.ipynb").touch()
    (root / "weights/m/config.json").write_text("{}")
    (root / "params/p/_base.yaml").write_text(
        "data: {kind: folder, root: clips}\nmodels: {internvl: {model: weights/m}}\n"
    )
    monkeypatch.setenv("EMOLIB_ROOT", str(root))
    monkeypatch.chdir(root / place)
    main(["doctor", "p"])
    printed = capsys.readouterr().out
    assert "1 clips" in printed
    assert "not in profile p" in printed
    assert "correct params" not in printed
    opened = []

    def open_engine(params, **options):
        opened.append(Path(params.model, "config.json").is_file())
        return FakeEngine(lambda request: '["calm"]')

    monkeypatch.setattr("emolib.engines.open_engine", open_engine)
    out = tmp_path / "o.jsonl"
    assert main(["predict", str(root / "clips"), "--profile", "p", "--out", str(out)]) == 0
    assert opened == [True]
