"""``emolib convert internvl``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(families: Any) -> None:
    """Add the family to ``emolib convert``."""
    parser = families.add_parser(
        "internvl",
        help="InternVL-Chat-V1.5 and its siblings with InternLM2",
        description="Convert a published InternVL-Chat folder (V1.5, InternVL2, InternVL2.5 with "
        "InternLM2). Needs the disk space of the weights and about 3 GB of memory for the 26B "
        "model; after an interruption the same command goes on.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="the published folder")
    parser.add_argument("out", type=Path, metavar="DST", help="new folder of the native model")
    parser.add_argument(
        "--chat",
        choices=("v1.5", "v2", "v2.5"),
        default="",
        help="chat format; found in SRC when not given",
    )
    parser.set_defaults(convert=run)


def run(args: argparse.Namespace) -> int:
    """Convert, with a line a shard, and say what was done."""
    from emolib.models.internvl.convert import REPORT, convert

    def tell(done: int, total: int, shard: str) -> None:
        print(f"[{done}/{total}] {shard}", flush=True)

    done = convert(args.source, args.out, args.chat, tell)
    if done.resumed:
        print(f"{done.resumed} shards were there, whole, from an earlier run: not written again")
    print(
        f"{done.tensors} tensors filled {done.targets} of {done.targets} native ones, "
        f"{len(done.ignored)} ignored. Report: {done.folder / REPORT}\n"
        f"chat format {done.chat.name}, {done.chat.layout} image blocks, system message "
        f"{done.chat.system!r} (another: --chat)"
    )
    return 0
