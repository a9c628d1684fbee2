"""The command line: ``python -m emolib …``, also installed as ``emolib``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from emolib import __version__
from emolib.errors import EmolibError

# In the order a newcomer meets them; each module gives `add_parser` and `run`.
COMMANDS = (
    "run",
    "rehearse",
    "predict",
    "score",
    "datasets",
    "convert",
    "doctor",
    "report",
    "record",
    "clean",
)

EXIT_USER_ERROR = 2

_ABOUT = """\
Open-vocabulary emotion recognition from video: from a clip's face, voice and words to an
open set of emotion words, and honest scores for them.

  emolib run demo                         every notebook on a small generated data set
  emolib predict clips/ --profile demo    labels for your own videos
  emolib score --gold a.csv --pred b.csv  MER2024-OV scores with intervals
  emolib datasets check KIND DIR          what a data set holds, and what is wrong with it
  emolib doctor                           what is installed, found, missing, what to do next
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line as an argparse parser."""
    parser = argparse.ArgumentParser(
        prog="emolib", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"emolib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"emolib.cli.{name}").add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when all went well, 1 when a stage or clip failed, 2 when the input or set-up is
        wrong (the message says what and how to mend it), 130 when interrupted.
    """
    args = build_parser().parse_args(argv)
    try:
        return int(args.handler(args))
    except EmolibError as error:
        print(f"emolib {args.command}: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(
            f"\nemolib {args.command}: interrupted; the same command (without --fresh) goes on "
            "from here",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe (head, less) has left
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
