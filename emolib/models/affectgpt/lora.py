"""LoRA in AffectGPT's language model: the design of 2025 trains it beside the branches."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from emolib.errors import EngineError
from emolib.models.affectgpt.modeling import LORA, AffectGPTForConditionalGeneration


def add_lora(
    model: AffectGPTForConditionalGeneration, rank: int, alpha: float, dropout: float
) -> list[str]:
    """Put a LoRA on every linear layer of the language model but its output layer, in place.

    A new LoRA changes nothing until it is trained. Its weights are fp32 whatever the language
    model's are; one of its two factors is drawn from torch's random state.

    Args:
        model: Without a LoRA.
        rank: Width of the low-rank update.
        alpha: Its scale is ``alpha / rank``.
        dropout: On its input, in training.

    Returns:
        Names of the new parameters in the model.

    Raises:
        EngineError: there is one already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    if lora_settings(model) is not None:
        raise EngineError("the language model has a LoRA already")
    language = model.language_model
    last = language.get_output_embeddings()
    targets = [
        name
        for name, module in language.named_modules()
        if isinstance(module, nn.Linear) and module is not last
    ]
    settings = {"rank": rank, "alpha": alpha, "dropout": dropout}
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    inject_adapter_in_model(config, language)
    model.lora = settings
    for name, parameter in model.named_parameters():
        if LORA in name:
            parameter.data = parameter.data.float()
    model.train(model.training)  # its dropout is new
    return [name for name, _ in model.named_parameters() if LORA in name]


def lora_settings(model: AffectGPTForConditionalGeneration) -> dict[str, Any] | None:
    """``rank``, ``alpha`` and ``dropout`` of a model's LoRA; None without one."""
    return getattr(model, "lora", None)


def merge_lora(model: AffectGPTForConditionalGeneration) -> None:
    """Add a LoRA to the weights it stands beside, and take it out again, in place.

    In half precision the sum is rounded: answers may differ in places from those before.
    """
    from peft.tuners.lora import LoraLayer

    if lora_settings(model) is None:
        return
    with torch.no_grad():
        for name, module in list(model.language_model.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge()
                parent, _, own = name.rpartition(".")
                setattr(model.language_model.get_submodule(parent), own, module.get_base_layer())
    del model.lora


def as_metadata(model: AffectGPTForConditionalGeneration) -> dict[str, str]:
    """A model's LoRA settings for a safetensors header."""
    settings = lora_settings(model)
    return {} if settings is None else {"lora": json.dumps(settings)}


def from_metadata(metadata: dict[str, str]) -> dict[str, Any] | None:
    """The opposite of :func:`as_metadata`."""
    return json.loads(metadata["lora"]) if "lora" in metadata else None
