"""Writing a model folder: whole or not at all, its weights file by file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedTokenizerBase

from emolib.errors import DataError
from emolib.files import write_json
from emolib.models.affectgpt.configuration import AffectGPTConfig


def check_new(dst: Path) -> None:
    """Refuse a folder that would be overwritten.

    Raises:
        DataError: there is something in it.
    """
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise DataError(f"{dst}: exists and is not an empty folder; give a new one")


@contextmanager
def new_folder(dst: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``dst`` at the end; after an error nothing does."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=dst.parent, prefix=f".{dst.name}."))
    try:
        yield work
        if dst.exists():
            dst.rmdir()
        work.chmod(0o755)
        work.replace(dst)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


class Shards:
    """Collects tensors and writes them as ``model-xxxxx-of-xxxxx.safetensors`` with an index.

    Memory stays near one file's size.

    Args:
        folder: Where.
        limit: Bytes after which a file is closed.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._batch: dict[str, torch.Tensor] = {}
        self._files: list[tuple[Path, list[str]]] = []
        self._size = self._total = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Add one tensor; it is kept until its file is written."""
        self._batch[name] = tensor
        self._size += tensor.nbytes
        self._total += tensor.nbytes
        if self._size >= self.limit:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        if self._batch:
            path = self.folder / f"shard-{len(self._files)}.safetensors"
            save_file(self._batch, path, metadata={"format": "pt"})
            self._files.append((path, list(self._batch)))
        self._batch, self._size = {}, 0

    def finish(self) -> None:
        """Write the rest, give the files their names, and write the index."""
        self.flush()
        weight_map: dict[str, str] = {}
        for number, (path, names) in enumerate(self._files, start=1):
            name = f"model-{number:05d}-of-{len(self._files):05d}.safetensors"
            path.replace(self.folder / name)
            weight_map |= dict.fromkeys(names, name)
        write_json(
            self.folder / "model.safetensors.index.json",
            {"metadata": {"total_size": self._total}, "weight_map": weight_map},
        )


def generation_config(
    config: AffectGPTConfig, words: PreTrainedTokenizerBase | None
) -> GenerationConfig:
    """Greedy, long enough for a whole description (the published 300 tokens cut half of them)."""
    text = config.text_config
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=768,
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.eos_token_id if words is None else words.pad_token_id,
    )
