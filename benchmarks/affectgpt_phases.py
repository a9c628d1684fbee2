"""The measurements of the AffectGPT benchmark.

Media, decoding and features go through the project's own code; ``affectgpt_swift`` times the
training stage itself. Clocks stop after the device has finished; first steps are left out.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import affectgpt_model as affectgpt
import torch
from affectgpt_swift import shipped
from measuring import Record, peak_memory, peak_speed, wait

from emolib.hashing import key_of, sha_file
from emolib.models.affectgpt.cache import (
    FeatureCache,
    compute_features,
    pack_frames,
    tower_identity,
)
from emolib.models.affectgpt.media import read_clip, read_sound
from emolib.params.affectgpt import SftParams

WARM_UP = 3  # steps that are not counted
APART = 4  # steps in which reading, towers and the rest are timed apart


def phases(batches: Sequence[int], swift: bool) -> list[str]:
    """Names of the measurements, in order: what is wanted most comes first."""
    names = ["fill", *(f"cached_{size}" for size in batches), f"checkpointed_{max(batches)}"]
    names += [*(f"uncached_{size}" for size in batches), "plain_1"]
    return [*names, "swift", "swift_kept"] if swift else names


class Media:
    """Where a batch's videos and sounds come from.

    Args:
        rows: Training rows.
        processor: The model's.
        device: Where batches go.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], processor: Any, device: str) -> None:
        self.rows, self.processor, self.device = rows, processor, device

    def batch(self, numbers: Sequence[int], cache: FeatureCache | None) -> dict[str, Any]:
        """Model inputs of some rows: decoded and prepared, or the towers' outputs from disk."""
        rows = [self.rows[n] for n in numbers]
        prompts = [row["messages"][0]["content"] for row in rows]
        answers = [row["messages"][1]["content"] for row in rows]
        seen = [Path(path) for row in rows for path in row["videos"]]
        if cache is None:
            data = self.processor(
                prompts,
                videos=[read_clip(path) for path in seen],
                audio=[
                    read_sound(Path(row["audios"][0])) if row["audios"] else None for row in rows
                ],
                answers=answers,
            )
            return {key: value.to(self.device) for key, value in data.items()}
        encoded = [
            self.processor.encode([(prompt, answer)])
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        data = self.processor._padded(encoded, "right")
        data |= pack_frames([cache.get("video", sha_file(path)) for path in seen])
        heard = [Path(path) for row in rows for path in row["audios"]]
        if heard:
            data["clip_features"] = torch.stack([cache.get("audio", sha_file(p)) for p in heard])
        return {key: value.to(self.device) for key, value in data.items()}


def fill(
    rows: Sequence[dict[str, Any]], folder: Path, model: Any, processor: Any, anew: bool = False
) -> tuple[FeatureCache, Record]:
    """Run the towers over every medium that is not cached; the cache, and what it cost.

    Args:
        rows: Their media.
        folder: A folder in it is of these towers.
        model: With the towers.
        processor: Its own.
        anew: Begin with an empty one, so that the cost is that of all media.
    """
    identity = tower_identity(model, processor)
    own = folder / key_of(**identity)[:12]
    if anew:
        shutil.rmtree(own, ignore_errors=True)
    cache = FeatureCache(own, identity)
    wait()
    start = time.perf_counter()
    found: Record = {}
    for kind, read in (("video", read_clip), ("audio", read_sound)):
        files = sorted({Path(path) for row in rows for path in row[f"{kind}s"]})
        todo = ((sha_file(f), lambda f=f, read=read: read(f)) for f in files)
        found[f"{kind}s"] = compute_features(cache, model, processor, kind, todo)
    wait()
    found["seconds"] = time.perf_counter() - start
    stored = [path.stat().st_size for path in cache.folder.rglob("*.safetensors")]
    return cache, found | {"cache_files": len(stored), "cache_bytes": sum(stored)}


class Loop:
    """A training loop over batches in the plan's order, round and round."""

    def __init__(self, model: Any, media: Media, order: Sequence[int], size: int) -> None:
        self.model, self.media = model, media
        self.batches: Iterator[list[int]] = self._batches(order, size)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=3e-5, fused=True)  # as the stage does

    @staticmethod
    def _batches(order: Sequence[int], size: int) -> Iterator[list[int]]:
        rows = itertools.cycle(order)
        while True:
            yield list(itertools.islice(rows, size))

    def learn(self, inputs: dict[str, Any]) -> None:
        """One step on a batch."""
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available()):
            loss = self.model(**inputs).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def epoch(self, order: Sequence[int], size: int, cache: FeatureCache | None) -> float:
        """Train on every row of ``order`` once; seconds."""
        wait()
        start = time.perf_counter()
        for at in range(0, len(order), size):
            self.learn(self.media.batch(order[at : at + size], cache))
        wait()
        return time.perf_counter() - start

    def run(self, cache: FeatureCache | None, seconds: float, most: int) -> Record:
        """Train for so long, at most so many steps and at least one; rates and lengths."""
        lengths: list[int] = []
        places = steps = 0
        wait()
        start = time.perf_counter()
        while not steps or (steps < most and time.perf_counter() - start < seconds):
            inputs = self.media.batch(next(self.batches), cache)
            lengths += inputs["attention_mask"].sum(1).tolist()
            places += inputs["input_ids"].numel()
            self.learn(inputs)
            steps += 1
        wait()
        took = time.perf_counter() - start
        flops = affectgpt.step_flops(self.model.language_model, lengths)[1]
        peak = peak_speed()
        return {
            "steps": steps,
            "samples": len(lengths),
            "seconds": took,
            "samples_per_second": len(lengths) / took,
            "tokens_per_sample": sum(lengths) / len(lengths),
            "longest": max(lengths),
            "padding": 1 - sum(lengths) / places,
            "llm_flops_per_sample": flops / len(lengths),
            "llm_mfu": flops / took / peak if peak else None,
        }

    def apart(self, cache: FeatureCache | None, steps: int) -> Record:
        """Seconds a sample of reading, towers and the rest, the device waited for in between."""
        spent, samples = dict.fromkeys(("reading", "towers", "step"), 0.0), 0

        def timed(part: str, work: Callable[[], Any]) -> Any:
            wait()
            start = time.perf_counter()
            done = work()
            wait()
            spent[part] += time.perf_counter() - start
            return done

        for _ in range(steps):
            numbers = next(self.batches)
            inputs = timed("reading", lambda numbers=numbers: self.media.batch(numbers, cache))
            inputs = timed("towers", lambda inputs=inputs: self._seen(inputs))
            timed("step", lambda inputs=inputs: self.learn(inputs))
            samples += len(numbers)
        return {f"{part}_s": seconds / samples for part, seconds in spent.items()}

    def _seen(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What the towers make of pixels and sound, in their place."""
        inputs, model = dict(inputs), self.model
        with torch.autocast("cuda", torch.bfloat16, enabled=torch.cuda.is_available()):
            if (pixels := inputs.pop("pixel_values_videos", None)) is not None:
                inputs["frame_features"] = model.encode_frames(pixels, inputs.get("video_mask"))
            if (mel := inputs.pop("input_features", None)) is not None:
                inputs["clip_features"] = model.encode_clips(mel)
        return inputs


def measure(args: argparse.Namespace) -> Record:
    """Take one measurement of ``--full`` in this process."""
    way, _, size = args.phase.partition("_")
    if way == "swift":
        return shipped(args, checkpointing=size != "kept")
    before, start = peak_memory(), time.perf_counter()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config, processor = affectgpt.design(args.work, args.narrow, args.layers)
    model = affectgpt.build(config, device, torch.bfloat16 if device == "cuda" else torch.float32)
    trained = len(model.freeze_towers())
    model.train()
    if way == "checkpointed":
        model.gradient_checkpointing_enable()
    wait()
    built = time.perf_counter() - start
    rows, clips = affectgpt.written(args, processor)
    weights = peak_memory()
    found: Record = {"build_s": built, "memory_before_bytes": before, "weights_bytes": weights}
    cache = None
    if way in ("fill", "cached", "checkpointed"):
        cache, cost = fill(rows, args.features, model, processor, anew=way == "fill")
        if way == "fill":
            return found | cost | {"peak_memory_bytes": peak_memory()}
    batch = int(size)
    plan = affectgpt.planned(rows, clips, args.pictures, SftParams(batch_size=batch, epochs=1))
    loop = Loop(model, Media(rows, processor, device), plan.order.tolist(), batch)
    loop.run(cache, args.seconds / 2, WARM_UP)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found |= loop.run(cache, args.seconds, args.steps)
    found["peak_memory_bytes"] = peak_memory()
    found["parts"] = loop.apart(cache, min(APART, args.steps))
    return found | {"batch": batch, "trained_tensors": trained}
