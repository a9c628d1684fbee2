"""One training loop for all nano models: Muon, AdamW, warm-up, cosine; goes on after a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from emolib.demo.muon import Muon
from emolib.progress import Progress


class Phase(NamedTuple):
    """One phase of a training.

    Attributes:
        name: Of its checkpoint and bar.
        steps: Optimiser steps.
        rate: Peak learning rate.
        decay: AdamW's weight decay, for matrices.
        warmup: Part of the steps in which the rate rises.
        save: Steps between checkpoints.
        of: Steps the rate's course is drawn over; 0 = ``steps``. More: a phase that ends early.
        muon: Whether matrices are Muon's; else AdamW does all.
    """

    name: str
    steps: int
    rate: float
    decay: float = 0.05
    warmup: float = 0.05
    save: int = 200
    of: int = 0
    muon: bool = True


def train(
    modules: dict[str, torch.nn.Module],
    loss_at: Callable[[int], torch.Tensor],
    phase: Phase,
    folder: Path,
    check: Callable[[], str] | None = None,
) -> list[float]:
    """Train modules; every ``save`` steps their state is kept, and a killed run goes on from there.

    Args:
        modules: What is trained, by name; parameters without ``requires_grad`` stay.
        loss_at: Loss of a step. Random draws must depend on the step's number alone.
        phase: How long and how fast.
        folder: Where checkpoints are kept.
        check: Measures something; shown at every checkpoint.

    Returns:
        The loss of every step, those before a stop included.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{phase.name}.pt"
    named = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
    parameters = list(dict.fromkeys(named))
    optimizers = _optimizers(modules, parameters, phase)
    start = 0
    losses: list[float] = []
    if file.is_file():
        state = torch.load(file, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        start, losses = state["step"], state["losses"]
    for module in modules.values():
        module.train()
    with Progress(phase.name, phase.steps, done=start, unit="step") as bar:
        for step in range(start, phase.steps):
            rate = phase.rate * rate_at(step / (phase.of or phase.steps), phase.warmup)
            for group in (g for optimizer in optimizers for g in optimizer.param_groups):
                group["lr"] = rate
            loss = loss_at(step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            recent = losses[-50:]
            bar.advance(note=f"loss {sum(recent) / len(recent):.3f}")
            if (step + 1) % phase.save == 0 or step + 1 == phase.steps:
                _save(file, modules, optimizers, losses)
                said = f", {check()}" if check else ""
                print(f"{phase.name} {step + 1}: loss {sum(recent) / len(recent):.3f}{said}")
                for module in modules.values():
                    module.train()
    for module in modules.values():
        module.eval()
    return losses


def _optimizers(
    modules: dict[str, torch.nn.Module], parameters: list[torch.nn.Parameter], phase: Phase
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks if wanted, AdamW for all else."""
    inside = {
        id(part.weight)
        for name, module in modules.items()
        if name != "heads"
        for part in module.modules()
        if isinstance(part, torch.nn.Linear) and phase.muon
    }
    matrices = [p for p in parameters if id(p) in inside]
    others = [p for p in parameters if id(p) not in inside]
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": phase.decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=phase.rate,
        betas=(0.9, 0.98),
    )
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, lr=phase.rate, weight_decay=phase.decay)]


def ends(losses: list[float]) -> list[float]:
    """Give the mean loss of the first and of the last tenth of a phase's steps."""
    tenth = max(1, len(losses) // 10)
    return [round(sum(part) / len(part), 4) for part in (losses[:tenth], losses[-tenth:]) if part]


def rate_at(progress: float, warmup: float) -> float:
    """Give the rate relative to its peak: linear up, cosine down to a hundredth."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _save(
    file: Path,
    modules: dict[str, torch.nn.Module],
    optimizers: list[torch.optim.Optimizer],
    losses: list[float],
) -> None:
    states = {name: module.state_dict() for name, module in modules.items()}
    draft = file.with_suffix(".tmp")
    torch.save(
        {
            "modules": states,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": len(losses),
            "losses": losses,
        },
        draft,
    )
    draft.replace(file)


class Clock:
    """Processor and wall seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Give ``wall_s`` and ``cpu_s``."""
        return {
            "wall_s": round(time.perf_counter() - self._wall, 1),
            "cpu_s": round(time.process_time() - self._cpu, 1),
        }


def spread_weights(modules: Iterable[torch.nn.Module], seed: int, gain: float = 0.7) -> None:
    """Start linear and convolution weights at ``gain / sqrt(inputs)``: small widths need more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in modules:
            for part in module.modules():
                if isinstance(part, torch.nn.Linear | torch.nn.Conv2d):
                    weight: Any = part.weight
                    std = gain * weight[0].numel() ** -0.5
                    weight.normal_(0.0, std, generator=generator)
