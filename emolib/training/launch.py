"""The launch plan of a training: its GPUs, processes, command line, environment and DeepSpeed.

A pure function of the parameters and of the number of GPUs, so that it can be checked for any
machine. Both trainings (LoRA and AffectGPT) start by it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.engines.gpus import VARIABLE, choose_gpus
from emolib.errors import MissingDependencyError, ParamsError
from emolib.files import read_json
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams
from emolib.params.training import LoraParams

# What torchrun or a job scheduler's launcher sets for its own processes. A training started in
# such an environment would take itself for one of them.
_LAUNCHERS_OWN = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "GROUP_RANK"),
    *("NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
)


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How the processes of a training are started on one machine.

    Attributes:
        visible: GPUs the training sees, as ``CUDA_VISIBLE_DEVICES`` names them; exactly one for
            each process. () = it runs on the CPU.
        processes: Processes on this machine.
        nodes: Machines.
        launcher: torchrun's part of the command line, after the interpreter; () = none needed.
        arguments: What ``swift sft`` is told about devices.
        deepspeed: ms-swift's name of the DeepSpeed settings; "" = none.
    """

    visible: tuple[str, ...]
    processes: int
    nodes: int
    launcher: tuple[str, ...]
    arguments: tuple[str, ...]
    deepspeed: str

    @property
    def per_process(self) -> tuple[tuple[str, ...], ...]:
        """The GPUs each process of this machine computes on, in order of local ranks."""
        return tuple((name,) for name in self.visible) or ((),) * self.processes

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return ``base`` limited to the plan's GPUs, without another launcher's variables."""
        return limited(base, self.visible)

    def command(self, module: str, arguments: Sequence[str]) -> list[str]:
        """Write the command line that runs ``module`` in every process.

        Args:
            module: Of emolib, run with ``python -m``.
            arguments: Its own; those on devices are appended.
        """
        return [sys.executable, *self.launcher, "-m", module, *arguments, *self.arguments]

    def deepspeed_config(self) -> dict[str, Any]:
        """Read ms-swift's file of the DeepSpeed settings; {} without DeepSpeed.

        Raises:
            MissingDependencyError: ms-swift is not installed.
        """
        if not self.deepspeed:
            return {}
        spec = importlib.util.find_spec("swift")
        if spec is None or spec.origin is None:
            raise MissingDependencyError("trainings need ms-swift: pip install 'emolib[train]'")
        return dict(read_json(Path(spec.origin).parent / "config" / f"{self.deepspeed}.json"))


def launch_plan(
    recipe: LoraParams | SftParams,
    gpus: int,
    model: ModelParams,
    *,
    given: str | None = None,
    run_id: str = "",
) -> LaunchPlan:
    """Plan a training: one GPU for each of its processes, and no other GPU visible.

    Args:
        recipe: ``processes``, ``deepspeed`` and, of a LoRA, ``nodes`` and the first one's
            address are read.
        gpus: GPUs visible on this machine, see :func:`emolib.engines.gpus.gpu_count`; 0 = the
            processes compute on the CPU and talk over gloo.
        model: Its ``device`` is read: "cpu", "cuda", "auto", or "cuda:K" to begin with GPU K.
        given: ``CUDA_VISIBLE_DEVICES`` of this process; its names are kept. None = not set.
        run_id: The same on all nodes of one start; only read with several nodes.

    Returns:
        The plan; no rule of ms-swift is broken, see :func:`broken_rules`.

    Raises:
        ParamsError: fewer GPUs are visible than there are processes, or a GPU is asked for
            where there is none.

    Example:
        >>> plan = launch_plan(SftParams(processes=4), 8, ModelParams(model="m", device="cuda"))
        >>> plan.visible, plan.launcher
        (('0', '1', '2', '3'), ('-m', 'torch.distributed.run', '--nproc_per_node', '4', \
'--standalone'))
    """
    nodes = recipe.nodes if isinstance(recipe, LoraParams) else 1
    visible = _visible(recipe.processes, gpus, model.device, given)
    # DeepSpeed wants a process group even for one process.
    together = recipe.processes * nodes > 1 or recipe.deepspeed != ""
    launcher: tuple[str, ...] = ()
    if together:
        launcher = ("-m", "torch.distributed.run", "--nproc_per_node", str(recipe.processes))
        launcher += _rendezvous(recipe, run_id) if nodes > 1 else ("--standalone",)
    arguments: tuple[str, ...] = ()
    if not visible and (together or model.device == "cpu"):
        arguments = ("--use_cpu", "true")  # else transformers refuses bfloat16 without a GPU
    if not visible and together:
        arguments += ("--ddp_backend", "gloo")  # else each would train for itself
    plan = LaunchPlan(visible, recipe.processes, nodes, launcher, arguments, recipe.deepspeed)
    if broken := broken_rules(len(plan.visible), plan.processes, plan.nodes, plan.deepspeed):
        raise ParamsError("; ".join(broken))
    return plan


def limited(base: Mapping[str, str], visible: Sequence[str]) -> dict[str, str]:
    """Return an environment in which exactly these GPUs are visible to a training."""
    kept = {name: value for name, value in base.items() if name not in _LAUNCHERS_OWN}
    return kept | {VARIABLE: ",".join(visible)}


def _visible(processes: int, gpus: int, device: str, given: str | None) -> tuple[str, ...]:
    try:
        return choose_gpus(device, processes, gpus, given)
    except ParamsError as error:
        raise ParamsError(
            f"processes: {processes} (one GPU each): {error}. Lower processes and raise accumulate "
            "by the same factor, which keeps the rows of a step"
        ) from None


def _rendezvous(recipe: LoraParams | SftParams, run_id: str) -> tuple[str, ...]:
    assert isinstance(recipe, LoraParams)
    # The id keeps a node that still has the last start's settings out of this one.
    return (
        *("--nnodes", str(recipe.nodes), "--rdzv_backend", "c10d"),
        *("--rdzv_endpoint", f"{recipe.master_addr}:{recipe.master_port}", "--rdzv_id", run_id),
    )


def broken_rules(visible: int, processes: int, nodes: int = 1, deepspeed: str = "") -> list[str]:
    """Name the rules on devices that a start would break, as ms-swift 4.6.0 applies them.

    Args:
        visible: GPUs that every process of this machine sees.
        processes: Processes on this machine.
        nodes: Machines.
        deepspeed: Name of DeepSpeed settings; "" = none.

    Returns:
        One sentence for each broken rule; [] = the processes start as data-parallel ones with a
        GPU each, or on CPUs.
    """
    if not visible:
        return []
    # swift/utils/env.py:66 is_mp: asserts n_gpu % local_world_size == 0
    if visible % processes:
        return [f"ms-swift refuses {visible} visible GPUs for {processes} processes: no multiple"]
    each = visible // processes
    # the same: n_gpu // local_world_size >= 2 means model parallelism
    if each < 2:
        return []
    broken = [
        # swift/model/utils.py:229 get_default_device_map: then device_map is "auto"
        f"{visible} visible GPUs for {processes} processes: ms-swift would spread the model of "
        f"each over {each} GPUs (device_map auto)"
    ]
    if processes * nodes > 1:
        # swift/model/patcher.py:544 patch_mp_ddp, whose call of get_balanced_memory
        # transformers 5 refuses (no_placement_params)
        broken.append("ms-swift's model parallelism fails in several processes on transformers 5")
    if deepspeed:
        # swift/arguments/sft_args.py:252 _init_deepspeed
        broken.append(f"ms-swift refuses DeepSpeed ({deepspeed}) together with device_map")
    return broken
