"""The process that trains: ``swift sft`` with this project's guarantees around it.

Started by :mod:`emolib.training.process` as ``python -m emolib.training.worker``. It dies with its
parent, prepares processors as the engines do, marks checkpoints that are complete, and does
not begin when ms-swift left rows out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from emolib.processes import die_with_parent
from emolib.training.process import COMPLETE


def main() -> None:
    """Read our own options, then give the rest to ms-swift."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--master", default="", help="HOST:PORT of the first node")
    parser.add_argument("--run_id", default="", help="the same on all nodes of one start")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--max_tiles", type=int, default=0)
    ours, rest = parser.parse_known_args()
    die_with_parent(ours.parent or os.getppid())
    if ours.processes * ours.nodes > 1:
        # The launcher takes this process's place and so keeps the signal; its workers get
        # their own when they come through here.
        command = [sys.executable, *launcher(ours), "-m", __spec__.name]
        command += ["--rows", str(ours.rows), "--max_tiles", str(ours.max_tiles), *rest]
        os.execv(sys.executable, command)
    train(rest, ours.rows, ours.max_tiles)


def launcher(ours: argparse.Namespace) -> list[str]:
    """Write torchrun's part of the command line."""
    command = ["-m", "torch.distributed.run", "--nproc_per_node", str(ours.processes)]
    if ours.nodes == 1:
        return [*command, "--standalone"]
    # The id keeps a node that still has the last start's settings out of this one.
    command += ["--nnodes", str(ours.nodes), "--rdzv_backend", "c10d"]
    return [*command, "--rdzv_endpoint", ours.master, "--rdzv_id", ours.run_id]


def padded(dataset: Any, world: int) -> Any:
    """Make the rows a multiple of ``world``: ms-swift would leave the last ones out.

    The first rows are then seen twice an epoch.
    """
    from torch.utils.data import Subset

    if not (left := len(dataset) % world):
        return dataset
    rows = range(len(dataset))
    return Subset(dataset, [*rows, *(i % len(rows) for i in range(world - left))])


def train(arguments: list[str], rows: int, max_tiles: int) -> None:
    """Run ``swift sft`` in this process on exactly ``rows`` rows."""
    import torch
    from swift.pipelines import SwiftSft
    from transformers import TrainerCallback

    from emolib.engines.swift_setup import prepare_every_processor

    prepare_every_processor(max_tiles)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not torch.cuda.is_available():
        # Without these the processes would train side by side, each for itself.
        arguments = [*arguments, "--use_cpu", "true", "--ddp_backend", "gloo"]

    class MarkComplete(TrainerCallback):
        """``on_save`` comes after model, optimiser, random states and trainer state."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            import torch.distributed as dist

            if dist.is_available() and dist.is_initialized():
                dist.barrier()  # the other ranks write their random states themselves
            if state.is_world_process_zero:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                (folder / COMPLETE).touch()

    class Sft(SwiftSft):
        def train(self, trainer: Any) -> Any:
            trainer.add_callback(MarkComplete())
            kept = len(trainer.train_dataset)
            if kept != rows:
                raise SystemExit(
                    f"{rows - kept} of {rows} rows cannot be trained on, most likely because "
                    f"they are longer than max_length = {trainer.template.max_length}; raise "
                    "it, lower max_tiles, or shorten the rows"
                )
            together = trainer.accelerator.num_processes
            if together != world:
                raise SystemExit(f"{together} of {world} processes train together")
            trainer.train_dataset = padded(trainer.train_dataset, world)
            return super().train(trainer)

    Sft(arguments).main()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()  # left open, its threads abort the exit at times


if __name__ == "__main__":
    main()
