"""The process that serves: ``swift deploy`` reading models as the engines of this project do.

Started by :mod:`emolib.engines.serving` as ``python -m emolib.engines.deploy``; it dies with
its parent.
"""

from __future__ import annotations

import argparse
import os

from emolib.processes import die_with_parent


def main() -> None:
    """Read our own options, then give the rest to ms-swift."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--max_tiles", type=int, default=0)
    parser.add_argument("--max_pixels", type=int, default=0)
    ours, rest = parser.parse_known_args()
    die_with_parent(ours.parent or os.getppid())
    from swift.arguments import DeployArguments
    from swift.pipelines import deploy_main

    from emolib.engines.swift_repairs import repair_server
    from emolib.engines.swift_setup import check_options, prepare_every_processor

    prepare_every_processor(ours.max_tiles, ours.max_pixels)
    check_options(rest)
    repair_server()
    # ms-swift would write every question and answer to a file beside the weights
    DeployArguments._init_result_path = lambda self, folder_name: None
    deploy_main(rest)


if __name__ == "__main__":
    main()
