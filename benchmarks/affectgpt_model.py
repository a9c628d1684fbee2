"""AffectGPT with random weights for the benchmark, rows of the paper's lengths, and arithmetic.

Weights are made where the model runs, so the published sizes need neither checkpoints nor disk
space. Speed does not depend on their values.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import weightless

from emolib import sft
from emolib.datasets.open import open_dataset
from emolib.engines.tiny import tiny_folder
from emolib.models.affectgpt import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTProcessor,
)
from emolib.models.affectgpt.modeling import TRAINED
from emolib.params import DataParams
from emolib.params.affectgpt import SftParams

TOWERS = ("vision_config", "image_qformer_config", "audio_config", "text_config")


def design(home: Path, narrow: bool = False, layers: int = 0) -> tuple[AffectGPTConfig, Any]:
    """The published sizes with the tiny tokenizer, and the processor that goes with them.

    Args:
        home: Where the tiny checkpoint is kept.
        narrow: The tiny checkpoint's own sizes instead.
        layers: At most so many in each frozen tower and the language model; 0 = all.
    """
    folder = tiny_folder("affectgpt", home / "models")
    processor = AffectGPTProcessor.from_pretrained(folder)
    if narrow:
        config = AffectGPTConfig.from_pretrained(folder)
    else:
        config = AffectGPTConfig()
        ids = [processor.video_token_id, processor.audio_token_id]
        config.video_token_id, config.audio_token_id = ids
        config.suppressed_token_ids = ids
        processor = AffectGPTProcessor.for_config(config, processor.tokenizer)
    for name in TOWERS if layers else ():
        tower = getattr(config, name)
        tower.num_hidden_layers = min(layers, tower.num_hidden_layers)
    return config, processor


def build(config: AffectGPTConfig, device: str, dtype: torch.dtype) -> Any:
    """Make the model with random weights where it runs; no second copy exists anywhere.

    The image Q-Former and the branches are fp32 whatever ``dtype`` says, as on loading.
    """
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(config).to(dtype)
    for name in ("image_qformer", *TRAINED):
        if hasattr(model, name):
            getattr(model, name).float()
    return weightless.fill(model, model.language_model.model, device)


def write_folder(config: AffectGPTConfig, processor: Any, folder: Path) -> Path:
    """Write what ms-swift reads beside weights."""
    return weightless.write_folder(config, processor, folder, AffectGPTForConditionalGeneration)


def built_on_load(device: str) -> AbstractContextManager[None]:
    """Within, a folder of :func:`write_folder` is loaded by making its weights on ``device``."""

    def made(config: AffectGPTConfig, more: dict[str, Any]) -> Any:
        return build(config, device, more.get("dtype") or more.get("torch_dtype"))

    return weightless.built_on_load(AffectGPTForConditionalGeneration, made)


def write_rows(
    home: Path, processor: Any, clips: int, share: float, answer: int, caption: int
) -> tuple[list[dict[str, Any]], int]:
    """Training rows of the demo world, clips first, with answers as long as asked.

    Args:
        home: Where the demo world is kept.
        processor: Counts tokens.
        clips: Clips of the world; those with a description are trained on.
        share: Pictures are made where it is above 0.
        answer: Mean tokens of a description; each has between half and one and a half times as
            many. 0 = the world's own words.
        caption: The same of a picture's caption.

    Returns:
        The rows, and how many of them are of clips.
    """
    data = DataParams(kind="demo", clips=clips)
    described = [clip for clip in open_dataset(data, home) if clip.description]
    rows = sft.clip_rows(described, "paper")
    shown = sft.picture_rows(sft.open_pictures("", data, home, "benchmark", share))
    rng = np.random.default_rng(0)
    for mean, part in ((answer, rows), (caption, shown)):
        for row, scale in zip(part, rng.uniform(0.5, 1.5, len(part)), strict=True):
            if mean:
                said = row["messages"][1]
                said["content"] = of_length(processor, said["content"], round(mean * scale))
    return [*rows, *shown], len(rows)


def written(args: argparse.Namespace, processor: Any) -> tuple[list[dict[str, Any]], int]:
    """The rows that the options ask for."""
    return write_rows(*(args.work, processor, args.clips, args.pictures, args.answer, args.caption))


def planned(rows: Sequence[Any], clips: int, share: float, recipe: SftParams) -> sft.Plan:
    """The order of the rows that the training stage would take."""
    return sft.plan(clips, len(rows) - clips, share, recipe, 0)


def of_length(processor: Any, text: str, tokens: int) -> str:
    """Repeat and cut a text to about so many tokens."""
    ids = processor.tokenizer.encode(text, add_special_tokens=False)
    times = -(-tokens // len(ids))
    return processor.tokenizer.decode((ids * times)[:tokens]).strip()


def step_flops(
    language_model: Any, lengths: Sequence[int], *, causal: bool = True
) -> tuple[float, float]:
    """Floating-point operations of the language model in a training step; x·y + z counts two.

    Its frozen matrices pass the gradient on (as much again as forward) and have none of their
    own; each of attention's two products needs the gradients of both factors. Branches (0.3 % of
    the weights) and towers are left out, and what gradient checkpointing computes again.

    Args:
        language_model: With or without storage.
        lengths: Tokens of each row, padding not counted.
        causal: Count the half of attention that a causal mask leaves; False counts the whole
            square, as a profiler does.

    Returns:
        (forward, forward and backward).
    """
    config = language_model.config
    matrices = sum(
        w.numel()
        for name, w in language_model.named_parameters()
        if w.ndim == 2 and "embed" not in name
    )
    width = config.num_attention_heads * config.head_dim
    squares = float(np.square(np.asarray(lengths, np.float64)).sum())
    linear = 2.0 * matrices * sum(lengths)
    attention = (2.0 if causal else 4.0) * config.num_hidden_layers * width * squares
    return linear + attention, 2 * linear + 3 * attention
