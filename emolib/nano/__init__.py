"""Nano models: checkpoints of the real architectures that learned the generated demo world.

Each lies in a folder of its own with a model card (``model_card.json``: data, steps, scores,
command, hashes) and is addressed as "nano:NAME" wherever a model is named. They know their
world and nothing else; :mod:`emolib.demo` trained them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emolib.errors import MissingModelError
from emolib.files import read_json
from emolib.hashing import sha_file

PREFIX = "nano:"
CARD = "model_card.json"
ROOT = Path(__file__).parent


def names() -> list[str]:
    """Models that are here."""
    return sorted(card.parent.name for card in ROOT.glob(f"*/{CARD}"))


def folder(name: str) -> Path:
    """Give the folder of a model.

    Args:
        name: With or without "nano:".

    Raises:
        MissingModelError: no such model.
    """
    name = name.removeprefix(PREFIX)
    if name not in names():
        raise MissingModelError(f"nano model {name!r} is not known; choose from {names()}")
    return ROOT / name


def card(name: str) -> dict[str, Any]:
    """Read a model's card."""
    return dict(read_json(folder(name) / CARD))


def changed(path: Path) -> list[str]:
    """Files of a model folder that are not as its card says: missing, added or other bytes."""
    stated = dict(read_json(path / CARD)["files"])
    found = {
        str(file.relative_to(path)): sha_file(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in (CARD, "README.md")
    }
    return sorted(name for name in stated | found if stated.get(name) != found.get(name))
