"""Python's search path for the processes that a test starts."""

from __future__ import annotations

import os
from pathlib import Path


def searched_first(folder: Path) -> str:
    """Give a ``PYTHONPATH`` with ``folder`` before what is there, where anything is."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
