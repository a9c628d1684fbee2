"""What a decoding worker sends back: JSON and raw arrays, no pickles, so no code.

A message is eight bytes of length, a JSON object of that length, and the bytes of the arrays it
announces, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from emolib.media.reader import Frame
from emolib.media.records import Frames, Sound, VideoInfo

Message = dict[str, Any]
LENGTH = 8
MOST = 1 << 26


def pack(value: object) -> tuple[Message, list[np.ndarray]]:
    """Take a result apart.

    Raises:
        TypeError: no worker gives such a thing.
    """
    if isinstance(value, np.ndarray):
        return {"kind": "array"}, [value]
    if isinstance(value, Sound):
        return {"kind": "sound", "rate": value.rate}, [value.samples]
    if isinstance(value, VideoInfo):
        return {"kind": "info", **asdict(value), "path": ""}, []
    if isinstance(value, Frames):
        distinct = list({id(frame): frame for frame in value.frames}.values())
        place = {id(frame): k for k, frame in enumerate(distinct)}
        plain = {
            "kind": "frames",
            "order": [place[id(frame)] for frame in value.frames],
            "frames": [{"pts_s": frame.pts_s, "sha": frame.sha} for frame in distinct],
            "times": list(value.times),
            "distinct": value.distinct,
        }
        return plain, [frame.image for frame in distinct]
    raise TypeError(f"cannot send {type(value).__name__}")


def unpack(message: Message, arrays: Sequence[np.ndarray], path: Path) -> Any:
    """Put a result together again; ``path`` is the file as the caller named it."""
    kind = message.pop("kind")
    if kind == "array":
        return arrays[0]
    if kind == "sound":
        return Sound(arrays[0], message["rate"])
    if kind == "info":
        return VideoInfo(**{**message, "path": path})
    frames = [Frame(image, **one) for image, one in zip(arrays, message["frames"], strict=True)]
    shown = tuple(frames[k] for k in message["order"])
    return Frames(path, shown, tuple(message["times"]), message["distinct"])


def send(
    write: Callable[[bytes | memoryview], object], message: Message, value: Any = None
) -> None:
    """Write one message; ``value`` is packed into it.

    Args:
        write: Takes all of what it is given.
        message: Plain values.
        value: A result, or None.
    """
    arrays: list[np.ndarray] = []
    if value is not None:
        message["value"], arrays = pack(value)
    arrays = [np.ascontiguousarray(one) for one in arrays]
    message["arrays"] = [{"dtype": one.dtype.str, "shape": list(one.shape)} for one in arrays]
    text = json.dumps(message).encode()
    write(len(text).to_bytes(LENGTH, "little") + text)
    for one in arrays:
        if one.size:
            write(one.reshape(-1).view(np.uint8).data)


def receive(read_into: Callable[[memoryview], object]) -> tuple[Message, list[np.ndarray]]:
    """Read one message and its arrays.

    Args:
        read_into: Fills all of the buffer it is given.

    Raises:
        ValueError: this is no message (and KeyError, TypeError, MemoryError, OverflowError).
    """
    length = bytearray(LENGTH)
    read_into(memoryview(length))
    size = int.from_bytes(length, "little")
    if size > MOST:
        raise ValueError("a message of this length is none of ours")
    text = bytearray(size)
    read_into(memoryview(text))
    message = json.loads(text)
    arrays = []
    for one in message.pop("arrays", []):
        array = np.empty(one["shape"], np.dtype(one["dtype"]))
        if array.size:
            read_into(array.reshape(-1).view(np.uint8).data)
        arrays.append(array)
    return message, arrays
