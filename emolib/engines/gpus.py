"""Which GPUs of a machine a model takes: one, unless the parameters ask for more.

Without this, ms-swift and transformers spread a model over every GPU they see.
"""

from __future__ import annotations

import re

from emolib.errors import ParamsError

VARIABLE = "CUDA_VISIBLE_DEVICES"


def gpu_count() -> int:
    """GPUs this process sees; the first call of a process imports torch (about 2 s)."""
    import torch

    return torch.cuda.device_count()


def first_gpu(device: str) -> int | None:
    """Return the number K of "cuda:K", 0 for "cuda" and "auto", None for any other device.

    Raises:
        ParamsError: "cuda:" without a number.
    """
    if device == "auto":
        return 0
    if not device.startswith("cuda"):
        return None
    found = re.fullmatch(r"cuda(?::(\d{1,3}))?", device)
    if not found:
        raise ParamsError(f"device: {device!r}: choose cpu, cuda, cuda:0, cuda:1, ... or auto")
    return int(found[1] or 0)


def choose_gpus(device: str, number: int, gpus: int, given: str | None = None) -> tuple[str, ...]:
    """Choose GPUs, by the names that ``CUDA_VISIBLE_DEVICES`` takes.

    Args:
        device: "cpu", "cuda", "cuda:K" or "auto"; K counts the GPUs that are visible here.
        number: GPUs wanted, from K on.
        gpus: GPUs that are visible here.
        given: ``CUDA_VISIBLE_DEVICES`` as the user or the job scheduler has set it; its names
            are kept. None = not set.

    Returns:
        ``number`` names; () = no GPU is used ("cpu"; "auto" where there is none).

    Raises:
        ParamsError: fewer GPUs are visible than wanted.
    """
    first = first_gpu(device)
    if first is None or (device == "auto" and gpus == 0):
        return ()
    names = [n.strip() for n in given.split(",")] if given else [str(n) for n in range(gpus)]
    names = names[:gpus]
    if first + number > len(names):
        seen = f"{VARIABLE} = {given}" if given else "CUDA_VISIBLE_DEVICES is not set"
        raise ParamsError(
            f"device {device!r} with {number} GPU{'s' * (number > 1)} needs GPUs {first} to "
            f"{first + number - 1}, but {len(names)} are visible ({seen})"
        )
    return tuple(names[first : first + number])


def device_map(device: str, number: int, gpus: int) -> tuple[str | None, tuple[int, ...]]:
    """Say where a model of this process goes, in transformers' words.

    Args:
        device: As for :func:`choose_gpus`.
        number: GPUs over which the weights are spread.
        gpus: GPUs that are visible here.

    Returns:
        (``device_map``, GPUs): the map is "cpu", "cuda:K", None where there is no GPU ("auto":
        the library's choice), or "auto" over exactly the GPUs named.

    Raises:
        ParamsError: fewer GPUs are visible than wanted.
    """
    chosen = choose_gpus(device, number, gpus)
    if not chosen:
        return (None if device == "auto" else device), ()
    numbers = tuple(map(int, chosen))
    return (f"cuda:{numbers[0]}" if number == 1 else "auto"), numbers
