"""LoRA training: learns, resumes where it was killed, refuses what it cannot train on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.engines import Request, answer_all, open_engine
from emolib.engines.fingerprint import fingerprint
from emolib.engines.swift_setup import ModelFolder
from emolib.engines.tiny import tiny_folder
from emolib.errors import (
    DataError,
    EngineError,
    MissingDependencyError,
    ParamsError,
    TrainingError,
)
from emolib.models.internvl.budget import TokenBudgetError
from emolib.params import Decoding, ModelParams, loading
from emolib.params.training import LoraParams
from emolib.training import TrainResult, check_rows, join, merge_lora, train_lora
from emolib.training.launch import launch_plan
from emolib.training.process import build_arguments
from emolib.training.worker import Named, padded
from tests.paths import searched_first

MODEL = ModelParams(model="tiny:internvl", device="cpu", decoding=Decoding(max_new_tokens=8))
LORA = LoraParams(
    steps=6,
    batch_size=2,
    accumulate=2,
    learning_rate=1.0e-2,
    max_length=512,
    save_steps=2,
    target_modules=("q_proj", "v_proj", "gate_proj"),
)

# Runs before everything else in the worker (Python imports sitecustomize by itself).
WATCH = """
import os, pathlib, signal, socket, time

def refuse(*args, **kwargs):
    with open({attempts!r}, "a") as file:
        file.write(f"{{args[-1] if args else kwargs}}\\n")
    raise OSError("no network in this test")

connect = socket.socket.connect
socket.socket.connect = lambda self, address: (
    connect(self, address) if isinstance(address, (str, bytes)) else refuse(address)
)
socket.getaddrinfo = refuse

touch = pathlib.Path.touch
def touch_and_kill(self, *args, **kwargs):
    touch(self, *args, **kwargs)
    if {kill} and self.parent.name == "checkpoint-4":
        pathlib.Path({worker!r}).write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # ended at once by the parent's death, or found alive by the test
pathlib.Path.touch = touch_and_kill
"""


def _rows(folder: Path, count: int = 7) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        image = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(image)
        messages = [
            {"role": "user", "content": "<image>What does the face show?"},
            {"role": "assistant", "content": ['["happy"]', '["sad"]'][i % 2]},
        ]
        lines.append(json.dumps({"messages": messages, "images": [str(image)]}) + "\n")
    file = folder / "train.jsonl"
    file.write_text("".join(lines))
    return file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, a cache with the tiny model, and a watch over the worker's network use."""
    folder = tmp_path_factory.mktemp("training")
    _rows(folder)
    tiny_folder("internvl", folder / "models")
    return folder


def _watch(home: Path, *, kill: bool) -> str:
    folder = home / f"watch-{kill}"
    folder.mkdir(exist_ok=True)
    attempts, worker = str(home / "attempts.txt"), str(home / "worker.txt")
    text = WATCH.format(attempts=attempts, kill=kill, worker=worker)
    (folder / "sitecustomize.py").write_text(text)
    return searched_first(folder)


@pytest.fixture(scope="module")
def trained(home: Path) -> tuple[TrainResult, list[tuple[int, int, dict[str, float]]]]:
    """One undisturbed training, watched."""
    told: list[tuple[int, int, dict[str, float]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", _watch(home, kill=False))
        result = train_lora(
            MODEL,
            LORA,
            home / "train.jsonl",
            home / "straight",
            val=home / "train.jsonl",
            cache=home / "models",
            progress=lambda step, steps, entry: told.append((step, steps, entry)),
        )
    return result, told


def test_training_learns_and_reports(home: Path, trained: Any) -> None:
    result, told = trained
    losses = [e["loss"] for e in result.history if "loss" in e]
    assert [e["step"] for e in result.history if "loss" in e] == [1, 2, 3, 4, 5, 6]
    assert losses[-1] < 0.7 * losses[0]
    assert [e["step"] for e in result.history if "eval_loss" in e] == [2, 4, 6]
    assert (result.rows, result.steps, result.resumed_from) == (7, 6, 0)
    assert result.seconds > 0
    assert result.adapter == home / "straight" / result.key / "adapter"
    assert not list(result.adapter.parent.glob("*checkpoint*")), "the adapter is all that is needed"
    assert result.command[1:3] == ["-m", "emolib.training.worker"]
    seen = [(step, entry["loss"]) for step, _, entry in told if "loss" in entry]
    assert seen == [(e["step"], pytest.approx(e["loss"])) for e in result.history if "loss" in e]
    assert {steps for _, steps, _ in told} == {6}


def test_training_makes_no_network_attempt(home: Path, trained: Any) -> None:
    attempts = home / "attempts.txt"
    assert not attempts.exists(), attempts.read_text()


def test_killed_training_goes_on_with_the_same_losses(home: Path, trained: Any) -> None:
    result, _ = trained
    out = home / "killed" / result.key
    code = (
        "import sys; from pathlib import Path; import tests.test_training as t;"
        "home = Path(sys.argv[1]); rows = home / 'train.jsonl';"
        "t.train_lora(t.MODEL, t.LORA, rows, home / 'killed', val=rows, cache=home / 'models')"
    )
    environ = os.environ | {"PYTHONPATH": _watch(home, kill=True)}
    ended = subprocess.run([sys.executable, "-c", code, str(home)], env=environ)
    assert ended.returncode == -signal.SIGKILL
    _wait_for_end(int((home / "worker.txt").read_text()))
    assert not (out / "result.json").exists()
    assert not (out / "checkpoint-6").exists()
    (out / "checkpoint-5").mkdir()  # as if the kill had come while one was written
    (out / "checkpoint-5" / "trainer_state.json").write_text("{")

    resumed = train_lora(
        MODEL,
        LORA.model_copy(update={"workers": 1}),  # who reads the images makes no difference
        home / "train.jsonl",
        home / "killed",
        val=home / "train.jsonl",
        cache=home / "models",
    )
    assert resumed.resumed_from == 4
    assert resumed.history == result.history
    assert fingerprint(resumed.adapter) == fingerprint(result.adapter)


def _wait_for_end(process: int) -> None:
    """The worker must die of its parent's death, not of old age."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def test_finished_training_is_not_repeated(
    home: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = trained
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("trains again"))
    again = train_lora(
        MODEL,
        LORA,
        home / "train.jsonl",
        home / "straight",
        val=home / "train.jsonl",
        cache=home / "models",
    )
    assert again == result


def test_adapter_changes_the_answers_and_merging_keeps_them(home: Path, trained: Any) -> None:
    result, _ = trained
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    requests = [Request(str(i), "What does the face show?", (image,) * i) for i in range(3)]
    merged = merge_lora(MODEL, result.adapter, home / "merged", cache=home / "models")
    plain = MODEL.model_copy(update={"model": str(merged)})
    answers, identities = [], []
    for model, adapters in ((MODEL, []), (MODEL, [result.adapter]), (plain, [])):
        with open_engine(model, name="x", adapters=adapters, cache=home / "models") as engine:
            replies = answer_all(engine, requests)
            assert [r.error for r in replies] == [None] * 3
            answers.append([r.text for r in replies])
            identities.append(json.dumps(engine.identity))
    base, with_adapter, after_merge = answers
    assert base != with_adapter
    assert after_merge == with_adapter
    assert len(set(identities)) == 3
    with pytest.raises(FileExistsError):
        merge_lora(MODEL, result.adapter, merged, cache=home / "models")
    with pytest.raises(EngineError, match="adapter_config"):
        merge_lora(MODEL, merged, home / "no", cache=home / "models")


def test_two_processes_train_as_one(tmp_path: Path, home: Path) -> None:
    """Same rows a step, gradients averaged over both: the curves differ by rounding alone.

    Answers differ in length, so a mean of the processes' means would differ from the mean over
    tokens; two epochs, so that the order of the second is compared, too. float32 sums in another
    order: some 1e-6 of a loss of 6.
    """
    _rows(tmp_path, 8)
    lora = LORA.model_copy(update={"dropout": 0.0, "steps": 4, "save_steps": 4, "accumulate": 1})
    curves = []
    for changes in ({"accumulate": 2}, {"processes": 2}):
        result = train_lora(
            MODEL,
            lora.model_copy(update=changes),
            tmp_path / "train.jsonl",
            tmp_path / "-".join(changes),
            cache=home / "models",
        )
        curves.append(result)
    one, two = (np.array([(e["loss"], e["grad_norm"]) for e in c.history]) for c in curves)
    assert one.shape == (4, 2)
    np.testing.assert_allclose(two, one, rtol=1e-5)
    assert one[3, 0] < 0.8 * one[0, 0]


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9])
@pytest.mark.parametrize("world", [1, 2, 8])
def test_no_row_is_left_out_of_several_processes(rows: int, world: int) -> None:
    made = padded(list(range(rows)), world)
    got = [made[i] for i in range(len(made))]
    assert got[:rows] == list(range(rows))
    assert len(got) == -(-rows // world) * world


def _arguments(lora: LoraParams, out: Path) -> list[str]:
    found = ModelFolder(Path("/weights/model"), "internvl_chat_native", "bfloat16")
    return build_arguments(MODEL, lora, found, 9, Path("/rows.jsonl"), None, out, None)


def test_deepspeed_reaches_ms_swift(tmp_path: Path) -> None:
    words = " ".join(_arguments(LoraParams(processes=8, deepspeed="zero3"), tmp_path))
    assert "--deepspeed zero3" in words


def test_deepspeed_that_is_not_installed_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install deepspeed"):
        train_lora(MODEL, LoraParams(deepspeed="zero3"), home / "train.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_machines_get_the_same_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lora-a"
    folder.mkdir()
    lora = LoraParams(nodes=2, processes=8, master_addr="node-1", master_port=4000)
    plan = launch_plan(lora, 0, MODEL, run_id="start-7")
    command = plan.command("emolib.training.worker", _arguments(lora, tmp_path))
    environ = {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": "3"}
    calls: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda path, words, env: calls.append((words, env)))
    monkeypatch.setattr("sys.argv", ["join", str(tmp_path), "--patience", "0"])
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with join.announced(command, environ, plan, "cpu", folder):
        assert "secret" not in (folder / "join.json").read_text()
        join.main()
    [(words, env)] = calls
    assert words == command
    assert env["HF_HUB_OFFLINE"] == "1"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    with pytest.raises(SystemExit, match="no training began"):
        join.main()
    assert plan.launcher[2:] == (
        *("--nproc_per_node", "8", "--nnodes", "2", "--rdzv_backend", "c10d"),
        *("--rdzv_endpoint", "node-1:4000", "--rdzv_id", "start-7"),
    )


def test_every_machine_exposes_gpus_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first machine's scheduler gave it other GPUs than this one's."""
    folder = tmp_path / "lora-a"
    folder.mkdir()
    lora = LoraParams(nodes=2, processes=2, master_addr="node-1")
    plan = launch_plan(lora, 4, MODEL.model_copy(update={"device": "cuda"}), given="4,5,6,7")
    environ = plan.environment({})
    assert environ["CUDA_VISIBLE_DEVICES"] == "4,5"
    calls: list[dict[str, str]] = []
    monkeypatch.setattr("os.execve", lambda path, words, env: calls.append(env))
    monkeypatch.setattr("sys.argv", ["join", str(tmp_path), "--patience", "0"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3,5")
    with join.announced(plan.command("m", []), environ, plan, "auto", folder):
        monkeypatch.setattr("emolib.training.join.gpu_count", lambda: 3)
        join.main()
        monkeypatch.setattr("emolib.training.join.gpu_count", lambda: 1)
        with pytest.raises(SystemExit, match="cannot take part: device 'cuda' with 2 GPUs"):
            join.main()
    assert [env["CUDA_VISIBLE_DEVICES"] for env in calls] == ["1,3"]


def test_several_machines_need_the_first_ones_name() -> None:
    with pytest.raises(ParamsError, match="master_addr: with nodes > 1"):
        loading.merge(LoraParams, [loading.Source("file", {"nodes": 2})])


def test_row_that_is_too_long_stops_the_training(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rows can be counted at once and by line, elsewhere by encoding all of them first."""
    short = LORA.model_copy(update={"max_length": 20})
    with pytest.raises(TokenBudgetError, match=r"train.jsonl, line 1: .*max_length = 20"):
        train_lora(MODEL, short, home / "train.jsonl", home / "short", cache=home / "models")
    assert not (home / "short").exists()
    monkeypatch.setattr("emolib.training.lora.check_budget", lambda *args: False)
    with pytest.raises(TrainingError, match=r"larger than the max_length\(20\)"):
        train_lora(MODEL, short, home / "train.jsonl", home / "short", cache=home / "models")
    [out] = (home / "short").iterdir()
    assert not (out / "result.json").exists()
    assert not list(out.glob("checkpoint-*"))


OPENED = """
import builtins, pathlib

plain_open = builtins.open
def note(text):
    with plain_open({file!r}, "a") as file:
        file.write(text + "\\n")

def open_and_note(source, *args, **kwargs):
    if str(source).endswith(".png"):
        note(pathlib.Path(source).name)
    return plain_open(source, *args, **kwargs)
builtins.open = open_and_note

touch = pathlib.Path.touch
def touch_and_note(self, *args, **kwargs):
    touch(self, *args, **kwargs)
    note(self.parent.name)
pathlib.Path.touch = touch_and_note
"""


def test_the_first_step_does_not_wait_for_all_rows(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are encoded by the loader's processes as they come up, and the losses stay the same."""
    rows = _rows(tmp_path, 40)
    watch = tmp_path / "watch"
    watch.mkdir()
    lora = LORA.model_copy(update={"steps": 2, "save_steps": 1, "accumulate": 1})
    before: dict[str, set[str]] = {}
    curves = {}
    for name in ("lazy", "first"):
        seen = tmp_path / f"{name}.txt"
        (watch / "sitecustomize.py").write_text(OPENED.format(file=str(seen)))
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", searched_first(watch))
            if name == "first":
                patch.setattr("emolib.training.lora.check_budget", lambda *args: False)
            recipe = lora.model_copy(update={"workers": 2 if name == "lazy" else 0})
            result = train_lora(MODEL, recipe, rows, tmp_path / name, cache=home / "models")
        curves[name] = [(e["loss"], e["grad_norm"]) for e in result.history]
        noted = seen.read_text().split()
        before[name] = set(noted[: noted.index("checkpoint-1")])
    assert len(before["first"]) == 40
    # one row is printed; two processes fetch two batches of two rows each ahead
    assert len(before["lazy"]) <= 13
    assert curves["lazy"] == curves["first"]


def test_a_damaged_image_is_named_before_training(home: Path, tmp_path: Path) -> None:
    rows = _rows(tmp_path, 3)
    image = tmp_path / "1.png"
    image.write_bytes(image.read_bytes()[:-3000])  # its header, and so its size, can be read
    with pytest.raises(DataError, match=r"train.jsonl, line 2: .*1.png: not an image"):
        train_lora(MODEL, LORA, rows, tmp_path / "out", cache=home / "models")
    assert not list((tmp_path / "out").glob("*/train.log"))


def test_a_row_that_cannot_be_encoded_is_named() -> None:
    def encode(row: dict[str, Any], **kwargs: Any) -> None:
        raise ValueError("gone")

    row = {"messages": [{"role": "user", "content": "Who?"}], "images": [{"path": "/a.png"}]}
    with pytest.raises(TrainingError, match=r"ValueError: gone\).*'/a.png'.*Who\?"):
        Named(encode)(row, return_length=True)
    with pytest.raises(TrainingError, match="'/a.mp4', '/a.wav'"):
        Named(encode)({"messages": row["messages"], "videos": ["/a.mp4"], "audios": ["/a.wav"]})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", "JSON"),
        ("[]", "not a row"),
        ({"text": "x"}, "messages"),
        ({"messages": []}, "not the assistant's"),
        ({"messages": [{"role": "user", "content": "x"}]}, "not the assistant's"),
        ({"messages": [{"role": "assistant", "content": " "}]}, "empty"),
        ({"messages": [{"role": "tool", "content": "x"}, "A"]}, "role 'tool'"),
        ({"messages": [{"role": "user", "content": ["x"]}, "A"]}, "with text"),
        ({"messages": ["<image><image>", "A"], "images": ["HERE"]}, "2 <image> marks for 1"),
        ({"messages": ["<image>", "A"]}, "1 <image> marks for 0"),
        ({"messages": ["Is <video> a word?", "A"]}, "a <video> mark"),
        ({"messages": ["x", "<audio>"]}, "a <audio> mark"),
        ({"messages": ["x", "A"], "images": ["/no/such.png"]}, "no such image: /no/such.png"),
    ],
)
def test_rows_are_checked(row: Any, words: str, tmp_path: Path, home: Path) -> None:
    if isinstance(row, dict):
        roles = iter(("user", "assistant"))
        messages = row.get("messages", [])
        for i, message in enumerate(messages):
            role = next(roles)
            if isinstance(message, str):
                messages[i] = {"role": role, "content": message}
        row["images"] = [i.replace("HERE", str(home / "0.png")) for i in row.get("images", [])]
    good = (home / "train.jsonl").read_text().splitlines()[0]
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{good}\n\n{row if isinstance(row, str) else json.dumps(row)}\n")
    with pytest.raises(DataError) as caught:
        check_rows(file)
    assert words in str(caught.value)
    assert "rows.jsonl, line 3" in str(caught.value)


def test_empty_and_missing_data_sets(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no rows"):
        check_rows(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="not readable"):
        check_rows(tmp_path / "none.jsonl")


def test_params_are_checked() -> None:
    loading.merge(LoraParams, [loading.Source("file", {"target_modules": ["wqkv", "a.b"]})])
    with pytest.raises(ParamsError, match="rnak"):
        loading.merge(LoraParams, [loading.Source("file", {"rnak": 8})])
    with pytest.raises(ParamsError, match="no module name"):
        loading.merge(LoraParams, [loading.Source("file", {"target_modules": ["--push_to_hub"]})])
