"""The process that trains: ``swift sft`` with this project's guarantees around it.

Started by :mod:`emolib.training.process` as ``python -m emolib.training.worker``, alone or under
torchrun as :mod:`emolib.training.launch` plans it. It dies with its parent, prepares processors
as the engines do, marks checkpoints that are complete, and does not begin when ms-swift left rows
out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emolib.errors import TrainingError
from emolib.processes import die_with_parent
from emolib.training.process import COMPLETE


def main() -> None:
    """Read our own options, then give the rest to ms-swift."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--max_tiles", type=int, default=0)
    parser.add_argument("--max_pixels", type=int, default=0)
    ours, rest = parser.parse_known_args()
    die_with_parent(os.getppid())  # torchrun's, or the notebook
    train(rest, ours.rows, ours.max_tiles, ours.max_pixels)


def padded(dataset: Any, world: int) -> Any:
    """Make the rows a multiple of ``world``: ms-swift would leave the last ones out.

    The first rows are then seen twice an epoch.
    """
    from torch.utils.data import Subset

    if not (left := len(dataset) % world):
        return dataset
    rows = range(len(dataset))
    return Subset(dataset, [*rows, *(i % len(rows) for i in range(world - left))])


class Named:
    """Encode a row; an error names it, wherever in the loader's processes it came up."""

    def __init__(self, encode: Callable[..., Any]) -> None:
        self.encode = encode

    def __call__(self, row: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """See ms-swift's ``Template.encode``."""
        try:
            return self.encode(row, *args, **kwargs)
        except Exception as error:
            media = [
                one.get("path", "") if isinstance(one, dict) else one
                for kind in ("images", "videos", "audios")
                for one in row.get(kind) or ()
            ]
            said = str(row["messages"])[:300]
            raise TrainingError(
                f"a training row cannot be encoded ({type(error).__name__}: {error}); media "
                f"{media}, messages {said}"
            ) from error


def train(arguments: list[str], rows: int, max_tiles: int, max_pixels: int = 0) -> None:
    """Run ``swift sft`` in this process on exactly ``rows`` rows."""
    import torch
    from swift.pipelines import SwiftSft
    from transformers import TrainerCallback

    from emolib.engines.swift_setup import check_options, prepare_every_processor

    prepare_every_processor(max_tiles, max_pixels)
    check_options(arguments)
    world = int(os.environ.get("WORLD_SIZE", "1"))

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
                    "it, lower max_tiles or max_pixels, or shorten the rows"
                )
            together = trainer.accelerator.num_processes
            if together != world:
                raise SystemExit(f"{together} of {world} processes train together")
            for dataset in (trainer.train_dataset, trainer.eval_dataset):
                if dataset is not None:
                    dataset.encode_func = Named(dataset.encode_func)
            trainer.train_dataset = padded(trainer.train_dataset, world)
            return super().train(trainer)

    Sft(arguments).main()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()  # left open, its threads abort the exit at times


if __name__ == "__main__":
    main()
