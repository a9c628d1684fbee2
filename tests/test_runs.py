"""Run folders: complete or not, never half; the same inputs give the same identity."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from emolib import runs
from emolib.errors import DataError, RunError
from emolib.files import write_atomic, write_json, write_jsonl
from emolib.params.schemas import Decoding, ModelParams
from emolib.params.stages import CaptionFilter, StageParams

HOLD = """
import sys
from emolib import runs
from emolib.params.stages import StageParams
run = runs.start("s", StageParams(profile="p", outputs=sys.argv[1], run_dir=sys.argv[2]))
print("holding", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def params(tmp_path):
    return StageParams(profile="p", outputs=str(tmp_path))


def test_finished_run_has_everything(params):
    run = runs.start("s", params)
    run.path("rows.jsonl").write_text("{}\n")
    run.finish({"n": 3}, [run.path("rows.jsonl")])
    result = runs.read_result(run.dir)
    assert result["n"] == 3
    assert len(result["files"]["rows.jsonl"]) == 64
    manifest = runs.read_manifest(run.dir)
    assert manifest["status"] == "success"
    assert manifest["versions"]["emolib"]
    assert manifest["peak_memory_mb"] > 0
    assert (run.dir / "params.yaml").is_file()


def test_finished_run_is_never_changed(params):
    run = runs.start("s", params)
    run.finish({})
    with pytest.raises(RunError, match="never changed"):
        run.finish({})
    with pytest.raises(RunError, match="never changed"):
        runs.start("s", params.model_copy(update={"run_dir": str(run.dir)}))


def test_unfinished_run_cannot_be_read(params):
    run = runs.start("s", params)
    with pytest.raises(RunError, match="not finished"):
        runs.read_result(run.dir)


def test_nan_never_reaches_a_result(params):
    run = runs.start("s", params)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.finish({"avg": float("nan")})
    assert not runs.is_finished(run.dir)


def test_key_depends_on_params_inputs_and_notebook_but_not_on_places(params):
    key = runs.run_key("s", params, {"in": "aa"}, "code")
    moved = params.model_copy(update={"outputs": "elsewhere", "run_dir": "x"})
    assert runs.run_key("s", moved, {"in": "aa"}, "code") == key
    other = params.model_copy(update={"seed": 5})
    assert runs.run_key("s", other, {"in": "aa"}, "code") != key
    assert runs.run_key("s", params, {"in": "bb"}, "code") != key
    assert runs.run_key("s", params, {"in": "aa"}, "other") != key


def test_where_an_input_lies_is_no_part_of_the_key():
    def key(captions: str) -> str:
        made = CaptionFilter(profile="p", captions=captions, judge="a", models={"a": A})
        return runs.run_key("s", made, {"captions": "aa"})

    assert key("here") == key("/other/place")


A = ModelParams(model="x", engine="server", base_url="http://a/v1")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"base_url": "http://b/v1"}, True),
        ({"device": "cuda:1", "concurrency": 64, "batch_size": 9}, True),
        ({"launch": ("vllm", "serve")}, True),
        ({"model": "y"}, False),
        ({"max_tiles": 4}, False),
        ({"attention": "eager"}, False),
        ({"decoding": Decoding(max_new_tokens=3)}, False),
    ],
)
def test_how_a_model_is_reached_is_no_part_of_the_key(change, same):
    def key(model: ModelParams, unused: str = "z") -> str:
        models = {"a": model, "unused": ModelParams(model=unused)}
        return runs.run_key(
            "s", CaptionFilter(profile="p", captions="c", judge="a", models=models), {}
        )

    assert (key(A.model_copy(update=change)) == key(A)) == same
    assert key(A, unused="other") == key(A), "a model that the stage does not ask"


def test_find_prefers_a_finished_run(tmp_path, params):
    key = "ab" * 32
    done = runs.create(tmp_path, "p", "s", key)
    runs.start("s", params.model_copy(update={"run_dir": str(done)})).finish({})
    newer = runs.create(tmp_path, "p", "s", key)
    assert newer != done
    assert runs.find(tmp_path, "p", "s", key) == done
    assert runs.find(tmp_path, "p", "s", "cd" * 32) is None


def test_input_must_be_a_finished_run(tmp_path, params):
    run = runs.start("s", params)
    reader = CaptionFilter.model_construct(
        profile="p", outputs=str(tmp_path), run_dir="", captions=str(run.dir)
    )
    with pytest.raises(RunError, match="not finished"):
        runs.start("t", reader)


def test_one_process_at_a_time_and_a_killed_one_frees_the_folder(tmp_path, params, monkeypatch):
    monkeypatch.setattr(runs, "_LOCK_PATIENCE_S", 0.0)
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "holding\n"
    mine = params.model_copy(update={"run_dir": str(folder)})
    with pytest.raises(RunError, match=f"process {holder.pid} is working in it"):
        runs.start("s", mine)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    run = runs.start("s", mine)
    assert run.resumed
    assert runs.read_manifest(folder)["attempts"] == 2


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = write_atomic(tmp_path / "f.json", "old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("emolib.files.os.fsync", full)
    with pytest.raises(DataError, match="No space left"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


def test_result_bytes_depend_on_content_alone(params):
    first, second = runs.start("s", params), runs.start("s", params)
    for run in (first, second):
        run.finish({"b": 1, "a": [0.1]})
    texts = [(Path(r.dir) / runs.RESULT).read_bytes() for r in (first, second)]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["a"] == [0.1]


def test_a_run_finished_while_we_waited_is_left_alone(tmp_path, params, monkeypatch):
    folder = tmp_path / "run"
    mine = params.model_copy(update={"run_dir": str(folder)})
    runs.start("s", mine)
    runs._release(folder)
    real = runs._acquire

    def other_finishes_first(where: Path) -> None:
        (where / runs.RESULT).write_text("{}")
        real(where)

    monkeypatch.setattr(runs, "_acquire", other_finishes_first)
    before = (folder / runs.MANIFEST).read_bytes()
    with pytest.raises(RunError, match="has just finished"):
        runs.start("s", mine)
    assert (folder / runs.MANIFEST).read_bytes() == before


def test_opening_the_same_run_again_in_one_process_is_no_conflict(tmp_path, params, monkeypatch):
    monkeypatch.setattr(runs, "_LOCK_PATIENCE_S", 0.0)
    mine = params.model_copy(update={"run_dir": str(tmp_path / "run")})
    runs.start("s", mine)
    runs.start("s", mine).finish({})
    assert runs.is_finished(tmp_path / "run")


def test_a_moved_project_keeps_its_ledgers_beside_its_runs(tmp_path):
    folder = runs.create(tmp_path / "old" / "outputs", "p", "s", "ab" * 32)
    (tmp_path / "old").rename(tmp_path / "new")
    moved = tmp_path / "new" / folder.relative_to(tmp_path / "old")
    run = runs.start("s", StageParams(profile="p", outputs=str(tmp_path), run_dir=str(moved)))
    assert run.ledger("a") == tmp_path / "new" / "outputs" / "p" / "ledger" / "a.jsonl"


def test_how_long_answers_took_is_no_part_of_a_result(params):
    texts = []
    for seconds in (0.5, 9.0):
        run = runs.start("s", params)
        rows = write_jsonl(run.path("p.jsonl"), [{"name": "a", "seconds": seconds, "x": 1}])
        texts.append(run.finish({}, [rows]).read_bytes())
    assert texts[0] == texts[1]
    run = runs.start("s", params)
    rows = write_jsonl(run.path("p.jsonl"), [{"name": "a", "seconds": 0.5, "x": 2}])
    assert run.finish({}, [rows]).read_bytes() != texts[0]


def test_a_file_in_the_way_is_named(tmp_path, params):
    (tmp_path / "p").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        runs.start("s", params)


@pytest.mark.parametrize("text", ["", "[1]", "null", "{"])
def test_damaged_folders_are_passed_over_and_named_when_asked_for(tmp_path, text):
    key = "ab" * 32
    good, bad = (runs.create(tmp_path, "p", "s", key) for _ in range(2))
    for name in (runs.MANIFEST, runs.RESULT):
        (bad / name).write_text(text)
    assert runs.find(tmp_path, "p", "s", key) == good
    for read in (runs.read_manifest, runs.read_result):
        with pytest.raises(DataError, match=bad.name + r"/(manifest|result)\.json"):
            read(bad)


def as_0_1_wrote(folder: Path, **values: object) -> Path:
    """A run folder as version 0.1 left it."""
    folder.mkdir(parents=True)
    manifest = {
        "stage": folder.parent.name,
        "profile": "p",
        "key": "ab" * 32,
        "status": "success",
        "created": "2026-11-28T10:00:00+00:00",
        "ledger_dir": "../../ledger",
        "versions": {"emolib": "0.1.0"},
        "git": {"revision": None, "dirty": None},
        "attempts": 1,
    }
    write_json(folder / "manifest.json", manifest | values)
    (folder / "params.yaml").write_text("profile: p\n")
    return folder


def test_runs_of_0_1_are_named_as_old_and_never_read(tmp_path, params):
    folder = as_0_1_wrote(tmp_path / "p" / "s" / "20261128T100000Z-abababa")
    (folder / runs.RESULT).write_text('{"tables": [], "files": {}}')
    assert runs.made_by_older(folder) == "0.1.0"
    assert runs.old_runs(tmp_path, "p", "s") == [folder]
    assert runs.latest(tmp_path, "p", "s") is None
    for read in (runs.read_result, runs.input_sha):
        with pytest.raises(RunError, match=r"made by emolib 0\.1\.0.*run the stage again"):
            read(folder)
    begun = as_0_1_wrote(tmp_path / "p" / "s" / "20261128T110000Z-abababa", status="running")
    with pytest.raises(RunError, match=r"made by emolib 0\.1\.0"):
        runs.start("s", params.model_copy(update={"run_dir": str(begun)}))
    assert runs.read_manifest(begun)["status"] == "running", "left as it was"
    runs.start("s", params).finish({})
    assert len(runs.old_runs(tmp_path, "p", "s")) == 2
    assert runs.latest(tmp_path, "p", "s") is not None
