"""`emolib clean` removes what nothing uses, when told to, and nothing else."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from emolib import runs
from emolib.__main__ import main
from emolib.cli import clean
from emolib.errors import RunError
from emolib.params.stages import StageParams
from tests.test_runs import as_0_1_wrote

STAGE = "03_internvl_lora"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with every kind of output, the profile's folder on another disk."""
    root = tmp_path / "project"
    (root / "notebooks").mkdir(parents=True)
    (root / "params/p").mkdir(parents=True)
    (root / "params/p/_base.yaml").write_text("models: {}\n")
    disk = tmp_path / "disk"
    disk.mkdir()
    (root / "outputs").mkdir()
    (root / "outputs/p").symlink_to(disk)
    monkeypatch.setenv("EMOLIB_ROOT", str(root))
    monkeypatch.chdir(root)
    home = root / "outputs/p"
    for key in ("lora-used", "lora-unused"):
        training(home, key)
    training(home, "lora-begun", finished=False)
    finished_run(home, "lora-used")
    as_0_1_wrote(home / STAGE / "20261128T100000Z-abababa")
    fill(home / STAGE / "20261128T100000Z-abababa" / "gate/merged-abc/model.safetensors")
    for name in ("ledger/predict.jsonl", "images/ab/x.png", "report.html"):
        fill(home / name)
    fill(root / "outputs/models/tiny/model.safetensors")
    return root


def fill(path: Path, size: int = 20_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def training(home: Path, key: str, *, finished: bool = True) -> Path:
    folder = home / "trainings" / key
    fill(folder / "adapter/adapter_model.safetensors")
    (folder / ".lock").touch()
    (folder / "training.json").write_text("{}")
    if finished:
        fill(folder / "merged-bfloat16/model.safetensors", 90_000)
        (folder / "result.json").write_text("{}")
    return folder


def finished_run(home: Path, *keys: str) -> Path:
    run = runs.start(STAGE, StageParams(profile="p", outputs=str(home.parent)))
    run.finish({"trainings": list(keys)})
    runs._release(run.dir)
    return run.dir


def tree(root: Path) -> set[str]:
    """All files of the profile's outputs."""
    home = (root / "outputs/p").resolve()
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


def test_it_only_lists_unless_told_to_remove(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(project)
    assert main(["clean", "p", "--unfinished", "--merged", "--old", "--answers"]) == 0
    assert tree(project) == before
    printed = capsys.readouterr().out
    assert "would be freed by removing 6 of 10; --delete frees them" in printed
    assert main(["clean", "p"]) == 0
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    listed = {row[1]: row[2:] for row in cells if len(row) > 3}
    assert listed["trainings/lora-unused"][1:] == ["remove", "no finished run uses it"]
    assert listed["trainings/lora-used"][1] == "keep"
    assert listed["trainings/lora-used"][2].startswith(f"used by {STAGE}/")
    assert listed["trainings/lora-used/merged-bfloat16"][1] == "keep (--merged removes it)"
    assert listed["trainings/lora-begun"][1] == "keep (--unfinished removes it)"
    assert listed[f"{STAGE}/20261128T100000Z-abababa"][1] == "keep (--old removes it)"
    assert listed["ledger"][1] == "keep (--answers removes it)"
    assert listed["images"][1] == "keep"


def test_trainings_that_no_finished_run_uses_are_removed(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(project)
    assert main(["clean", "p", "--delete"]) == 0
    assert {name.split("/")[1] for name in before - tree(project)} == {"lora-unused"}
    assert tree(project) <= before, "nothing new is left"
    assert "2 removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "also"),
    [
        ("--unfinished", {"trainings/lora-begun"}),
        ("--merged", {"trainings/lora-used/merged-bfloat16"}),
        ("--old", {f"{STAGE}/20261128T100000Z-abababa"}),
        ("--answers", {"ledger/predict.jsonl"}),
    ],
)
def test_the_rest_has_an_option_of_its_own(project: Path, option: str, also: set[str]) -> None:
    before = tree(project)
    assert main(["clean", "p", "--delete", option]) == 0
    removed = {n for n in before - tree(project) if not n.startswith("trainings/lora-unused/")}
    assert removed
    assert all(any(n.startswith(name) for name in also) for n in removed)
    assert (project / "outputs/p/trainings/lora-used/adapter/adapter_model.safetensors").is_file()
    assert (project / "outputs/models/tiny/model.safetensors").is_file()


def test_interrupted_runs_are_kept_unless_asked_for(project: Path) -> None:
    run = runs.start(STAGE, StageParams(profile="p", outputs="outputs"))
    assert main(["clean", "p", "--delete", "--unfinished", "--answers"]) == 0
    assert run.dir.is_dir(), "a process is at work in it"
    assert (project / "outputs/p/ledger").is_dir(), "which may be writing answers"
    runs._release(run.dir)
    assert main(["clean", "p", "--delete"]) == 0
    assert run.dir.is_dir()
    assert main(["clean", "p", "--delete", "--unfinished"]) == 0
    assert not run.dir.exists()


def test_a_training_in_use_stays(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project / "outputs/p/trainings/lora-unused"
    with (folder / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert main(["clean", "p", "--delete", "--merged"]) == 0
        assert (folder / "merged-bfloat16").is_dir()
        # begun to be used between the listing and the removal
        monkeypatch.setattr(clean, "items", lambda root, home: iter([item]))
        item = clean.Item("training", folder, 1, "delete", "")
        assert main(["clean", "p", "--delete"]) == 0
        assert folder.is_dir()
    assert main(["clean", "p", "--delete"]) == 0
    assert not folder.exists()


def test_what_a_parameter_file_names_stays(project: Path) -> None:
    (project / "params/p/_base.yaml").write_text(
        "models: {a: {model: x, adapters: [outputs/p/trainings/lora-unused/adapter]}}\n"
    )
    assert main(["clean", "p", "--delete"]) == 0
    folder = project / "outputs/p/trainings/lora-unused"
    assert folder.is_dir()
    assert main(["clean", "p", "--delete", "--merged"]) == 0
    assert not (folder / "merged-bfloat16").exists()
    (project / "params/p/_base.yaml").write_text("models: {}\n")
    assert main(["clean", "p", "--delete"]) == 0
    assert not folder.exists()


def test_nothing_outside_is_removed(project: Path, tmp_path: Path) -> None:
    home = project / "outputs/p"
    outside = fill(tmp_path / "elsewhere/keep").parent
    (home / "trainings/lora-link").symlink_to(outside)
    (home / "trainings/lora-unused/inside").symlink_to(outside)
    (home / STAGE / "20260101T000000Z-abababa").symlink_to(outside)
    assert main(["clean", "p", "--delete", "--unfinished", "--merged", "--old"]) == 0
    assert (outside / "keep").is_file()
    assert not (home / "trainings/lora-unused").exists()
    for path in (outside, project, home, home / "trainings/lora-link", home / ".." / "models"):
        with pytest.raises(RunError, match="not removed"):
            clean.remove(path, home)
    assert (outside / "keep").is_file()


def test_what_a_kill_left_of_a_removal_is_removed(project: Path) -> None:
    rest = project / "outputs/p/trainings/.removed-lora-old"
    fill(rest / "adapter/part")
    assert main(["clean", "p", "--delete"]) == 0
    assert not rest.exists()


def test_a_finished_run_that_cannot_be_read_stops_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(project / "outputs/p", "lora-unused")
    (folder / "result.json").write_text("{")
    before = tree(project)
    assert main(["clean", "p", "--delete"]) == 2
    assert f"{folder.name}/result.json" in capsys.readouterr().err
    assert tree(project) == before


def test_a_profile_without_outputs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "outputs/p").unlink()
    assert main(["clean", "p"]) == 2
    assert "has no outputs yet" in capsys.readouterr().err
