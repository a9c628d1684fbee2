"""Notebook 07: every system of a run beside every way of fusing them, each clip out of fold."""

from emolib.strategies.explain import (
    best_and_worst,
    compare_all,
    gallery_rows,
    moved_table,
    pairs,
    system_table,
    verdict_rows,
    verdict_table,
)
from emolib.strategies.fuse import CONCAT, OURS, Fused, blocks_of, fuse, left_out
from emolib.strategies.sources import Source, on_clips_of, read_sources, spliced

__all__ = [
    "CONCAT",
    "OURS",
    "Fused",
    "Source",
    "best_and_worst",
    "blocks_of",
    "compare_all",
    "fuse",
    "gallery_rows",
    "left_out",
    "moved_table",
    "on_clips_of",
    "pairs",
    "read_sources",
    "spliced",
    "system_table",
    "verdict_rows",
    "verdict_table",
]
