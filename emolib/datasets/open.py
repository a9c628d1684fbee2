"""One door to every data set: parameters in, clips out."""

from __future__ import annotations

from pathlib import Path

from emolib.datasets.clip import Clip
from emolib.datasets.validation import Reading
from emolib.errors import DataError
from emolib.params.schemas import DataParams


def read_dataset(params: DataParams, outputs: Path) -> Reading[Clip]:
    """Read a whole data set, its faults included as findings.

    Args:
        params: Which data set; ``split`` and ``limit`` play no part here.
        outputs: Where a generated set is kept unless ``params.root`` says otherwise.

    Raises:
        DataError: the data set cannot be read at all.
    """
    if params.kind == "demo":
        from emolib.datasets.demo import demo_root, open_demo

        whole = params.model_copy(update={"split": "", "limit": 0})
        return Reading("demo", demo_root(params, outputs), open_demo(whole, outputs))
    if params.kind == "folder":
        from emolib.datasets.folder import read_folder

        return Reading("folder", Path(params.root).expanduser(), read_folder(params))
    if params.kind in ("chsims", "chsims-v2"):
        from emolib.datasets.chsims import read_chsims

        return read_chsims(params)
    from emolib.datasets.official import read_official

    return read_official(params)


def open_dataset(params: DataParams, outputs: Path) -> list[Clip]:
    """List the clips a stage works on; warnings are told, errors stop.

    Args:
        params: Which data set, and which part of it.
        outputs: Where a generated set is kept unless ``params.root`` says otherwise.

    Returns:
        Clips in the reader's order, names unique; never empty.

    Raises:
        DataError: the data set cannot be read, has errors, or nothing of it is left.
    """
    reading = read_dataset(params, outputs)
    reading.stop_on_errors()
    clips = reading.items
    if params.split_file:
        from emolib.datasets.splits import apply_split

        clips = apply_split(clips, Path(params.split_file).expanduser())
    if params.split:
        splits = sorted({clip.split for clip in clips})
        clips = [clip for clip in clips if clip.split == params.split]
        if not clips:
            raise DataError(f"no clip has split {params.split!r}; the data set has {splits}")
    if not clips:
        raise DataError(f"the data set {params.kind!r} has no clips")
    return clips[: params.limit] if params.limit else clips
