"""``emolib record``: keep a run's numbers under version control."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from emolib import runs
from emolib.errors import RunError
from emolib.files import write_json
from emolib.params import profiles
from emolib.params.loading import project_root
from emolib.pipeline import short
from emolib.plan import STAGES


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "record",
        help="copy a profile's results to outputs/record/, for the README",
        description="Write outputs/record/<profile>.json from the newest finished run of every "
        "stage: results, the command, revision, versions and machine. Refuses runs made from "
        "changed files: such numbers could not be made again.",
    )
    parser.add_argument("profile", help="folder under params/, e.g. demo")
    parser.add_argument(
        "--command",
        dest="made_by",
        default="",
        metavar="TEXT",
        help="the command that made the runs, where it was another than `emolib run PROFILE`",
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write the record."""
    root = project_root()
    outputs = root / profiles.base_params(root, args.profile).outputs
    stages: dict[str, Any] = {}
    for stage in STAGES:
        folder = runs.latest(outputs, args.profile, stage.name)
        if folder is not None:
            stages[stage.name] = _record(folder)
    if not stages:
        raise RunError(f"no finished run of profile {args.profile!r}: run it first")
    revisions = {entry["revision"] for entry in stages.values()}
    if len(revisions) > 1:
        raise RunError(f"the stages were run at {len(revisions)} revisions; run all at one first")
    path = root / "outputs" / "record" / f"{args.profile}.json"
    begun = [datetime.fromisoformat(entry["started"]) for entry in stages.values()]
    ended = [datetime.fromisoformat(entry["finished"]) for entry in stages.values()]
    whole = {
        "command": args.made_by or f"python -m emolib run {args.profile}",
        "seconds_from_first_start_to_last_end": (max(ended) - min(begun)).total_seconds(),
        "stages": stages,
    }
    write_json(path, whole)
    print(f"{len(stages)} stages -> {short(root, path)}")
    return 0


def _record(folder: Path) -> dict[str, Any]:
    manifest, result = runs.read_manifest(folder), runs.read_result(folder)
    git = manifest["git"]
    if git["dirty"] or not git["revision"]:
        raise RunError(f"{folder}: run from changed files; commit, run again, then record")
    return {
        "revision": git["revision"],
        "started": manifest["started"],
        "finished": manifest["finished"],
        "seconds": manifest["seconds"],
        "peak_memory_mb": manifest["peak_memory_mb"],
        "device": manifest["device"],
        "versions": manifest["versions"],
        "result": {key: value for key, value in result.items() if key != "files"},
    }
