"""Print where the ms-swift plugin lies: ``python -m emolib.models.internvl``."""

from __future__ import annotations

from pathlib import Path

print(Path(__file__).resolve().with_name("swift_plugin.py"))
