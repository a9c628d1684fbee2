"""One door to every data set: parameters in, clips out."""

from __future__ import annotations

from pathlib import Path

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.params.schemas import DataParams


def open_dataset(params: DataParams, outputs: Path) -> list[Clip]:
    """List the clips a stage works on.

    Args:
        params: Which data set, and which part of it.
        outputs: Where a generated set is kept unless ``params.root`` says otherwise.

    Returns:
        Clips in the reader's order, names unique; never empty.

    Raises:
        DataError: the data set cannot be read, or nothing of it is left.
    """
    if params.kind == "folder":
        from emolib.datasets.folder import read_folder

        clips = read_folder(params)
    else:
        from emolib.datasets.demo import open_demo

        clips = open_demo(params, outputs)
    if params.split:
        splits = sorted({clip.split for clip in clips})
        clips = [clip for clip in clips if clip.split == params.split]
        if not clips:
            raise DataError(f"no clip has split {params.split!r}; the data set has {splits}")
    if not clips:
        raise DataError(f"the data set {params.kind!r} has no clips")
    return clips[: params.limit] if params.limit else clips
