"""``emolib rehearse``: a profile on stand-ins of its models, data and servers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from emolib.params.loading import project_root
from emolib.pipeline import short
from emolib.rehearsal.estimate import MFU_GENERATION, MFU_TRAINING
from emolib.report import Cell, format_table

if TYPE_CHECKING:
    from emolib.rehearsal.walk import Rehearsal, StageReport

_ABOUT = """\
Walk all notebooks of a profile with its own parameters, on this machine, with everything but the
real weights: stand-ins of every model in its published layout, synthetic stand-ins of the data
sets, local servers. params/rehearsal.yaml says which counts are lowered. Ends with a table, an
estimate of memory, disk and hours at full size, and every fault. Nothing is downloaded; all that
is written lies under outputs/rehearsal. Exit code 1 when there is a fault.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "rehearse",
        help="a profile on stand-ins of its models and data, before the real ones are there",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", help="folder under params/, e.g. paper")
    parser.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="notebooks at the same time (default 2)"
    )
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Walk the profile and print what was found."""
    from emolib.rehearsal.walk import rehearse, why_needless

    root = project_root()
    if reason := why_needless(root, args.profile):
        print(f"Profile {args.profile} needs no rehearsal: {reason}.")
        print(f"Run it: emolib run {args.profile}")
        return 0
    found = rehearse(root, args.profile, jobs=args.jobs)
    print(f"\nRehearsal of profile {args.profile}, in {short(root, found.home)}\n")
    print(format_table(["stage", "result", "s", "rehearsed"], _walked(found), widest=110))
    if plans := [(r.stage.name, plan) for r in found.stages for plan in r.plans]:
        print("\nLaunch plans, GPUs of a machine: processes x GPUs each process sees:")
        for stage, plan in plans:
            print(f"  - {stage}: {plan}")
    print("\nNot rehearsed, and why:")
    for line in dict.fromkeys(line for report in found.stages for line in report.left_out):
        print(f"  - {line}")
    print(f"\n{_heading(found)}")
    columns = ["stage", "GiB a GPU", "most of it for", "GB on disk", "hours"]
    print(format_table(columns, _full_size(found)))
    faults = found.all_faults()
    print(f"\nFaults: {len(faults) or 'none'}")
    for fault in faults:
        print(f"  - {fault}")
    return 1 if faults else 0


def _own(found: Rehearsal) -> list[StageReport]:
    return [report for report in found.stages if not report.state.startswith("not in profile")]


def _walked(found: Rehearsal) -> list[list[Cell]]:
    return [
        [r.stage.name, r.state, round(r.seconds), "; ".join(dict.fromkeys(r.rehearsed))]
        for r in _own(found)
    ]


def _heading(found: Rehearsal) -> str:
    machine = found.machine
    if not machine.gpus:
        return "At full size (estimated; no GPU is planned for):"
    return (
        f"At full size on {machine.gpus} x {machine.gpu} ({machine.memory_gb:.0f} GiB and "
        f"{machine.tflops:.0f} TFLOP/s each). Upper estimates, not measured: every prompt as long "
        f"as max_length, {MFU_TRAINING:.0%} of the peak in training, {MFU_GENERATION:.0%} in "
        "answering:"
    )


def _full_size(found: Rehearsal) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for report in _own(found):
        if (full := report.full_size) is not None:
            hours = "" if full.hours is None else f"{full.hours:.1f}"
            sizes = f"{full.memory_gb:.1f}", full.largest, f"{full.disk_gb:.1f}"
            rows.append([report.stage.name, *sizes, hours])
    return rows
