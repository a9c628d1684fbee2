"""Joining the labels of several systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emolib.errors import ScoreError
from emolib.labels import normalise


def concat(preds: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Splice the label lists of several systems clip by clip, as the paper does.

    Labels keep their order of first appearance; repeats (after normalisation) are dropped.
    The union can only lengthen lists: recall rises, accuracy usually falls.

    Args:
        preds: One mapping clip name -> labels a system, all over the same clips.

    Raises:
        ScoreError: nothing given, or the systems do not cover the same clips.

    Source: arXiv 2408.11286, section 2.3 ("splices" the outputs of its models).
    """
    if not preds:
        raise ScoreError("concat needs the predictions of at least one system")
    names = list(preds[0])
    for number, system in enumerate(preds[1:], start=2):
        if odd := sorted(set(names) ^ set(system)):
            raise ScoreError(
                f"system {number} and system 1 differ in {len(odd)} clips (first: {odd[0]!r}): "
                "fuse systems over the same clips"
            )
    joined = {}
    for name in names:
        labels = dict.fromkeys(normalise(x) for system in preds for x in system[name])
        joined[name] = [label for label in labels if label]
    return joined
