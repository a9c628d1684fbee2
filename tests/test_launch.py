"""The launch plan: GPUs, processes and command lines for machines that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.engines import gpus, serving
from emolib.errors import ParamsError
from emolib.params import ModelParams
from emolib.params.affectgpt import SftParams
from emolib.params.profiles import resolve
from emolib.params.training import LoraParams
from emolib.processes import tied
from emolib.training.launch import broken_rules, launch_plan

ROOT = Path(__file__).resolve().parents[1]
CUDA = ModelParams(model="m", device="cuda")


class Machine:
    """A machine with so many GPUs, as ms-swift's own functions see it in one process."""

    def __init__(self, patch: pytest.MonkeyPatch, visible: int, processes: int) -> None:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            patch.delenv(name, raising=False)
        if processes > 1:
            patch.setenv("RANK", str(processes - 1))
            patch.setenv("LOCAL_RANK", str(processes - 1))
            patch.setenv("WORLD_SIZE", str(processes))
            patch.setenv("LOCAL_WORLD_SIZE", str(processes))
        for module in ("swift.utils.torch_utils", "swift.model.utils"):
            patch.setattr(f"{module}.is_torch_cuda_available", lambda: visible > 0)
        patch.setattr("torch.cuda.device_count", lambda: visible)

    def device_map(self) -> str:
        from swift.model.utils import get_default_device_map

        return get_default_device_map()

    def deepspeed(self, name: str) -> None:
        from swift.arguments.sft_args import SftArguments

        class Args:
            deepspeed, use_ray, local_world_size = name, False, 1
            zero_hpz_partition_size = deepspeed_autotp_size = callbacks = None

        SftArguments._init_deepspeed(Args())  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("visible", [0, 1, 3, 4, 8])
def test_our_rules_are_ms_swifts(
    visible: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own functions decide on device maps and DeepSpeed; here on machines that are not."""
    import swift.arguments.sft_args

    machine = Machine(monkeypatch, visible, processes)
    monkeypatch.setattr(swift.arguments.sft_args, "require_version", lambda name: None)
    broken = broken_rules(visible, processes, deepspeed="zero2")
    words = " ".join(broken)
    if "no multiple" in words:
        with pytest.raises(AssertionError, match="n_gpu"):
            machine.device_map()
        return
    placed = machine.device_map()
    if broken:
        assert placed == "auto"
        with pytest.raises(ValueError, match="DeepSpeed is not compatible"):
            machine.deepspeed("zero2")
        assert "device_map auto" in words
        assert "refuses DeepSpeed" in words
    else:
        assert placed == (f"cuda:{processes - 1}" if visible else "cpu")
        machine.deepspeed("zero2")


def test_ms_swifts_model_parallelism_still_fails_in_several_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rule's reason: when this passes, :func:`broken_rules` may forget it."""
    import torch
    from swift.model import patcher
    from transformers.integrations import accelerate

    Machine(monkeypatch, 8, 4)
    monkeypatch.setattr(patcher, "_mp_ddp_patched", False)
    for name in ("infer_auto_device_map", "get_balanced_memory"):
        monkeypatch.setattr(accelerate, name, getattr(accelerate, name))
    accelerator = patcher.trainer.Accelerator
    for owner, name in (
        (torch.nn.parallel.DistributedDataParallel, "__init__"),
        (accelerator, "__init__"),
        (accelerator, "verify_device_map"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(patcher, "_get_max_memory", lambda ids: {0: 10**9, 4: 10**9})
    monkeypatch.setattr(patcher, "_sync_max_memory", lambda memory: memory)
    patcher.patch_mp_ddp()
    with pytest.raises(TypeError, match="no_placement_params"):
        accelerate.infer_auto_device_map(torch.nn.Linear(2, 2), None, no_placement_params=[])
    assert "model parallelism fails" in " ".join(broken_rules(8, 4))


@pytest.mark.parametrize("machine", [1, 3, 8])
@pytest.mark.parametrize(
    "recipe",
    [
        LoraParams(),
        LoraParams(processes=2),
        LoraParams(processes=8, deepspeed="zero3"),
        LoraParams(deepspeed="zero2"),
        SftParams(processes=4),
        SftParams(processes=3, deepspeed="zero2"),
    ],
)
def test_a_training_sees_one_gpu_for_each_process(recipe: Any, machine: int) -> None:
    if recipe.processes > machine:
        with pytest.raises(ParamsError, match=rf"processes: {recipe.processes} .*{machine} are"):
            launch_plan(recipe, machine, CUDA)
        return
    plan = launch_plan(recipe, machine, CUDA)
    assert plan.visible == tuple(str(n) for n in range(recipe.processes))
    assert plan.per_process == tuple((name,) for name in plan.visible)
    assert broken_rules(len(plan.visible), plan.processes, 1, plan.deepspeed) == []
    assert plan.environment({})["CUDA_VISIBLE_DEVICES"] == ",".join(plan.visible)
    assert plan.arguments == ()
    command = plan.command("emolib.training.worker", ["--rows", "9"])
    assert command[0] == sys.executable
    assert command[-4:] == ["-m", "emolib.training.worker", "--rows", "9"]
    several = recipe.processes > 1 or recipe.deepspeed
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(recipe.processes)]
    assert command[1:-4] == ([*torchrun, "--standalone"] if several else [])


def test_without_gpus_the_processes_talk_over_gloo() -> None:
    plan = launch_plan(LoraParams(processes=2), 0, ModelParams(model="m"))
    assert plan.environment({"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"] == ""
    assert plan.per_process == ((), ())
    assert plan.arguments == ("--use_cpu", "true", "--ddp_backend", "gloo")
    assert launch_plan(LoraParams(), 0, ModelParams(model="m")).arguments == ()
    alone = launch_plan(LoraParams(), 0, ModelParams(model="m", device="cpu"))
    assert alone.arguments == ("--use_cpu", "true")  # bfloat16 is refused without
    assert launch_plan(LoraParams(processes=2), 8, ModelParams(model="m", device="cpu")) == plan
    with pytest.raises(ParamsError, match="device 'cuda' .*0 are visible"):
        launch_plan(LoraParams(), 0, CUDA)


def test_gpus_of_a_job_scheduler_are_kept() -> None:
    device = CUDA.model_copy(update={"device": "cuda:1"})
    plan = launch_plan(LoraParams(processes=2), 3, device, given="GPU-aa, 5,MIG-7")
    assert plan.visible == ("5", "MIG-7")
    with pytest.raises(ParamsError, match=r"CUDA_VISIBLE_DEVICES = 2,5"):
        launch_plan(LoraParams(processes=3), 2, CUDA, given="2,5")
    with pytest.raises(ParamsError, match="cuda:x"):
        launch_plan(LoraParams(), 2, ModelParams(model="m", device="cuda:x"))


def test_an_outer_launcher_is_not_taken_for_ours() -> None:
    """Under ``srun`` or torchrun the notebook has a rank of its own; the training has not."""
    outer = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_PORT": "1", "HOME": "/h"}
    environ = launch_plan(LoraParams(), 1, CUDA).environment(outer)
    assert environ == {"HOME": "/h", "CUDA_VISIBLE_DEVICES": "0"}


@pytest.mark.parametrize("profile", ["paper", "h200", "affectgpt2025"])
@pytest.mark.parametrize("stage", ["03_internvl_lora", "04_affectgpt_sft"])
def test_the_profiles_plan_for_their_machines(profile: str, stage: str) -> None:
    if not (ROOT / "params" / profile / f"{stage}.yaml").is_file():
        return
    params: Any = resolve(ROOT, profile, stage)
    recipe = params.lora if stage.startswith("03") else params.recipe
    for machine in (1, 3, 8):
        if machine < recipe.processes:
            with pytest.raises(ParamsError, match="processes: "):
                launch_plan(recipe, machine, params.models[params.model])
        else:
            plan = launch_plan(recipe, machine, params.models[params.model])
            assert len(plan.visible) == recipe.processes
    if recipe.deepspeed:
        config = launch_plan(recipe, 8, params.models[params.model]).deepspeed_config()
        assert config["zero_optimization"]["stage"] == int(recipe.deepspeed[4])


@given(
    device=st.sampled_from(["cpu", "auto", "cuda", "cuda:0", "cuda:1", "cuda:7"]),
    number=st.integers(1, 8),
    count=st.integers(0, 8),
)
def test_as_many_gpus_as_asked_for_or_none_or_an_error(
    device: str, number: int, count: int
) -> None:
    try:
        chosen = gpus.choose_gpus(device, number, count)
        placed, numbers = gpus.device_map(device, number, count)
    except ParamsError:
        assert number + (gpus.first_gpu(device) or 0) > count
        return
    assert numbers == tuple(map(int, chosen))
    if not chosen:
        assert placed == (None if device == "auto" else "cpu")
    else:
        assert len(set(chosen)) == number
        assert placed == ("auto" if number > 1 else f"cuda:{chosen[0]}")


def test_engines_take_one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine of eight, a model of this process is placed on one, or on those asked for."""
    import swift.model
    import torch

    from emolib.engines.swift_setup import ModelFolder, import_swift, load_model

    import_swift()
    asked: list[dict[str, Any]] = []

    def load(folder: str, **options: Any) -> Any:
        asked.append(options)
        return torch.nn.Linear(1, 1), object()

    monkeypatch.setattr(swift.model, "get_model_processor", load)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda number: (100 + number, 999))
    config = '{"architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl"}'
    (tmp_path / "config.json").write_text(config)
    found = ModelFolder(tmp_path, "qwen3_vl", "float32")
    for changes in ({"device": "auto"}, {"device": "cuda:2"}, {"device": "cuda:2", "gpus": 2}):
        load_model(CUDA.model_copy(update=changes), found, "float32")
    placed = [(options["device_map"], options["max_memory"]) for options in asked]
    assert placed == [("cuda:0", None), ("cuda:2", None), ("auto", {2: 102, 3: 103})]


def test_servers_see_their_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "gpu_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    for changes, seen in (({}, "4"), ({"gpus": 2}, "4,5"), ({"device": "cuda:3"}, "7")):
        own = serving._own_gpus(CUDA.model_copy(update=changes))
        assert own == {"CUDA_VISIBLE_DEVICES": seen}
    assert serving._own_gpus(ModelParams(model="m", device="cpu")) == {"CUDA_VISIBLE_DEVICES": ""}


def test_a_tied_command_keeps_its_process_and_result() -> None:
    code = "import os, sys; print(os.getpid()); sys.exit(7)"
    child = subprocess.Popen(
        tied([sys.executable, "-c", code]),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert child.communicate()[0].strip() == str(child.pid)
    assert child.returncode == 7
