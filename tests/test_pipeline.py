"""`emolib run`: order, skipping, checks before any kernel, and going on after SIGKILL."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from emolib import pipeline, plan, runs
from emolib.errors import ParamsError, RunError

START = """
from emolib import runs
from emolib.params.profiles import from_notebook
cfg = from_notebook({stage!r}, globals())
run = runs.start({stage!r}, cfg)
"""

CHECK = "run.finish({'stage': 0, 'gallery': cfg.gallery})"

# Counts how often each row is really computed, and kills `emolib run` (its parent) once.
CAPTION = """
import os, signal
from pathlib import Path
from emolib.files import write_jsonl
from emolib.ledger import Ledger
calls, bomb = Path("calls.log"), Path("bomb")
with Ledger(run.ledger("captions")) as ledger:
    for i in range(40):
        if ledger.settled(str(i)):
            continue
        if i == 20 and bomb.exists():
            bomb.unlink()
            os.kill(os.getppid(), signal.SIGKILL)
        with calls.open("a") as file:
            print(i, file=file)
        ledger.put({"key": str(i), "text": str(i * i)})
    rows = write_jsonl(run.path("captions.jsonl"), ({"text": row["text"]} for row in ledger))
run.finish({"sum": sum(int(row["text"]) for row in ledger)}, [rows])
"""

FILTER = "run.finish({'from': runs.read_result(Path(cfg.captions))['sum']})"

BASE = "models: {a: {model: x}, b: {model: y}}\n"


def notebook(path: Path, *cells: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = new_notebook(cells=[new_code_cell(text.strip()) for text in cells])
    made.cells[0].metadata["tags"] = ["parameters"]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    nbformat.write(made, path)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Three small notebooks under the real stage names and schemas."""
    root = tmp_path / "project"
    (root / "params" / "p").mkdir(parents=True)
    (root / "params" / "p" / "_base.yaml").write_text(BASE)
    for stage in ("00_data_check", "01_data_generation", "02_caption_filtering"):
        (root / "params" / "p" / f"{stage}.yaml").write_text("profile: p\n")
    books = root / "notebooks"
    notebook(
        books / "00_data_check.ipynb",
        'profile: str = "p"\ngallery: int = 1\nrun_dir: str = ""',
        START.format(stage="00_data_check"),
        CHECK,
    )
    notebook(
        books / "01_data_generation.ipynb",
        'profile: str = "p"\ngenerators: list = ["a", "b"]\nrun_dir: str = ""',
        START.format(stage="01_data_generation"),
        CAPTION,
    )
    notebook(
        books / "02_caption_filtering.ipynb",
        'profile: str = "p"\ncaptions: str = ""\njudge: str = "a"\nrun_dir: str = ""',
        START.format(stage="02_caption_filtering") + "\nfrom pathlib import Path",
        FILTER,
    )
    monkeypatch.setenv("EMOLIB_ROOT", str(root))
    return root


def go(root: Path, **options: object) -> tuple[dict[str, str], str]:
    out = io.StringIO()
    outcomes = pipeline.run_profile(root, "p", out=out, **options)
    return {o.stage.name: o.state for o in outcomes}, out.getvalue()


def results(root: Path) -> dict[str, dict]:
    return {
        stage.name: runs.read_result(folder)
        for stage in plan.STAGES
        if (folder := runs.latest(root / "outputs", "p", stage.name))
    }


@pytest.mark.notebook
def test_runs_in_order_then_skips_then_reruns_what_changed(project):
    states, text = go(project)
    assert [states[s] for s in list(states)[:3]] == ["done"] * 3
    assert states["04_affectgpt_sft"].startswith("missing")
    assert "04_affectgpt_sft  missing" in text
    assert results(project)["02_caption_filtering"]["from"] == sum(i * i for i in range(40))

    states, text = go(project)
    assert [states[s] for s in list(states)[:3]] == ["up to date"] * 3

    file = project / "params/p/02_caption_filtering.yaml"
    file.write_text("profile: p\nthreshold: 0.5\n")
    states, _ = go(project)
    assert [states[s] for s in list(states)[:3]] == ["up to date", "up to date", "done"]

    states, _ = go(project, only="02", fresh=True)
    assert states == {"02_caption_filtering": "done"}


@pytest.mark.notebook
def test_sigkill_then_the_same_command_goes_on(project):
    (project / "bomb").touch()
    command = [sys.executable, "-m", "emolib", "run", "p"]
    environment = {**os.environ, "EMOLIB_ROOT": str(project)}
    checkout = Path(__file__).resolve().parents[1]
    killed = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    assert killed.returncode == -9
    again = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "00_data_check  up to date" in again.stdout
    computed = [int(line) for line in (project / "calls.log").read_text().split()]
    assert sorted(computed) == list(range(40)), "a finished ledger row was computed again"
    assert results(project)["02_caption_filtering"]["from"] == sum(i * i for i in range(40))
    assert len(list((project / "outputs/p/01_data_generation").iterdir())) == 1, "same run folder"


@pytest.mark.notebook
def test_a_failing_notebook_stops_the_run_and_keeps_its_notebook(project):
    book = project / "notebooks/01_data_generation.ipynb"
    read = nbformat.read(book, as_version=4)
    read.cells[2].source = "raise ValueError('no caption today')"
    nbformat.write(read, book)
    states, text = go(project)
    assert states == {"00_data_check": "done", "01_data_generation": "failed"}
    assert "no caption today" in text
    [folder] = (project / "outputs/p/01_data_generation").iterdir()
    manifest = runs.read_manifest(folder)
    assert manifest["status"] == "failed"
    assert "no caption today" in manifest["error"]
    assert (folder / "notebook.ipynb").is_file()


def test_every_parameter_file_is_checked_before_the_first_kernel(project):
    (project / "params/p/02_caption_filtering.yaml").write_text("profile: p\nthreshhold: 0.5\n")
    with pytest.raises(ParamsError, match="did you mean 'threshold'"):
        go(project)
    assert not (project / "outputs").exists()


def test_only_needs_its_inputs(project):
    with pytest.raises(RunError, match="01_data_generation"):
        go(project, only="02")


def test_unknown_stage_names_the_stages(project):
    with pytest.raises(RunError, match=r"no stage '9x'.*00_data_check"):
        go(project, only="9x")


def test_unknown_profile_is_refused(project):
    with pytest.raises(ParamsError, match=r"no profile 'q': choose from \['p'\]"):
        pipeline.run_profile(project, "q", out=io.StringIO())


def test_command_line_prints_faults_without_a_traceback(project):
    done = subprocess.run(
        [sys.executable, "-m", "emolib", "run", "q"],
        env={**os.environ, "EMOLIB_ROOT": str(project)},
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "choose from ['p']" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_notebook_makes_a_run_out_of_date_but_prose_does_not(project):
    params = pipeline.profiles.resolve(project, "p", "00_data_check")
    key = pipeline.stage_key(project, "00_data_check", params)
    book = project / "notebooks/00_data_check.ipynb"
    read = nbformat.read(book, as_version=4)
    read.cells.append(nbformat.v4.new_markdown_cell("prose"))
    nbformat.write(read, book)
    assert pipeline.stage_key(project, "00_data_check", params) == key
    read.cells.append(new_code_cell("1 + 1"))
    nbformat.write(read, book)
    assert pipeline.stage_key(project, "00_data_check", params) != key


def test_record_of_results_is_plain_json(project):
    run = runs.start(
        "00_data_check",
        pipeline.profiles.resolve(project, "p", "00_data_check").model_copy(
            update={"outputs": str(project / "outputs")}
        ),
    )
    run.finish({"a": 1})
    assert json.loads((run.dir / runs.RESULT).read_text())["a"] == 1


def test_two_at_once_do_not_share_a_stage(project):
    with (
        pipeline._alone(project / "outputs", "p", "00_data_check"),
        pytest.raises(RunError, match=rf"00_data_check: another .* \(process {os.getpid()}\)"),
    ):
        go(project, only="00")


@pytest.mark.parametrize("text", ["0", "00", "00_data_check"])
def test_stages_are_named_by_number_or_name(text):
    assert plan.named(text).name == "00_data_check"


def test_changed_clips_words_and_weights_make_a_run_out_of_date(project):
    base = project / "params/p/_base.yaml"
    base.write_text(BASE + "data: {kind: folder, root: clips, table: clips.csv}\n")
    (project / "clips").mkdir()
    (project / "clips/a.mp4").write_bytes(b"1234")
    (project / "clips.csv").write_text("name,labels\na,happy\n")
    (project / "x").mkdir()
    (project / "x/model.safetensors").write_bytes(b"1")
    stage = "01_data_generation"
    params = pipeline.profiles.resolve(project, "p", stage)

    def key() -> str:
        return pipeline.stage_key(project, stage, params)

    keys = [key()]
    assert key() == keys[0]
    (project / "clips.csv").write_text("name,labels\na,sad\n")
    keys.append(key())
    (project / "clips/b.mp4").write_bytes(b"56")
    keys.append(key())
    os.utime(project / "x/model.safetensors", ns=(1, 1))
    keys.append(key())
    (project / "clips/.hidden").write_bytes(b"")
    (project / "clips/loop").symlink_to(project / "clips")
    assert key() == keys[-1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("file", ["check-openset.csv", "label-transcription.csv", "split.json"])
def test_changed_labels_of_a_published_set_make_a_run_out_of_date(project, file):
    from emolib.params import DataParams
    from emolib.params.stages import DataCheck
    from emolib.sources import source_hashes

    root = project / "mer"
    (root / "video").mkdir(parents=True)
    for name in ("check-openset.csv", "label-transcription.csv"):
        (root / name).write_text("name,openset\na,[happy]\n")
    (project / "split.json").write_text("{}")
    data = DataParams(kind="mer2024-ov", root="mer", split_file="split.json")
    params = DataCheck(profile="p", data=data)
    first = source_hashes(project, params)
    changed = project / file if file == "split.json" else root / file
    changed.write_text(changed.read_text().replace("happy", "sorry") + " ")
    assert source_hashes(project, params) != first


def test_changed_groups_make_a_run_out_of_date(project):
    from emolib.params.stages import FaceAblation
    from emolib.sources import source_hashes

    params = FaceAblation(
        profile="p", models={"a": {"model": "tiny:x"}}, model="a", groups="groups.csv"
    )
    (project / "groups.csv").write_text("1")
    first = source_hashes(project, params)
    (project / "groups.csv").write_text("2")
    assert source_hashes(project, params) != first


def test_code_that_is_not_python_is_named(project):
    book = project / "notebooks/00_data_check.ipynb"
    read = nbformat.read(book, as_version=4)
    read.cells[1].source = "run = ="
    nbformat.write(read, book)
    with pytest.raises(ParamsError, match=r"00_data_check\.ipynb: its code is not Python"):
        go(project, only="00")
    read.cells[0].source = "profile: str ="
    nbformat.write(read, book)
    with pytest.raises(ParamsError, match="parameters cell is not Python"):
        go(project, only="00")


def pair(project: Path, first: str, second: str) -> None:
    """Notebooks 04 and 06 beside 00 to 02, with these cells."""
    cells = {"04_affectgpt_sft": first, "06_discriminative_model": second}
    needed = {
        "04_affectgpt_sft": "model: a\n",
        "06_discriminative_model": "features: [{kind: words}]\n",
    }
    for stage, cell in cells.items():
        (project / f"params/p/{stage}.yaml").write_text("profile: p\n" + needed[stage])
        notebook(
            project / f"notebooks/{stage}.ipynb",
            'profile: str = "p"\nrun_dir: str = ""',
            START.format(stage=stage),
            cell,
            "run.finish({'threads': __import__('os').environ.get('OMP_NUM_THREADS')})",
        )


# A pipe opens only when both ends are there, so neither can end before the other has begun.
READS = "print(open('meet').read())"
WRITES = "print('here', file=open('meet', 'w'))"


@pytest.mark.notebook
def test_jobs_run_at_the_same_time_but_never_before_what_they_read(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    os.mkfifo(project / "meet")
    pair(project, READS, WRITES)
    states, text = go(project, jobs=3)
    assert set(states.values()) - {"done"} == {states["03_internvl_lora"]}
    assert results(project)["02_caption_filtering"]["from"] == sum(i * i for i in range(40))
    cores = len(os.sched_getaffinity(0))
    assert results(project)["06_discriminative_model"]["threads"] == str(max(1, cores // 3))
    order = [line.split()[1] for line in text.splitlines() if "  done in " in line]
    assert order[0] == "00_data_check"
    assert order.index("01_data_generation") < order.index("02_caption_filtering")
    assert list(states) == [stage.name for stage in plan.STAGES], "the method's order"
    states, _ = go(project, jobs=3)
    assert "done" not in states.values()


@pytest.mark.notebook
def test_a_failure_lets_the_others_end_and_begins_nothing_more(project):
    os.mkfifo(project / "meet")
    pair(project, READS, WRITES + "\nraise ValueError('no class today')")
    states, text = go(project, start="04", jobs=2)
    assert states["04_affectgpt_sft"] == "done"
    assert states["06_discriminative_model"] == "failed"
    assert "ValueError: no class today" in text
    assert "07_fusion_analysis" not in states


@pytest.mark.notebook
def test_a_killed_job_is_a_failed_stage_and_goes_on_later(project):
    (project / "bomb").touch()
    states, text = go(project, jobs=2)
    assert states["01_data_generation"] == "failed"
    assert "01_data_generation  FAILED" in text
    assert "ended by signal 9" in text
    states, _ = go(project, jobs=2)
    assert states["02_caption_filtering"] == "done"
    computed = [int(line) for line in (project / "calls.log").read_text().split()]
    assert sorted(computed) == list(range(40)), "a finished ledger row was computed again"
    assert len(list((project / "outputs/p/01_data_generation").iterdir())) == 1, "same run folder"


@pytest.mark.notebook
def test_a_stage_that_is_taken_stops_the_run_after_the_others(project):
    pair(project, "1", "1")
    with (
        pipeline._alone(project / "outputs", "p", "06_discriminative_model"),
        pytest.raises(RunError, match="06_discriminative_model: another"),
    ):
        go(project, start="04", jobs=2)
    assert set(results(project)) == {"04_affectgpt_sft"}


def test_at_least_one_job(project):
    with pytest.raises(RunError, match="jobs = 0"):
        go(project, jobs=0)


@pytest.mark.notebook
def test_changed_library_code_is_reported_and_redoes_nothing(project, monkeypatch):
    go(project, only="00")
    monkeypatch.setattr(pipeline, "code_hash", lambda notebook: "changed")
    monkeypatch.setattr(pipeline.machine, "commits_since", lambda revision: 3)
    states, text = go(project, only="00")
    assert states == {"00_data_check": "up to date"}
    assert "made by an earlier state of emolib (3 commits ago); --fresh to redo" in text
    assert go(project, only="00", fresh=True)[0] == {"00_data_check": "done"}
    states, text = go(project, only="00")
    assert "earlier state" not in text


@pytest.mark.notebook
def test_runs_of_0_1_are_named_and_made_again(project):
    from tests.test_runs import as_0_1_wrote

    as_0_1_wrote(project / "outputs/p/00_data_check/20261128T100000Z-abababa")
    states, text = go(project, only="00")
    assert states == {"00_data_check": "done"}
    assert "runs by emolib 0.1.0, kept and not read (1): outputs/p/00_data_check" in text
    assert "kept and not read" not in go(project, only="00")[1]


# Trains as notebook 03 does, but for the training itself.
TRAIN = """
from pathlib import Path
from emolib.engines.swift_setup import ModelFolder
from emolib.training.store import Training, made_of

model = cfg.models[cfg.model]
found = ModelFolder(Path(model.model), "a type", "float32")
read = runs.read_result(Path(cfg.pairs))["from"]
row = {"messages": [{"role": "assistant", "content": str(read)}]}
training = Training.of(run.trainings, made_of("lora", model, found, [row], [], cfg.lora, 80))


def train(launch):
    with open("trained.log", "a") as file:
        print(training.key, file=file)
    return {}


training.once(cfg.lora, model, train)
run.finish({"trainings": [training.key]})
"""


@pytest.mark.notebook
def test_only_what_changes_the_weights_is_trained_again(project, monkeypatch):
    stage = "03_internvl_lora"
    cell = 'profile: str = "p"\npairs: str = ""\nmodel: str = "x"\nrun_dir: str = ""'
    notebook(project / f"notebooks/{stage}.ipynb", cell, START.format(stage=stage), TRAIN)
    weights = project / "weights"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"1")

    def write(lora="", more="", address="http://a/v1"):
        model = f"x: {{model: weights, device: cpu, base_url: {address}}}"
        base = f"models: {{a: {{model: x}}, b: {{model: y}}, {model}}}\n"
        (project / "params/p/_base.yaml").write_text(base)
        text = f"profile: p\nlora: {{steps: 80, {lora}}}\n{more}"
        (project / f"params/p/{stage}.yaml").write_text(text)

    def trained():
        return (project / "trained.log").read_text().split()

    write()
    go(project)
    assert len(trained()) == 1
    # nothing that could change a result: the run itself is up to date
    write(lora="save_steps: 7, workers: 2", address="http://elsewhere/v1")
    monkeypatch.setattr(pipeline, "code_hash", lambda notebook: "a comment was changed")
    states, text = go(project, only="03")
    assert states == {stage: "up to date"}
    assert "made by an earlier state of emolib" in text
    # another gate is another result of the same training; so is a run made anew
    write(more="gate: {strict: false}\n")
    assert go(project, only="03")[0] == {stage: "done"}
    go(project, only="03", fresh=True)
    assert len(trained()) == 1
    write(lora="learning_rate: 2.0e-4")
    go(project, only="03")
    (weights / "model.safetensors").write_bytes(b"other weights")
    go(project, only="03")
    assert len(set(trained())) == 3
    go(project, only="03", fresh_trainings=True)
    assert trained()[3:] == trained()[2:3], "the same training, in the run's own folder"
    assert len(list((project / "outputs/p/trainings").iterdir())) == 3
