"""A training is found again by what its weights depend on, and by nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.engines.swift_setup import ModelFolder
from emolib.errors import DataError, ParamsError, TrainingError
from emolib.media.store import FrameStore
from emolib.params import Decoding, ModelParams
from emolib.params.affectgpt import LlmLora, SftParams
from emolib.params.training import LoraParams
from emolib.training import store as training_store
from emolib.training.process import COMPLETE
from emolib.training.store import TRAINING, Launch, Training, differences, made_of

MODEL = ModelParams(model="m", device="cpu")
LORA = LoraParams(batch_size=4, accumulate=2)
ROWS = [
    {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": a}]}
    for a in "ab"
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def parts(base: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kind": "lora",
        "model": MODEL,
        "found": ModelFolder(base, "internvl", "bfloat16"),
        "rows": ROWS,
        "val": [],
        "recipe": LORA,
        "steps": 10,
    }
    return made_of(**values | changes)


def key(base: Path, **changes: Any) -> str:
    return Training.of(Path("store"), parts(base, **changes)).key


def lora(**changes: Any) -> dict[str, Any]:
    return {"recipe": LORA.model_copy(update=changes)}


def model(**changes: Any) -> dict[str, Any]:
    return {"model": MODEL.model_copy(update=changes)}


@pytest.mark.parametrize(
    "change",
    [
        lora(save_steps=7),
        lora(workers=8),
        lora(gradient_checkpointing=False),
        lora(max_length=4096),
        lora(batch_size=1, accumulate=1, processes=8),
        lora(batch_size=1, accumulate=1, processes=4, nodes=2, master_addr="node-1"),
        model(base_url="http://10.0.0.1:8000/v1"),
        model(device="cuda:3", batch_size=64),
        model(decoding=Decoding(max_new_tokens=3), max_length=100),
        model(dtype="bfloat16"),  # what "auto" comes to
        model(model="elsewhere/m"),
        {"rows": [row | {"provenance": {"judge": "another"}} for row in ROWS]},
    ],
    ids=str,
)
def test_what_does_not_change_the_weights_finds_the_same_training(
    base: Path, change: dict[str, Any]
) -> None:
    assert key(base, **change) == key(base)


@pytest.mark.parametrize(
    "change",
    [
        lora(learning_rate=2.0e-4),
        lora(rank=4),
        lora(alpha=8.0),
        lora(dropout=0.0),
        lora(seed=1),
        lora(freeze_vit=False),
        lora(batch_size=8),
        lora(scheduler="linear"),
        lora(deepspeed="zero2"),
        model(max_tiles=4),
        model(max_pixels=200_704),
        model(dtype="float32"),
        model(attention="eager"),
        {"steps": 11},
        {"rows": ROWS[::-1]},
        {"rows": [*ROWS, ROWS[0]]},
        {"val": ROWS[:1]},
        {"kind": "affectgpt"},
    ],
    ids=str,
)
def test_what_changes_the_weights_is_another_training(base: Path, change: dict[str, Any]) -> None:
    assert key(base, **change) != key(base)


def test_base_weights_software_and_our_own_version_count(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {key(base)}
    (base / "model.safetensors").write_bytes(b"others, longer")
    found.add(key(base))
    monkeypatch.setattr(training_store, "TRAINING_VERSION", 1000)
    found.add(key(base))
    real = training_store._version
    monkeypatch.setattr(
        training_store, "_version", lambda name: "99" if name == "torch" else real(name)
    )
    found.add(key(base))
    assert len(found) == 4


def test_images_count_by_content_wherever_they_lie(base: Path, tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    stored = [FrameStore(tmp_path / place).put(image) for place in "ab"]
    plain = tmp_path / "plain.png"
    plain.write_bytes(b"1")
    files = [*stored, plain]
    keys = [key(base, rows=[ROWS[0] | {"images": [str(file)]}]) for file in files]
    assert keys[0] == keys[1] != keys[2]
    plain.write_bytes(b"22")
    assert key(base, rows=[ROWS[0] | {"images": [str(plain)]}]) != keys[2]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"workers": 4, "cache": False, "gradient_checkpointing": False}, True),
        ({"max_length": 2048}, True),
        ({"batch_size": 1, "processes": 4}, True),
        ({"learning_rate": 1e-4}, False),
        ({"lora": LlmLora()}, False),
        ({"save_epochs": 5}, False),  # what is kept is part of what comes out
        ({"crop": True, "cache": False}, False),
    ],
)
def test_affectgpts_recipe(base: Path, change: dict[str, Any], same: bool) -> None:
    recipe = SftParams()
    known = key(base, kind="affectgpt", recipe=recipe, order="a", seed=0)
    changed = recipe.model_copy(update=change)
    assert (key(base, kind="affectgpt", recipe=changed, order="a", seed=0) == known) == same
    assert key(base, kind="affectgpt", recipe=recipe, order="a", seed=1) != known
    assert key(base, kind="affectgpt", recipe=recipe, order="b", seed=0) != known


def train(launch: Launch) -> dict[str, Any]:
    (launch.folder / "trained").write_text("x")
    return {"steps": 3}


def never(launch: Launch) -> dict[str, Any]:
    pytest.fail("trains again")


def test_a_finished_training_is_found_and_a_new_one_says_what_differs(
    base: Path, tmp_path: Path
) -> None:
    home, said = tmp_path / "trainings", []
    one = Training.of(home, parts(base))
    assert one.once(LORA, MODEL, train, said.append) == {"steps": 3}
    assert said == [f"Training {one.key} begins. No training of this kind is kept yet."]
    assert one.once(LORA, MODEL, never, said.append) == {"steps": 3}
    assert said[-1] == f"Finished training {one.key} found: nothing is trained."
    Training.of(home, parts(base, kind="affectgpt")).once(LORA, MODEL, train, said.append)
    assert said[-1].endswith("No training of this kind is kept yet.")
    recipe = LORA.model_copy(update={"learning_rate": 2.0e-4})
    other = Training.of(home, parts(base, recipe=recipe))
    other.once(recipe, MODEL, train, said.append)
    named = f"{one.key} (finished) it differs in recipe.learning_rate: 0.0001 -> 0.0002."
    assert said[-1] == f"Training {other.key} begins. From {named}"
    more = Training.of(home, parts(base, recipe=recipe, rows=ROWS[:1]))
    named = "rows.count: 2 -> 1; rows.content: other content."
    assert more.nearest() == f"From {other.key} (finished) it differs in {named}"


def test_the_note_says_what_the_key_is_made_of(base: Path, tmp_path: Path) -> None:
    one = Training.of(tmp_path, parts(base))
    one.once(LORA, MODEL, train)
    note = json.loads((one.folder / TRAINING).read_text())
    assert Training.of(tmp_path, note["made_of"]).key == one.key
    assert note["made_of"]["recipe"]["learning_rate"] == 1.0e-4
    assert note["made_of"]["recipe"]["rows_per_step"] == 8
    assert note["made_of"]["rows"]["count"] == 2


def test_a_failed_training_is_tried_again(base: Path, tmp_path: Path) -> None:
    one = Training.of(tmp_path, parts(base))

    def fail(launch: Launch) -> dict[str, Any]:
        raise TrainingError("out of memory")

    with pytest.raises(TrainingError, match="out of memory"):
        one.once(LORA, MODEL, fail)
    assert not one.finished
    assert one.once(LORA, MODEL, train) == {"steps": 3}


def test_a_folder_with_another_training_is_refused(base: Path, tmp_path: Path) -> None:
    one = Training.of(tmp_path, parts(base))
    one.folder.mkdir(parents=True)
    other = parts(base, recipe=LORA.model_copy(update={"rank": 4}))
    (one.folder / TRAINING).write_text(json.dumps({"made_of": other}))
    with pytest.raises(TrainingError, match=r"holds another training \(recipe.rank: 4 -> 8\)"):
        one.once(LORA, MODEL, never)
    (one.folder / TRAINING).write_text("{")
    with pytest.raises(DataError, match=TRAINING):
        one.once(LORA, MODEL, never)


def checkpoint(one: Training, step: int) -> Path:
    folder = one.folder / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / COMPLETE).touch()
    return folder


def test_an_interrupted_training_goes_on_from_its_last_complete_checkpoint(
    base: Path, tmp_path: Path
) -> None:
    one, said, seen = Training.of(tmp_path, parts(base)), [], []
    checkpoint(one, 2), checkpoint(one, 10)
    (one.folder / "checkpoint-12").mkdir()
    # fewer processes with larger batches: the same rows a step, so the same training
    recipe = LORA.model_copy(update={"batch_size": 8, "accumulate": 1, "workers": 3})
    assert Training.of(tmp_path, parts(base, recipe=recipe)).key == one.key
    one.once(recipe, MODEL, lambda launch: seen.append(launch.resume) or {}, said.append)
    assert [folder.name for folder in seen] == ["checkpoint-10"]
    assert said == [f"Interrupted training {one.key} goes on from step 10."]
    assert not (one.folder / "checkpoint-12").exists()


def test_checkpoints_that_deepspeed_divided_need_as_many_processes(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_store, "plan_here", lambda recipe, model: None)
    eight = LoraParams(deepspeed="zero3", processes=8)
    four = LoraParams(deepspeed="zero3", processes=4, accumulate=2)
    one = Training.of(tmp_path, parts(base, recipe=eight))
    assert Training.of(tmp_path, parts(base, recipe=four)).key == one.key

    def stop(launch: Launch) -> dict[str, Any]:
        checkpoint(one, 2)
        raise TrainingError("interrupted")

    with pytest.raises(TrainingError, match="interrupted"):
        one.once(eight, MODEL, stop)
    with pytest.raises(TrainingError, match="among 8 processes, which 4 cannot read"):
        one.once(four, MODEL, never)
    one.once(eight, MODEL, train)
    assert one.once(four, MODEL, never) == {"steps": 3}


def test_a_finished_training_needs_no_gpu(base: Path, tmp_path: Path) -> None:
    gpu = MODEL.model_copy(update={"device": "cuda"})
    one = Training.of(tmp_path, parts(base))
    with pytest.raises(ParamsError, match="GPU"):
        one.once(LORA, gpu, never)
    assert not tmp_path.joinpath(one.key).exists(), "nothing is left of it"
    one.once(LORA, MODEL, train)
    assert one.once(LORA, gpu, never) == {"steps": 3}


HOLD = """
import json, sys, time
from pathlib import Path
from emolib.params import ModelParams
from emolib.params.training import LoraParams
from emolib.training.store import Training

def train(launch):
    print("training", flush=True)
    sys.stdin.readline()
    return {"steps": 3}

made = json.loads(Path(sys.argv[2]).read_text())
Training.of(Path(sys.argv[1]), made).once(LoraParams(), ModelParams(model="m", device="cpu"), train)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_who_wants_a_training_under_way_waits_for_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """It trains nothing when the other ends well, and takes over when the other is killed."""
    made = tmp_path / "made.json"
    made.write_text(json.dumps(parts(base)))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "home"), str(made)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert "begins" in holder.stdout.readline()
    assert holder.stdout.readline() == "training\n"
    said: list[str] = []

    def let_it_end() -> None:
        """In place of the pause between looks."""
        assert said == [f"Waiting for process {holder.pid}, which trains {one.key}."]
        if killed:
            os.kill(holder.pid, signal.SIGKILL)
        else:
            holder.communicate("\n")
        holder.wait()

    monkeypatch.setattr(training_store, "_pause", let_it_end)
    one = Training.of(tmp_path / "home", parts(base))
    begun: list[bool] = []
    one.once(LORA, MODEL, lambda launch: begun.append(True) or {"steps": 3}, said.append)
    assert begun == [True] * killed
    assert one.finished


def test_differences_are_named_by_their_place() -> None:
    old = {"recipe": {"a": 1, "b": (1, 2)}, "rows": {"content": "00"}, "gone": 1}
    new = {"recipe": {"a": 2, "b": [1, 2]}, "rows": {"content": "11"}, "seed": 3}
    assert differences(old, new) == [
        "recipe.a: 1 -> 2",
        "rows.content: other content",
        "seed: None -> 3",
        "gone: 1 -> None",
    ]
