"""Identify a model folder by what is in it, not by where it lies."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emolib.errors import MissingModelError
from emolib.hashing import sha_file

_SUFFIXES = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".safetensors", ".bin", ".py"}
# Records of how a folder came about: they hold paths and times and change no answer.
_RECORDS = {
    "README.md",
    "args.json",
    "additional_config.json",
    "conversion.json",
    "trainer_state.json",
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
}


def fingerprint(folder: Path) -> str:
    """Hash config, tokenizer, processor and weights of a model or adapter folder.

    Reads every weight once (files in parallel, about disk speed); files that did not change
    since (path, size, modification time) are not read again, in other processes neither.

    Args:
        folder: Checkpoint or LoRA folder; its top level only.

    Returns:
        First 16 hex digits of a SHA-256 over the sorted (name, content hash) pairs. An
        adapter's base path is left out, so moving the base changes nothing.

    Raises:
        MissingModelError: no such folder, or no config in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingModelError(f"{folder}: no such model folder")
    files = sorted(
        f
        for f in folder.iterdir()
        if f.suffix in _SUFFIXES and f.name not in _RECORDS and f.is_file()
    )
    names = {f.name for f in files}
    if not names & {"config.json", "adapter_config.json"}:
        raise MissingModelError(
            f"{folder} holds neither config.json nor adapter_config.json: not a model folder"
        )
    if "config.json" not in names:  # a LoRA; beside a whole model it counts with the rest
        files = [f for f in files if f.name.startswith("adapter_")]
    with ThreadPoolExecutor(max_workers=8) as pool:
        pairs = zip([f.name for f in files], pool.map(_content, files), strict=True)
        return _digest(pairs)


def _digest(pairs: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"{name} {content}\n" for name, content in pairs)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _content(file: Path) -> str:
    if file.name != "adapter_config.json":
        return sha_file(file)
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("base_model_name_or_path", None)
    # peft writes sets, whose order differs from run to run
    config = {k: sorted(v) if _is_names(v) else v for k, v in config.items()}
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)
