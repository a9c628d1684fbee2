"""What a result was computed with: revision, versions, devices, memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

from emolib import __version__

_PACKAGES = (
    *("numpy", "pandas", "scipy", "pydantic", "papermill", "av", "opencv-python"),
    *("torch", "torchvision", "transformers", "peft", "ms-swift", "vllm", "scikit-learn"),
    *("openai-whisper", "face-alignment", "ray"),
)


def git_state() -> dict[str, object]:
    """Revision of the checkout this code runs from and whether files differ from it."""
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "revision": _git("rev-parse", "HEAD"),
        "dirty": None if status is None else status != "",
    }


def _git(*words: str) -> str | None:
    here = str(Path(__file__).parent)
    try:
        done = subprocess.run(
            ["git", "-C", here, *words], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commits_since(revision: str) -> int | None:
    """Count the commits of the checkout since ``revision``; None when that cannot be told."""
    told = _git("rev-list", "--count", f"{revision}..HEAD") if revision.isalnum() else None
    return int(told) if told else None


def versions() -> dict[str, str]:
    """Versions of Python, emolib and the packages results depend on."""
    found = {"python": platform.python_version(), "emolib": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device() -> dict[str, object]:
    """Kind of machine, CPUs and, where torch is in use, GPUs with their peak memory."""
    found: dict[str, object] = {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["gpu_peak_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def peak_memory_mb() -> int:
    """Largest resident set of this process or of one of its finished children."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return max(resource.getrusage(w).ru_maxrss for w in who) // scale
