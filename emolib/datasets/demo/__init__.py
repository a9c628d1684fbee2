"""The generated demo data set: a small world with known causes, made on first use.

A drawn person says a sentence in some place. Hidden states (an emotion with an intensity, and
up to three further states) cause what face, body, surroundings, voice and words show; the
labels name the states. The causal table is ``world.py``, the generative model is told in
``README.md`` beside this file. Nothing is downloaded and no model is involved.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.hashing import key_of
from emolib.params.schemas import DataParams, as_path

#: Raised whenever the same parameters would give other clips or texts.
GENERATOR = 1


class FrameCaption(NamedTuple):
    """What one frame shows.

    Attributes:
        name: The clip.
        time: Seconds from its start; a frame is shown at this time exactly.
        caption: Description of the frame, ending with the emotions visible in it.
    """

    name: str
    time: float
    caption: str


def demo_root(params: DataParams, outputs: Path) -> Path:
    """Give the folder of the set with these parameters (``split`` and ``limit`` only select)."""
    name = f"demo-{key_of(**_identity(params))[:12]}"
    return as_path(params.root) or outputs / "data" / name


def open_demo(params: DataParams, outputs: Path, workers: int = 0) -> list[Clip]:
    """Open the demo set, making it on first use.

    Clip i of a (seed, domain) is the same in every set that has it. Cost of the first use:
    about 0.13 s a clip and core; later only ``clips.jsonl`` is read.

    Args:
        params: ``clips, seed, domain`` decide the set, ``split`` and ``limit`` what of it is
            returned, ``root`` where it lies ("" = ``outputs/data/demo-<hash>``).
        outputs: The project's output folder.
        workers: Processes that make clips; 0 = all cores, for a small set one. A script
            that asks for more than one needs ``if __name__ == "__main__":``.

    Returns:
        Clips with subtitle, labels, description, split, and the person as ``group``.

    Raises:
        DataError: the folder holds something else, cannot be written, or has no such split.
    """
    root = _ensure(params, outputs, workers)
    return [
        Clip(
            name=row["name"],
            video=root / row["video"],
            subtitle=row["subtitle"],
            subtitle_source="generated",
            labels=tuple(row["labels"]),
            description=row["description"],
            split=row["split"],
            group=row["group"],
        )
        for row in _selected(params, root)
    ]


def reference_pairs(params: DataParams, outputs: Path, workers: int = 0) -> list[FrameCaption]:
    """Give reference captions of three frames a clip, for image-text training without captioners.

    Raises:
        DataError: see :func:`open_demo`.
    """
    root = _ensure(params, outputs, workers)
    return [
        FrameCaption(row["name"], item["time"], item["text"])
        for row in _selected(params, root)
        for item in row["captions"]
    ]


def read_metadata(root: Path) -> list[dict[str, Any]]:
    """Read all that is known about a set's clips; see ``README.md`` for the fields.

    Raises:
        DataError: no finished demo set at ``root``.
    """
    from emolib.files import read_jsonl

    return list(read_jsonl(root / "clips.jsonl"))


def _identity(params: DataParams) -> dict[str, Any]:
    return {
        "generator": GENERATOR,
        "seed": params.seed,
        "domain": params.domain,
        "clips": params.clips,
    }


def _ensure(params: DataParams, outputs: Path, workers: int) -> Path:
    from emolib.datasets.demo.build import ensure  # cv2 and av only where they are needed

    return ensure(demo_root(params, outputs), _identity(params), workers)


def _selected(params: DataParams, root: Path) -> list[dict[str, Any]]:
    rows = read_metadata(root)
    if params.split:
        chosen = [row for row in rows if row["split"] == params.split]
        if not chosen:
            have = sorted({row["split"] for row in rows})
            raise DataError(
                f"{root}: no clip of split {params.split!r} among {len(rows)}; it has {have}. "
                "Ask for more clips or another split (train, val, test)."
            )
        rows = chosen
    return rows[: params.limit] if params.limit else rows
