"""``emolib datasets``: check a data set, split it, or write a stand-in of its layout."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from emolib.errors import ParamsError
from emolib.params.schemas import DataKind, DataParams
from emolib.report import format_table

_ABOUT = """\
  emolib datasets check mer2024-ov data/mer2024      counts and findings; exit 1 on errors
  emolib datasets split emer-v2 data/emer --test 66 --out emer66.json
  emolib datasets fake chsims-v2 /tmp/sims           a small generated set of that layout
"""
PUBLISHED = tuple(kind for kind in get_args(DataKind) if kind != "demo")


def add_parser(commands: Any) -> None:
    """Add the command and its three parts to the parser."""
    parser = commands.add_parser(
        "datasets",
        help="check, split or imitate a data set",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    check = parts.add_parser("check", help="counts and findings; changes nothing")
    _add_data(check, (*PUBLISHED, "minigpt4"))
    check.add_argument("--headers", action="store_true", help="open every video's header")
    check.add_argument("--copies", action="store_true", help="look for files with the same bytes")
    check.add_argument(
        "--checksums", type=Path, metavar="FILE", help="compare with this list, or write it"
    )
    check.set_defaults(handler=_check)
    split = parts.add_parser("split", help="a seeded split by source video, recorded by name")
    _add_data(split, PUBLISHED)
    split.add_argument("--test", type=int, required=True, metavar="N", help="clips to test on")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--out", type=Path, required=True, metavar="FILE")
    split.set_defaults(handler=_split)
    fake = parts.add_parser("fake", help="write a small generated set of a published layout")
    fake.add_argument(
        "name", metavar="NAME", help=f"one of {', '.join((*PUBLISHED[1:], 'minigpt4'))}"
    )
    fake.add_argument("folder", type=Path, metavar="DIR", help="new or empty")
    fake.add_argument("--clips", type=int, default=6, help="default: 6")
    fake.add_argument("--seed", type=int, default=0)
    fake.set_defaults(handler=_fake)


def _add_data(parser: argparse.ArgumentParser, kinds: tuple[str, ...]) -> None:
    parser.add_argument("kind", choices=kinds, metavar="KIND", help=f"one of {', '.join(kinds)}")
    parser.add_argument("root", metavar="ROOT", help="the folder")
    parser.add_argument("--table", default="", help="label file, if not the set's own")
    parser.add_argument("--subtitles", default="", help="file of words, if not the set's own")
    parser.add_argument("--videos", default="", help="folder of videos, if not the set's own")
    parser.add_argument("--language", choices=("chinese", "english"), default="english")
    parser.add_argument("--media", choices=("needed", "available", "none"), default="needed")


def _params(args: argparse.Namespace) -> DataParams:
    names = ("kind", "root", "table", "subtitles", "videos", "language", "media")
    return DataParams(**{name: getattr(args, name) for name in names})


def _check(args: argparse.Namespace) -> int:
    """Print counts and findings; 1 when there are errors."""
    from emolib.datasets import validation
    from emolib.datasets.minigpt4 import read_minigpt4
    from emolib.datasets.open import read_dataset

    if args.kind == "minigpt4":
        if args.headers or args.copies or args.checksums:
            raise ParamsError("--headers, --copies and --checksums are for sets of videos")
        pictures = read_minigpt4(Path(args.root).expanduser())
        print(f"minigpt4 in {args.root}: {len(pictures.items)} captioned images\n")
        return _print_findings(pictures)
    reading = read_dataset(_params(args), Path())
    if args.headers:
        from emolib.datasets.inspection import inspect
        from emolib.params.media import DecodeParams
        from emolib.quarantine import supervised

        with supervised(DecodeParams(), None):
            facts = inspect(reading.items)
        broken = [f"{fact.name}: {fact.error}" for fact in facts if fact.error]
        reading.find("error", "videos that cannot be opened", broken)
    if args.copies:
        validation.check_copies(reading)
    if args.checksums:
        validation.check_checksums(reading, args.checksums)
    print(f"{args.kind} in {args.root}\n")
    rows = [[key.replace("_", " "), value] for key, value in validation.counts(reading).items()]
    rows += [["tables", ", ".join(path.name for path in reading.tables)]]
    print(format_table(["what", "count"], [[key, _shown(value)] for key, value in rows]))
    print()
    return _print_findings(reading)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {n:,}" for name, n in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _print_findings(reading: Any) -> int:
    rows = [
        [finding.level, finding.what, f"{finding.count:,}", ", ".join(finding.examples)]
        for level in ("error", "warning", "note")
        for finding in reading.of(level)
    ]
    if rows:
        print(format_table(["level", "finding", "count", "first of them"], rows, widest=70))
    else:
        print("Nothing found wrong.")
    return 1 if reading.of("error") else 0


def _split(args: argparse.Namespace) -> int:
    """Draw the split and record it."""
    from emolib.datasets.open import open_dataset
    from emolib.datasets.splits import split_clips, write_split

    clips = split_clips(open_dataset(_params(args), Path()), args.test, args.seed)
    about = {"kind": args.kind, "test": args.test, "seed": args.seed}
    write_split(args.out, clips, **about)
    test = sum(clip.split == "test" for clip in clips)
    print(f"{len(clips) - test} to train, {test} to test -> {args.out}")
    return 0


def _fake(args: argparse.Namespace) -> int:
    """Write the stand-in and say how to look at it."""
    from emolib.datasets.fake import write_fake

    write_fake(args.name, args.folder, args.clips, args.seed)
    print(f"{args.folder}: a generated stand-in of {args.name}, {args.clips} clips")
    print(f"look at it: emolib datasets check {args.name} {args.folder}")
    return 0
