"""Weight files read and written one tensor at a time, so that no shard is ever in memory.

The safetensors format is 8 bytes little-endian header length, a JSON header
``{name: {dtype, shape, data_offsets}}``, then the tensors' bytes without gaps
(https://github.com/huggingface/safetensors, "Format"). The library's own writer takes all
tensors of a file at once and its reader maps the file, which counts as memory; these do not.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emolib.errors import DataError
from emolib.files import load_tensors, read_json

if TYPE_CHECKING:
    import torch

FLOATS = ("bfloat16", "float16", "float32", "float64")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
_DTYPES |= {"I64": "int64", "I32": "int32", "U8": "uint8", "BOOL": "bool"}  # buffers, left out
_NAMES = {value: key for key, value in _DTYPES.items()}
_WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}
_WIDTHS |= {"int64": 8, "int32": 4, "uint8": 1, "bool": 1}
_MAX_HEADER = 100_000_000  # the limit of the safetensors library


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a weight file: torch dtype name, shape, and bytes from the data's start."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _entries(header: dict[str, Any]) -> dict[str, Entry]:
    """What a file's JSON header announces, in any order."""
    found = {}
    for name, row in header.items():
        if name != "__metadata__":
            shape, (begin, end) = [int(side) for side in row["shape"]], row["data_offsets"]
            if min(shape, default=0) < 0:
                raise ValueError(f"{name} has the shape {shape}")
            dtype = str(row["dtype"])
            found[name] = Entry(_DTYPES.get(dtype, dtype), tuple(shape), int(begin), int(end))
    return found


class SafeFile:
    """A ``.safetensors`` file: its header in memory, its tensors read on demand.

    Raises:
        DataError: not a complete safetensors file, or a dtype not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _MAX_HEADER:
                raise DataError(f"{path}: not a safetensors file")
            try:
                rows = _entries(json.loads(file.read(size)))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(f"{path}: not a safetensors file: {error}") from None
        self._start = 8 + size
        # By end as well: an empty tensor begins where its neighbour does.
        self.entries = dict(sorted(rows.items(), key=lambda item: (item[1].begin, item[1].end)))
        data, at = path.stat().st_size - self._start, 0
        for name, entry in self.entries.items():
            if entry.dtype not in _NAMES:
                raise DataError(f"{path}: {name} is {entry.dtype}, no weight's type")
            if entry.begin != at or entry.end < at:
                raise DataError(f"{path}: {name} does not lie where its neighbour ends")
            if entry.end - at != _WIDTHS[entry.dtype] * math.prod(entry.shape):
                raise DataError(f"{path}: {name} has other bytes than its shape {entry.shape}")
            at = entry.end
        if at != data:
            raise DataError(f"{path}: {data} bytes of tensors, header says {at}: cut or corrupt")

    def tensors(self, digest: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor in file order and feed the whole file to ``digest``.

        Memory is one tensor.
        """
        import torch

        with self.path.open("rb") as file:
            digest.update(file.read(self._start))
            for name, entry in self.entries.items():
                raw = bytearray(entry.end - entry.begin)
                if file.readinto(raw) != len(raw):
                    raise DataError(f"{self.path}: ends inside {name}")
                digest.update(raw)
                dtype = getattr(torch, entry.dtype)
                flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
                yield name, flat.reshape(entry.shape)


class BinFile:
    """A ``pytorch_model*.bin`` file, loaded with ``weights_only`` (no code in it can run)."""

    def __init__(self, path: Path) -> None:
        import torch

        self.path = path
        self._state = load_tensors(path, mmap=True)
        if not isinstance(self._state, dict) or not all(
            isinstance(t, torch.Tensor) for t in self._state.values()
        ):
            raise DataError(f"{path}: not a plain table of tensors")
        self.entries = {
            name: Entry(str(t.dtype).removeprefix("torch."), tuple(t.shape), 0, t.nbytes)
            for name, t in self._state.items()
        }

    def tensors(self, digest: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor, then feed the file to ``digest``.

        The file is mapped, so its pages count as memory once read.
        """
        yield from self._state.items()
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)


def open_shard(path: Path) -> SafeFile | BinFile:
    """Open a weight file by its ending."""
    return SafeFile(path) if path.suffix == ".safetensors" else BinFile(path)


def list_shards(folder: Path) -> dict[str, set[str] | None]:
    """Weight files of a checkpoint folder with the tensor names their index promises.

    Returns:
        File name -> names; None for a single file, which has no index.

    Raises:
        DataError: no weights, a listed file that is missing, or a file no index lists.
    """
    for stem, ending in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = folder / f"{stem}{ending}.index.json"
        if index.is_file():
            names: dict[str, set[str]] = {}
            try:
                for name, file in read_json(index)["weight_map"].items():
                    names.setdefault(file, set()).add(name)
            except (KeyError, TypeError, AttributeError):
                raise DataError(f"{index} has no weight_map of tensor names to files") from None
            if missing := sorted(f for f in names if not (folder / f).is_file()):
                raise DataError(f"{index} lists {missing[0]}, which is not in the folder")
            if extra := sorted({p.name for p in folder.glob(f"{stem}-*{ending}")} - set(names)):
                raise DataError(f"{folder / extra[0]} is not in {index.name}: mixed downloads?")
            return {file: names[file] for file in sorted(names)}
        if (folder / f"{stem}{ending}").is_file():
            return {f"{stem}{ending}": None}
    parts = [p.name for p in folder.glob("*") if p.suffix in (".safetensors", ".bin")]
    lone = f"; {min(parts)} is there, its index is not" if parts else ""
    raise DataError(f"{folder} has no model.safetensors, pytorch_model.bin or index of them{lone}")


class SafeWriter:
    """Writes a ``.safetensors`` file whose tensors arrive one by one, in the order announced.

    The file appears under its name when :meth:`close` has flushed it to the disk; until then
    it is ``.NAME.part``.

    Args:
        path: Where the file shall be.
        entries: Name -> (dtype name, shape), in writing order.
    """

    def __init__(self, path: Path, entries: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        import torch

        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name, (dtype, shape) in entries.items():
            end = at + getattr(torch, dtype).itemsize * math.prod(shape)
            header[name] = {
                "dtype": _NAMES[dtype],
                "shape": list(shape),
                "data_offsets": [at, end],
            }
            at = end
        raw = json.dumps(header, separators=(",", ":")).encode()
        raw += b" " * (-len(raw) % 8)  # data begin aligned, as the library writes them
        self.path, self._left = path, list(entries.items())[::-1]
        self._part = path.with_name(f".{path.name}.part")
        self._file = self._part.open("wb")
        self._file.write(len(raw).to_bytes(8, "little") + raw)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Write the next tensor.

        Raises:
            ValueError: it is not the one announced.
        """
        import torch

        want = self._left.pop() if self._left else None
        if want != (name, (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))):
            raise ValueError(f"{name} is not the tensor announced for this place: {want}")
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        self._file.write(memoryview(flat.numpy()))

    def close(self) -> None:
        """Put the finished file in its place."""
        if self._left:
            raise ValueError(f"{len(self._left)} announced tensors are missing")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self.path)

    def abandon(self) -> None:
        """Remove what was written so far."""
        self._file.close()
        self._part.unlink(missing_ok=True)
