"""DeepSpeed's ZeRO beneath AffectGPT's training: checkpoints of what is trained, in full precision.

Left alone DeepSpeed writes the whole model at every checkpoint (16 GB at full size). With
``dtype: bfloat16`` it also turns every weight into bfloat16, the trained ones included; what they
really are (fp32) is divided among the optimisers of the processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from emolib.models.affectgpt.trained import BRANCHES, save_branches


def adapt(trainer: Any) -> None:
    """Let a trainer under DeepSpeed keep and load only what is trained.

    Args:
        trainer: ms-swift's, before ``train``.
    """
    from deepspeed import DeepSpeedEngine

    model = trainer.model
    # Asked on every process before the first one saves: putting fp32 together takes all of them.
    trainer.accelerator.get_state_dict = lambda _engine: exact_weights(model)
    trainer._save_model = lambda folder, weights: save_branches(
        model, Path(folder) / BRANCHES, weights
    )
    save, load = DeepSpeedEngine.save_checkpoint, DeepSpeedEngine.load_checkpoint

    def save_checkpoint(engine: Any, folder: str, **more: Any) -> Any:
        return save(engine, folder, **more | {"exclude_frozen_parameters": True})

    def load_checkpoint(engine: Any, folder: str, **more: Any) -> Any:
        return load(engine, folder, **more | {"load_module_strict": False})

    DeepSpeedEngine.save_checkpoint = save_checkpoint
    DeepSpeedEngine.load_checkpoint = load_checkpoint


def exact_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is trained, as the optimiser has it: fp32. To be called by all processes together."""
    from deepspeed.utils import safe_get_full_fp32_param

    found = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            exact = safe_get_full_fp32_param(weight)
            found[name] = weight if exact is None else exact
    return found
