"""``emolib run``: all notebooks of a profile."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from emolib import pipeline, report
from emolib.overview import overview
from emolib.params import profiles
from emolib.params.loading import project_root
from emolib.report import one_line

_ABOUT = """\
Run the numbered notebooks of a profile in order. What is up to date is skipped, what was
interrupted goes on where it stopped: after a crash, give the same command again.

A stage is up to date when its notebook, its parameters and what it reads are those of a finished
run; that emolib itself has changed since is reported. Parameters on which no result depends
(a server's address, devices, workers) do not count. Trainings are kept apart from the runs, in
outputs/PROFILE/trainings, and found again by what their weights depend on.

Profiles are the folders of params/: `demo` needs no data, weights, network or GPU.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "run",
        help="run all notebooks of a profile, up-to-date ones skipped",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", help="folder under params/, e.g. demo")
    parser.add_argument(
        "--from", dest="start", default="", metavar="NN", help="begin with this stage, e.g. 03"
    )
    parser.add_argument("--only", default="", metavar="NN", help="run this stage alone")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="redo the chosen stages, asking the models again; finished trainings are used",
    )
    parser.add_argument(
        "--fresh-trainings",
        action="store_true",
        help="--fresh, and train again, too; both results and trainings so far are kept",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="run N stages at the same time where they do not read each other (default 1); "
        "memory adds up, and every stage sees all GPUs",
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Run the notebooks, then print the tables and the report's path."""
    root = project_root()
    outcomes = pipeline.run_profile(
        root,
        args.profile,
        start=args.start,
        only=args.only,
        fresh=args.fresh,
        fresh_trainings=args.fresh_trainings,
        jobs=args.jobs,
    )
    failed = [o for o in outcomes if o.state == "failed"]
    folders = [o.folder for o in outcomes if o.folder is not None and o.state != "failed"]
    if folders:
        print(report.text_tables(folders))
        outputs = root / profiles.base_params(root, args.profile).outputs
        page = report.write_report(outputs, args.profile, folders, [overview(folders)])
        print("\nExecuted notebooks:")
        for folder in folders:
            print(f"  {pipeline.short(root, folder / 'notebook.ipynb')}")
        print(f"Report: {pipeline.short(root, page)}")
    for outcome in failed:  # again, below the tables, where it is seen
        print(f"\n{outcome.stage.name} failed: {one_line(outcome.error)}", file=sys.stderr)
    return 1 if failed else 0
