"""``emolib report``: one HTML page over finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from emolib import report, runs
from emolib.errors import RunError
from emolib.overview import overview
from emolib.params import profiles
from emolib.params.loading import project_root
from emolib.pipeline import short
from emolib.plan import STAGES


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "report",
        help="one HTML page over finished runs",
        description="Write outputs/<profile>/report.html over the named run folders, or over the "
        "newest finished run of every stage of a profile.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run folders, or the name of one profile"
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its tables and path."""
    root = project_root()
    if len(args.runs) == 1 and args.runs[0] in profiles.profiles(root):
        profile = args.runs[0]
        outputs = root / profiles.base_params(root, profile).outputs
        found = [runs.latest(outputs, profile, stage.name) for stage in STAGES]
        folders = [folder for folder in found if folder is not None]
        if not folders:
            raise RunError(f"{outputs / profile}: no finished run; try `emolib run {profile}`")
    else:
        folders = [Path(text).absolute() for text in args.runs]
        for folder in folders:
            runs.read_result(folder)
        profile = runs.read_manifest(folders[0]).get("profile", "")
        if profile not in profiles.profiles(root):
            raise RunError(f"{folders[0]}: its profile {profile!r} is not in params/")
        outputs = root / profiles.base_params(root, profile).outputs
    everything = overview(folders)
    print(report.text_tables(folders))
    print(f"\n{everything['title']}")
    print(report.format_table(everything["columns"], everything["rows"], widest=44))
    print("\n".join(f"  {note}" for note in everything["notes"]))
    page = report.write_report(outputs, profile, folders, [everything])
    print(f"\nReport: {short(root, page)}")
    return 0
