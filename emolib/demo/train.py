"""``python -m emolib.demo.train NAME``: make a nano model from nothing.

Everything follows from the options: the world is generated, its pictures are rendered once under
``--cache``, and a killed training goes on where it stopped. On one core of 2024 the shipped
models took about an hour each; their cards say exactly.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from emolib.demo.recipe import Recipe
from emolib.nano import ROOT

# Modules with make(recipe, folder, cache): build, train, save.
MODULES = {
    "affectgpt": "emolib.demo.affectgpt.make",
    "internvl": "emolib.demo.internvl",
    "llava": "emolib.demo.llava",
    "teacher": "emolib.demo.teacher",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m emolib.demo.train", description=__doc__)
    parser.add_argument("name", choices=sorted(MODULES))
    parser.add_argument("--out", type=Path, help="model folder (default: emolib/nano/NAME)")
    parser.add_argument("--cache", type=Path, default=Path("outputs/nano"))
    parser.add_argument("--threads", type=int, default=1)
    for field in fields(Recipe):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, default=None)
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    module = importlib.import_module(MODULES[args.name])
    given = {f.name: getattr(args, f.name) for f in fields(Recipe)}
    values = {k: v for k, v in given.items() if v is not None}
    recipe = Recipe(**{**getattr(module, "DEFAULTS", {}), **values})
    folder = module.make(recipe, args.out or ROOT / args.name, args.cache)
    print(f"{folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
