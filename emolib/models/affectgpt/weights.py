"""Reading published weight files: memory-mapped, without running code that is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from emolib.errors import DataError, MissingModelError
from emolib.files import load_tensors


def read_pth(path: Path) -> Mapping[str, torch.Tensor]:
    """Open a ``.pth``/``.bin`` file of tensors: memory-mapped, no code in it is run.

    Gives the state dict, whether bare or under ``"model"`` as trainers save it.

    Raises:
        DataError: not such a file.
    """
    loaded = load_tensors(path, mmap=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded["model"]
    if not isinstance(loaded, dict) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise DataError(f"{path}: holds no state dict (name -> tensor)")
    return loaded


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything in a weight file, without reading the data.

    Raises:
        DataError: the file is missing or not one of tensors.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix != ".safetensors":
        return {key: tuple(tensor.shape) for key, tensor in read_pth(path).items()}
    try:
        with safe_open(path, framework="pt") as opened:
            return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from None


def tensors_of(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of everything in a weight file; data is paged in when it is used."""
    if path.suffix != ".safetensors":
        yield from read_pth(path).items()
        return
    with safe_open(path, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118  (not a dict)
            yield key, opened.get_tensor(key)


def llm_files(llm: Path) -> list[Path]:
    """Weight files of a Hugging Face folder; the index decides where there is one.

    Raises:
        MissingModelError: no configuration or no weights.
        DataError: the index names files elsewhere.
    """
    if not (llm / "config.json").is_file():
        raise MissingModelError(f"{llm}: no config.json; give the language model's folder")
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = llm / f"{stem}.index.json"
        if index.is_file():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise DataError(f"{index}: names files outside its folder")
            return [llm / name for name in names]
        if (llm / stem).is_file():
            return [llm / stem]
    raise MissingModelError(f"{llm}: neither safetensors nor pytorch_model.bin weights in it")
