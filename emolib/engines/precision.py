"""The weight type a model is loaded in."""

from __future__ import annotations

from emolib.params.schemas import ModelParams


def weight_type(params: ModelParams, stored: str) -> str:
    """Choose the weight type: as given, as stored ("auto"), or what the machine is fast in ("fit").

    Args:
        params: ``dtype`` and ``device`` are used.
        stored: Type of the weights in the folder, as torch names it.

    Returns:
        A name of torch's, e.g. "bfloat16".
    """
    if params.dtype == "auto":
        return stored
    return fitting_type(params.device) if params.dtype == "fit" else params.dtype


def fitting_type(device: str) -> str:
    """Name the 16-bit type a device computes in hardware, else float32.

    CUDA below compute capability 8.0 and Apple's GPUs below macOS 14 emulate bfloat16; CPUs without
    AVX512-BF16 or AMX compute it several times slower than float32.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps" or "auto" (the first of MPS, CUDA and CPU there is).
    """
    import torch

    kind = device.split(":")[0]
    if kind == "mps" or (kind == "auto" and torch.backends.mps.is_available()):
        return "bfloat16" if torch.backends.mps.is_macos_or_newer(14, 0) else "float16"
    if kind == "cuda" or (kind == "auto" and torch.cuda.is_available()):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float16"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bfloat16" if fast else "float32"
