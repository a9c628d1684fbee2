"""Model folders without weights: those are made where the model runs, at random, on loading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

_MARK = "weightless"  # file in a folder whose weights are made on loading


def fill(model: Any, decoder: Any, device: str) -> Any:
    """Give a model on the meta device random weights where it runs; the same every time.

    Args:
        model: Changed in place.
        decoder: Its Llama, without the output layer.
        device: Where it runs.
    """
    model.to_empty(device=device)
    torch.manual_seed(0)  # outputs of frozen towers are cached by the hash of their weights
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.02)
    # buffers are not kept by to_empty: rotary frequencies are computed again, in float32
    decoder.rotary_emb = LlamaRotaryEmbedding(decoder.config).to(device)
    return model


def write_folder(config: Any, processor: Any, folder: Path, architecture: type) -> Path:
    """Write what ms-swift reads beside weights."""
    config.architectures = [architecture.__name__]
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / _MARK).touch()
    return folder


@contextmanager
def built_on_load(
    architecture: type, build: Callable[[Any, dict[str, Any]], Any]
) -> Iterator[None]:
    """Within, a folder of :func:`write_folder` is loaded by making its weights.

    Args:
        architecture: Whose ``from_pretrained`` is replaced.
        build: Makes the model of a configuration and of what else loading was asked for.
    """

    def from_pretrained(folder: str, *_: Any, config: Any, **more: Any) -> Any:
        if not (Path(folder) / _MARK).is_file():
            raise ValueError(f"{folder} has weights of its own")
        model = build(config, more)
        model.name_or_path = str(folder)
        return model

    with mock.patch.object(architecture, "from_pretrained", from_pretrained):
        yield
