"""The trained part of AffectGPT as a file of its own: 0.18 GB instead of the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from emolib.errors import EngineError, MissingModelError
from emolib.files import write_atomic
from emolib.models.affectgpt.lora import add_lora, as_metadata, from_metadata, lora_settings
from emolib.models.affectgpt.modeling import LORA, TRAINED, AffectGPTForConditionalGeneration

BRANCHES = "branches.safetensors"
#: Tensors and numbers of the paper's trainable set, at the published sizes.
PUBLISHED = (116, 44_959_744)


def check_trainable(model: AffectGPTForConditionalGeneration) -> tuple[int, int]:
    """Make sure that exactly the design's set is trained: the branches whole, LoRA if there is one.

    Returns:
        (tensors, numbers): :data:`PUBLISHED` at the published sizes of 2024.

    Raises:
        EngineError: another set; names what is missing and what is too much.
    """
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    wanted = set(model.freeze_towers())  # raises where the branches themselves are odd
    if trained != wanted:
        raise EngineError(
            f"not the paper's trainable set: {_some(wanted - trained)} frozen, "
            f"{_some(trained - wanted)} trained besides the branches"
        )
    numbers = sum(p.numel() for name, p in model.named_parameters() if name in wanted)
    found = len(wanted), numbers
    if _is_full_size(model) and found != PUBLISHED:
        raise EngineError(f"{found} trainable tensors and numbers, published are {PUBLISHED}")
    return found


def save_branches(
    model: AffectGPTForConditionalGeneration,
    path: Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write the branches, and the language model's LoRA if it has one, atomically.

    Args:
        model: Whose they are.
        path: File to write.
        weights: What is trained, by name, where the model holds it only rounded; None: the
            model's own.
    """
    own = _own(model) | dict(weights or {})
    tensors = {name: t.detach().cpu().contiguous() for name, t in own.items()}
    return write_atomic(path, save(tensors, metadata=as_metadata(model)))


def load_branches(model: AffectGPTForConditionalGeneration, path: Path) -> None:
    """Put trained branches into a model, in place; a LoRA in the file is added to a model without.

    Raises:
        MissingModelError: no such file, or damaged.
        EngineError: branches of another model: names or shapes differ.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            settings = from_metadata(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise MissingModelError(f"{path}: no trained branches to be read: {error}") from None
    if settings is not None and lora_settings(model) is None:
        add_lora(model, **settings)
    own = _own(model)
    odd = set(own.keys() ^ tensors.keys())
    odd |= {name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape}
    if odd:
        raise EngineError(f"{path} does not fit this model: {_some(odd)} differ")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _own(model: AffectGPTForConditionalGeneration) -> dict[str, torch.Tensor]:
    """What is trained, by name."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.startswith(TRAINED) or LORA in name
    }


def _is_full_size(model: AffectGPTForConditionalGeneration) -> bool:
    config = model.config
    if (config.fusion, config.pre_fusion) != ("qformer", "none") or lora_settings(model):
        return False
    sizes = [
        (c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.encoder_hidden_size)
        for c in (config.video_qformer_config, config.audio_qformer_config)
    ]
    return (
        sizes == [(768, 3072, 2, 768), (768, 3072, 2, 1024)]
        and (config.video_tokens, config.audio_tokens) == (32, 8)
        and (config.max_frames, config.max_clips) == (32, 8)
        and config.text_config.hidden_size == 4096
    )


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:2])
    return f"{len(names)} ({shown}{', …' if len(names) > 2 else ''})" if names else "none"
