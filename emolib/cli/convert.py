"""``emolib convert``: published checkpoints to native ones, a family a subcommand."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

# Each module gives `add_parser(families)`, which sets `convert` to a function of the arguments
# that does the work, prints what was done, and returns the exit code.
FAMILIES = ("affectgpt", "internvl")


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "convert",
        help="published checkpoints to native ones",
        description="Turn a published checkpoint into one that today's libraries load without "
        "remote code, and write what became of every tensor to DST/conversion.json.",
    )
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    for family in FAMILIES:
        importlib.import_module(f"emolib.models.{family}.command").add_parser(families)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Convert one checkpoint."""
    return int(args.convert(args))
