"""How fast AffectGPT trains: with cached towers, without, and as a plain loop.

    python benchmarks/affectgpt.py                      # tiny, on a CPU
    python benchmarks/affectgpt.py --full --out FILE    # full size, random weights, one GPU

Three ways to train on the same clips of the demo world, each counted in training samples a
second after one epoch that is not counted:

* plain: one sample a forward pass, media decoded and encoded anew each time, as the published
  code reads them;
* uncached: batches, media decoded and encoded each time;
* cached: batches, the frozen towers' outputs from disk.

Filling the cache is timed by itself: it is paid once, not once an epoch.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emolib.datasets.open import open_dataset
from emolib.engines.tiny import tiny_folder
from emolib.files import write_json
from emolib.hashing import sha_file
from emolib.models.affectgpt import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTProcessor,
)
from emolib.models.affectgpt.cache import (
    FeatureCache,
    compute_features,
    pack_frames,
    tower_identity,
)
from emolib.models.affectgpt.media import read_clip, read_sound
from emolib.params import DataParams
from emolib.sft.data import clip_rows

TARGET = 30.0  # samples a second on one H200; the paper's run made about 3.4 an A800


def build_model(full: bool, home: Path, device: str) -> tuple[Any, Any]:
    """The tiny checkpoint, or the published sizes with random weights and the tiny tokenizer."""
    folder = tiny_folder("affectgpt", home / "models")
    processor = AffectGPTProcessor.from_pretrained(folder)
    if not full:
        model = AffectGPTForConditionalGeneration.from_pretrained(folder)
        return model.to(device), processor
    config = AffectGPTConfig()
    tokenizer = processor.tokenizer
    config.video_token_id, config.audio_token_id = (
        processor.video_token_id,
        processor.audio_token_id,
    )
    config.suppressed_token_ids = [config.video_token_id, config.audio_token_id]
    processor = AffectGPTProcessor.for_config(config, tokenizer)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = AffectGPTForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    for name in ("image_qformer", "video_branch", "audio_branch"):
        getattr(model, name).float()
    return model, processor


class Media:
    """Where a batch's videos and sounds come from."""

    def __init__(self, rows: Sequence[dict[str, Any]], processor: Any, device: str) -> None:
        self.rows, self.processor, self.device = rows, processor, device

    def batch(self, numbers: Sequence[int], cache: FeatureCache | None) -> dict[str, Any]:
        """Model inputs of some rows."""
        rows = [self.rows[n] for n in numbers]
        prompts = [row["messages"][0]["content"] for row in rows]
        answers = [row["messages"][1]["content"] for row in rows]
        if cache is None:
            data = self.processor(
                prompts,
                videos=[read_clip(Path(row["videos"][0])) for row in rows],
                audio=[read_sound(Path(row["audios"][0])) for row in rows],
                answers=answers,
            )
            return {key: value.to(self.device) for key, value in data.items()}
        encoded = [
            self.processor.encode([(prompt, answer)])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        data = self.processor._padded(encoded, "right")
        data |= pack_frames([cache.get("video", sha_file(Path(r["videos"][0]))) for r in rows])
        sounds = [cache.get("audio", sha_file(Path(row["audios"][0]))) for row in rows]
        data["clip_features"] = torch.stack(sounds)
        return {key: value.to(self.device) for key, value in data.items()}


def epoch(
    model: Any, optimizer: Any, count: int, size: int, make: Callable[[list[int]], dict[str, Any]]
) -> float:
    """Train on every row once; seconds."""
    synchronise = torch.cuda.synchronize if torch.cuda.is_available() else (lambda: None)
    order = np.random.default_rng(0).permutation(count).tolist()
    synchronise()
    start = time.perf_counter()
    for at in range(0, count, size):
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available()):
            loss = model(**make(order[at : at + size])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    synchronise()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="published sizes, random weights")
    parser.add_argument("--clips", type=int, default=48, help="clips of the demo world")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5, help="counted epochs each way")
    parser.add_argument("--work", type=Path, default=Path("outputs"), help="demo data, models")
    parser.add_argument("--out", type=Path, default=None, help="record to write")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.full and device == "cpu":
        raise SystemExit("--full needs a GPU of 40 GB or more; there is none on this machine")
    model, processor = build_model(args.full, args.work, device)
    model.freeze_towers()
    model.train()
    model.gradient_checkpointing_disable()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-5)
    clips = open_dataset(DataParams(kind="demo", clips=args.clips), args.work)
    rows = clip_rows([clip for clip in clips if clip.description], "paper")
    media = Media(rows, processor, device)
    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), tower_identity(model, processor))
        start = time.perf_counter()
        for kind, read in (("video", read_clip), ("audio", read_sound)):
            files = [Path(row[f"{kind}s"][0]) for row in rows]
            todo = ((sha_file(f), lambda f=f, read=read: read(f)) for f in files)
            compute_features(cache, model, processor, kind, todo)
        filling = time.perf_counter() - start
        ways: dict[str, tuple[int, FeatureCache | None]] = {
            "plain": (1, None),
            "uncached": (args.batch, None),
            "cached": (args.batch, cache),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.epochs + 1):  # in turn, so that what else runs hits all alike
            for name, (size, kept) in ways.items():
                make = partial(media.batch, cache=kept)
                times[name].append(epoch(model, optimizer, len(rows), size, make))
    rates = {name: len(rows) / statistics.median(taken[1:]) for name, taken in times.items()}
    cpu = f"{os.cpu_count()} CPU cores, {platform.machine()}"
    record = {
        "command": f"python benchmarks/affectgpt.py{' --full' if args.full else ''}"
        f" --clips {args.clips} --batch {args.batch} --epochs {args.epochs}",
        "size": "published, random weights" if args.full else "tiny:affectgpt",
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu,
        "note": "" if device == "cuda" else "no GPU was available; the full size was not run",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clips": len(rows),
        "batch": args.batch,
        "samples_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "cached_over_uncached": round(rates["cached"] / rates["uncached"], 2),
        "cached_over_plain": round(rates["cached"] / rates["plain"], 2),
        "seconds_to_fill_the_cache": round(filling, 2),
    }
    if args.full:
        record["target_samples_per_second"] = TARGET
    print(record)
    if args.out is not None:
        write_json(args.out, record)


if __name__ == "__main__":
    main()
