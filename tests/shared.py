"""Where the real data and goldens lie, when they are there at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("EMOLIB_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def shared(path: str) -> Path:
    """Give ``../shared/<path>``, or skip the test when it is not on this machine."""
    full = ROOT / path
    if not full.exists():
        pytest.skip(f"needs {path}: put the shared data beside the checkout or set EMOLIB_SHARED")
    return full
