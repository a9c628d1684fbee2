"""Has a model seen the clips it is scored on? Name overlap with every training list."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from emolib.errors import LeakError


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Evaluation clips found in training lists.

    Attributes:
        n: Evaluation clips checked.
        overlaps: Training list -> clips it shares with the evaluation, sorted; only lists
            that share any.
    """

    n: int
    overlaps: dict[str, list[str]]

    @property
    def leaked(self) -> list[str]:
        """All shared clips, sorted, each once."""
        return sorted({name for names in self.overlaps.values() for name in names})


def check_leak(
    names: Collection[str], training: Mapping[str, Collection[str]], *, allow: bool = False
) -> LeakReport:
    """Compare evaluation names with every training list.

    Names are compared without a media ending and outer spaces. All 332 MER2024-OV clips
    are inside the labelled MER2023/MER2024-SEMI training set, so a model trained on that
    set has seen every test clip with its label.

    Args:
        names: Clips of the evaluation.
        training: Readable name of each list -> its clip names.
        allow: Report an overlap instead of failing.

    Raises:
        LeakError: a clip occurs in a training list and ``allow`` is False.
    """
    wanted = {_stem(name): name for name in names}
    overlaps = {}
    for title, listed in training.items():
        shared = {_stem(name) for name in listed} & wanted.keys()
        if shared:
            overlaps[title] = sorted(wanted[name] for name in shared)
    report = LeakReport(len(wanted), overlaps)
    if overlaps and not allow:
        counts = "; ".join(f"{len(found)} in {title}" for title, found in overlaps.items())
        raise LeakError(
            f"{len(report.leaked)} of {report.n} evaluation clips were in training: {counts} "
            f"(first: {report.leaked[0]!r}). Score out-of-fold predictions, or a model trained "
            "without them; to score it all the same, say so (--allow-leak) and print it beside "
            "the number"
        )
    return report


def _stem(name: str) -> str:
    name = name.strip()
    for ending in (".mp4", ".avi", ".mov", ".mkv", ".webm", ".wav", ".npy"):
        name = name.removesuffix(ending)
    return name
