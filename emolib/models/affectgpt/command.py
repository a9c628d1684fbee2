"""``emolib convert affectgpt``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from emolib.errors import DataError

_ABOUT = """\
Turn the published AffectGPT or Video-LLaMA weight files into one folder. The files are
recognised by their content and may be given in any order: eva_vit_g.pth, the BLIP-2 Q-Former,
imagebind_huge.pth, and either both Video-LLaMA branches (gives Video-LLaMA), an AffectGPT
training checkpoint, or all three.

  emolib convert affectgpt --llm DIR --files FILE… DST
"""


def add_parser(families: Any) -> None:
    """Add the family to ``emolib convert``."""
    parser = families.add_parser(
        "affectgpt",
        help="AffectGPT (2024) or Video-LLaMA from their weight files",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--llm", type=Path, required=True, metavar="DIR", help="Vicuna or LLaMA")
    parser.add_argument(
        "--files",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="the weight files, then DST, the folder to make",
    )
    # argparse gives an option with many values all that follow, DST included.
    parser.add_argument("dst", type=Path, nargs="?", metavar="DST", help=argparse.SUPPRESS)
    parser.add_argument(
        "--config", type=Path, help="config.json with other sizes than the published ones"
    )
    parser.add_argument(
        "--no-tokenizer", action="store_true", help="the language model folder has no tokenizer"
    )
    parser.set_defaults(convert=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was done with each file."""
    files, dst = list(args.files), args.dst
    if dst is None:
        dst = files.pop()
    if not files or dst.suffix in {".pth", ".pt", ".bin"}:
        raise DataError("give the files, then DST: --llm DIR --files FILE… DST")

    from emolib.models.affectgpt.configuration import AffectGPTConfig
    from emolib.models.affectgpt.convert import convert_affectgpt

    config = None if args.config is None else AffectGPTConfig.from_json_file(args.config)
    report = convert_affectgpt(files, args.llm, dst, config=config, tokenizer=not args.no_tokenizer)
    for entry in report["files"]:
        left = sum(len(keys) for keys in entry["ignored"].values())
        counts = f"{entry['used']:>5} used {left:>5} left out"
        print(f"{entry['recognised_as']:<10} {counts}  {entry['file']}")
    print(f"{report['model']}: {report['targets_filled']} parameters -> {dst}")
    return 0
