"""Write a demo set to disk: MP4 files with picture and sound, and ``clips.jsonl``.

Layout of a set::

    set.json      generator version and parameters; what a folder is recognised by
    clips.jsonl   one row a clip: hidden states, labels, texts, split (see :func:`row`)
    video/        <name>.mp4, H.264 224 x 224 at 12.5 frames/s, AAC mono 16 kHz

A set appears whole or not at all. Clips are made in ``<set>.partial``, each moved there when
finished, and the folder gets its name last; a run that was killed is continued by the next
call, which keeps the clips already there. Two processes may make the same set at once: clips
are equal whoever makes them, and whoever is first to finish names the folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from emolib.datasets.demo import describe, render, voice, world
from emolib.datasets.demo.spec import FPS, RATE, ClipSpec, Speech, draw_set, speech
from emolib.errors import DataError
from emolib.files import read_json, write_json, write_jsonl
from emolib.processes import cores
from emolib.progress import Progress

_BATCH = 8  # clips a worker makes before it reports
_SCRATCH = "scratch-"
_POOL_FROM = 64  # below, starting processes costs more than it saves
# One thread, and no macroblock tree: x264 reads stray memory there (other bytes every run).
_X264 = "threads=1:lookahead-threads=1:sliced-threads=0:mbtree=0"
_CAPTION_PARTS = 3  # captions in clips.jsonl: one in the middle of each third


def row(spec: ClipSpec, plan: Speech) -> dict[str, Any]:
    """Everything known about a clip, as plain JSON values."""
    parts = describe.perspectives(spec, plan)
    by_factor = describe.labels(spec)
    latent = asdict(spec.latent) | {"degree": spec.latent.degree}
    times = [
        round((int(plan.frames * (2 * k + 1) / (2 * _CAPTION_PARTS))) / FPS, 2)
        for k in range(_CAPTION_PARTS)
    ]
    return {
        "name": spec.name,
        "video": f"video/{spec.name}.mp4",
        "seed": spec.seed,
        "domain": spec.domain,
        "index": spec.index,
        "split": spec.split,
        "group": spec.who.key,
        "duration": plan.duration,
        "subtitle": plan.subtitle,
        "clause": plan.clause,
        "interjection": plan.interjection,
        "labels": [word for words in by_factor.values() for word in words],
        "labels_by_factor": {key: list(words) for key, words in by_factor.items()},
        "labels_by_perspective": {
            key: list(words) for key, words in describe.labels_by_perspective(spec, plan).items()
        },
        "latent": latent,
        "cues": _cues(spec),
        "perspectives": parts,
        "description": describe.description(parts),
        "captions": [{"time": t, "text": describe.caption(spec, t)} for t in times],
        "person": {"noun": spec.who.noun, "age": spec.who.age},
        "place": spec.place.name,
        "time_of_day": spec.time,
        "weather": spec.weather if spec.place.outside else "",
        "turned": spec.turned,
    }


def _cues(spec: ClipSpec) -> dict[str, str]:
    strong = spec.latent.degree == "strong"
    cues = {"core": world.CORES[spec.latent.core][strong].cue}
    for factor, states in world.SECONDARY.items():
        for state in states:
            if state.name == getattr(spec.latent, factor):
                cues[factor] = state.cue
    return cues


def write_clip(spec: ClipSpec, plan: Speech, path: Path) -> None:
    """Draw, speak and encode one clip.

    The same clip gives the same bytes with the same versions of NumPy, OpenCV and PyAV: one
    encoder thread, no dates or version marks in the file.
    """
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        picture = container.add_stream(
            "libx264",
            rate=Fraction(FPS).limit_denominator(),
            options={"preset": "veryfast", "crf": "25", "x264-params": _X264, "flags": "+bitexact"},
        )
        picture.width = picture.height = render.SIZE
        picture.pix_fmt = "yuv420p"
        sound = container.add_stream(
            "aac", rate=RATE, layout="mono", options={"flags": "+bitexact", "threads": "1"}
        )
        sound.bit_rate = 40_000
        for image in render.frames(spec, plan):
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(picture.encode(None))
        samples = voice.synthesise(spec, plan)
        block = sound.codec_context.frame_size or 1024
        for start in range(0, len(samples), block):
            piece = np.ascontiguousarray(samples[None, start : start + block])
            audio = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            audio.sample_rate, audio.pts = RATE, start
            audio.time_base = Fraction(1, RATE)
            container.mux(sound.encode(audio))
        container.mux(sound.encode(None))


def _make(specs: Sequence[ClipSpec], partial: Path, scratch: Path) -> list[dict[str, Any]]:
    """Make some clips (in any process) and give their rows; finished files are kept."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        rows = []
        for spec in specs:
            plan = speech(spec)
            target = partial / "video" / f"{spec.name}.mp4"
            if not (target.is_file() and target.stat().st_size):
                temporary = scratch / f"{spec.name}.{os.getpid()}.mp4"
                write_clip(spec, plan, temporary)
                temporary.replace(target)
            rows.append(row(spec, plan))
        return rows
    finally:
        cv2.setNumThreads(threads)


def _workers(clips: int, workers: int) -> int:
    return workers or (1 if clips < _POOL_FROM else cores())


def _make_all(
    specs: list[ClipSpec], partial: Path, scratch: Path, workers: int
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    batches = [specs[i : i + _BATCH] for i in range(0, len(specs), _BATCH)]
    with Progress("demo clips", len(specs), unit="clip") as progress:
        if workers == 1:
            for spec in specs:
                rows[spec.name] = _make([spec], partial, scratch)[0]
                progress.advance()
        else:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                jobs = [pool.submit(_make, batch, partial, scratch) for batch in batches]
                try:
                    for job in as_completed(jobs):
                        for made in job.result():
                            rows[made["name"]] = made
                        progress.advance(len(job.result()))
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    return [rows[spec.name] for spec in specs]


def ensure(root: Path, identity: dict[str, Any], workers: int = 0) -> Path:
    """Make the set ``identity`` (generator, seed, domain, clips) at ``root`` unless it is there.

    Cost: about 0.13 s a clip and core, 36 kB a clip.

    Raises:
        DataError: ``root`` holds something else, or cannot be written.
    """
    if is_set(root, identity):
        return root
    partial = root.with_name(f"{root.name}.partial")
    try:
        (partial / "video").mkdir(parents=True, exist_ok=True)
        _fit(partial, identity)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=partial))
    except OSError as error:
        raise DataError(f"{root}: the demo set cannot be written there: {error}") from error
    try:
        specs = draw_set(identity["seed"], identity["domain"], identity["clips"])
        rows = _make_all(specs, partial, scratch, _workers(len(specs), workers))
        write_jsonl(partial / "clips.jsonl", rows)
        if root.exists():
            root.rmdir()  # is_set saw that it is empty
        partial.replace(root)
    except (OSError, DataError) as error:
        # another process may have finished first and taken the folder along
        if not is_set(root, identity):
            raise DataError(f"{root}: the demo set could not be made: {error}") from error
        shutil.rmtree(partial, ignore_errors=True)
    except BrokenProcessPool as error:
        raise DataError(
            f"{root}: a worker process died while making the demo set (memory, or a script "
            "without `if __name__ == '__main__':`); call again to go on, or with workers=1"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for left in root.glob(f"{_SCRATCH}*"):  # half-written clips of killed runs
        shutil.rmtree(left, ignore_errors=True)
    return root


def _fit(partial: Path, identity: dict[str, Any]) -> None:
    """Keep the finished clips of an interrupted run if it was making this very set."""
    note = partial / "set.json"
    if note.is_file():
        if read_json(note) == identity:
            return
        shutil.rmtree(partial)
        (partial / "video").mkdir(parents=True)
    write_json(note, identity)


def is_set(root: Path, identity: dict[str, Any]) -> bool:
    """Tell whether the finished set ``identity`` lies at ``root``; False when nothing is there.

    Raises:
        DataError: something else is there.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    note = root / "set.json"
    if not note.is_file() or not (root / "clips.jsonl").is_file():
        raise DataError(
            f"{root} is not a demo set: no set.json with clips.jsonl there. Give an empty or "
            'new folder as root, root: "" to keep it under outputs, or kind: folder for videos.'
        )
    found = read_json(note)
    if found != identity:
        raise DataError(
            f"{root} holds another demo set: {found}, wanted {identity}. Give another root or "
            "delete that folder."
        )
    return True
