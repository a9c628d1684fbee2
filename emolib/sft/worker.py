"""The process that trains AffectGPT: ``swift sft`` with this project's guarantees around it.

Started by :mod:`emolib.sft.train` as ``python -m emolib.sft.worker``, alone or under torchrun as
:mod:`emolib.training.launch` plans it. It dies with its parent,
fills the feature cache, checks that exactly the paper's set is trained, follows the plan's order
and keeps the branches alone at every checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emolib.processes import die_with_parent
from emolib.sft.train import BRANCHES, TRAINABLE
from emolib.training.process import COMPLETE
from emolib.training.worker import Named


def main() -> None:
    """Read our own options, then give the rest to ms-swift."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--order", type=Path, required=True)
    parser.add_argument("--resume", default="")
    parser.add_argument("--lora", type=json.loads, default=None)
    ours, rest = parser.parse_known_args()
    die_with_parent(os.getppid())  # torchrun's, or the notebook
    train(rest, ours.rows, ours.order, ours.resume, ours.lora)


def train(
    arguments: list[str], rows: int, order: Path, resume: str, lora: dict[str, Any] | None
) -> None:
    """Run ``swift sft`` in this process on exactly ``rows`` rows in the given order."""
    import torch
    from swift.pipelines import SwiftSft

    import emolib.models.affectgpt.swift_plugin  # noqa: F401  (registers model and template)
    from emolib.models.affectgpt.lora import add_lora
    from emolib.models.affectgpt.trained import check_trainable, load_branches, save_branches

    world, deepspeed = int(os.environ.get("WORLD_SIZE", "1")), "--deepspeed" in arguments

    class Sft(SwiftSft):
        def run(self) -> Any:
            self.template.save_callback = _save
            if lora is not None:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.args.seed)
                    add_lora(self.model, **lora)
            fill_cache(self.model, self.processor, arguments, set(np.load(order).tolist()))
            return super().run()

        def _get_resume_checkpoint(self, trainer: Any) -> str | None:
            # Not ms-swift's own option, which would read the whole model from there.
            return resume or None

        def train(self, trainer: Any) -> Any:
            kept = len(trainer.train_dataset)
            if kept != rows:
                raise SystemExit(f"ms-swift left {rows - kept} of {rows} rows out")
            together = trainer.accelerator.num_processes
            if together != world:
                raise SystemExit(f"{together} of {world} processes train together")
            tensors, parameters = check_trainable(trainer.model)
            if trainer.is_world_process_zero():
                text = json.dumps({"tensors": tensors, "parameters": parameters})
                (Path(trainer.args.output_dir) / TRAINABLE).write_text(text)
            for dataset in (trainer.train_dataset, trainer.eval_dataset):
                if dataset is not None:
                    dataset.encode_func = Named(dataset.encode_func)
            trainer.train_dataset = InOrder(trainer.train_dataset, np.load(order))
            trainer.add_callback(_mark_complete())
            trainer._load_from_checkpoint = _load
            if deepspeed:
                from emolib.sft.zero import adapt

                adapt(trainer)  # and loads by itself: states and branches
            return super().train(trainer)

    def _save(model: Any, folder: str) -> None:
        save_branches(model, Path(folder) / BRANCHES)

    def _load(checkpoint: str, model: Any = None) -> None:
        if model is None:  # the second call, for engines that wrap the model, has nothing to add
            load_branches(sft.model, Path(checkpoint) / BRANCHES)

    sft = Sft(arguments)
    sft.main()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()  # left open, its threads abort the exit at times


class InOrder:
    """A data set seen in a given order; rows may come again."""

    def __init__(self, dataset: Any, order: np.ndarray) -> None:
        self.dataset, self.order = dataset, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> Any:
        return self.dataset[int(self.order[number])]


def fill_cache(model: Any, processor: Any, arguments: list[str], seen: set[int]) -> None:
    """Run the frozen towers over every medium of the rows that is not cached yet.

    Each process takes its share. Cost: a forward pass of the image tower for each frame; 332
    clips and 3,439 pictures are 6,095 frames.

    Args:
        model: With the towers.
        processor: Its own.
        arguments: ``swift sft``'s, which name the files of rows.
        seen: Numbers of the training rows that come in the plan; the others cost nothing.
    """
    folder = os.environ.get("AFFECTGPT_CACHE")
    if not folder:
        return
    import torch
    import torch.distributed as dist

    from emolib.hashing import key_of, sha_file
    from emolib.models.affectgpt.cache import FeatureCache, Kind, compute_features, tower_identity
    from emolib.models.affectgpt.media import read_clip, read_sound

    shared = dist.is_available() and dist.is_initialized()
    rank, size = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
    if torch.cuda.is_available() and model.device.type == "cpu":
        model.to(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    identity = tower_identity(model, processor)
    own = Path(folder) / key_of(**identity)[:12]
    os.environ["AFFECTGPT_CACHE"] = str(own)  # where the template looks, in every process of ours
    cache = FeatureCache(own, identity)
    frames = processor.video_processor.num_frames
    readers: tuple[tuple[Kind, Callable[[Path], Any]], ...] = (
        ("video", partial(read_clip, frames=frames)),
        ("audio", partial(read_sound, channels=processor.feature_extractor.reference_compat)),
    )
    for kind, read in readers:
        paths = sorted(set(_media(arguments, f"{kind}s", seen)))[rank::size]
        todo = ((sha_file(path), partial(read, path)) for path in paths)
        computed = compute_features(cache, model, processor, kind, todo)
        print(f"{kind}: {computed} of {len(paths)} encoded, the others were cached", flush=True)
    if shared:
        dist.barrier()


def _media(arguments: list[str], field: str, seen: set[int]) -> Iterator[Path]:
    for option in ("--dataset", "--val_dataset"):
        if option in arguments:
            file = Path(arguments[arguments.index(option) + 1])
            with file.open(encoding="utf-8") as lines:  # split at line feeds alone
                for number, line in enumerate(lines):
                    # ms-swift encodes the first row to show it, whether or not the plan has it.
                    if number in seen or number == 0 or option == "--val_dataset":
                        yield from map(Path, json.loads(line)[field])


def _mark_complete() -> Any:
    from transformers import TrainerCallback

    class MarkComplete(TrainerCallback):
        """``on_save`` comes after branches, optimiser, random states and trainer state."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            import torch.distributed as dist

            if dist.is_available() and dist.is_initialized():
                dist.barrier()  # the other ranks write their random states themselves
            if not state.is_world_process_zero:
                return
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / COMPLETE).touch()
            for older in folder.parent.glob("checkpoint-*"):
                if older != folder:  # only the newest is ever gone on from
                    for pattern in ("optimizer.pt", "scheduler.pt", "latest", "zero_to_*.py"):
                        for file in older.glob(pattern):
                            file.unlink()
                    for states in older.glob("global_step*"):  # DeepSpeed's optimisers
                        shutil.rmtree(states)

    return MarkComplete()


if __name__ == "__main__":
    main()
