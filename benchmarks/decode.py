"""Time reading six frames of a clip, against decoding it whole and against decord.

    python -m benchmarks.decode clips/*.mp4 --json decode.json [--repeats 5]

One run times every way on the same clips in turn (round robin, so that a busy machine slows
all alike) and keeps each way's best round. The ways:

- ``sample_frames``: emolib, six frames by the time they are shown, upright, with hashes;
- ``pyav_all``: PyAV decodes every frame and turns the six into RGB;
- ``decord``: six frames by number with the decord package, only if it is installed (it is no
  dependency: ``pip install decord`` into a throw-away environment).

Printed and written: seconds for all clips, clips a second, and how many times faster than
``pyav_all``. "Frames a second" counts the frames of the clips, read or passed over, so it can be
compared between sets of clips.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from emolib.media.video import probe, sample_frames

FRAMES = 6


def with_emolib(path: Path) -> list[np.ndarray]:
    return list(sample_frames(path, FRAMES, rule="uniform").images)


def with_pyav(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"
        stream.codec_context.thread_count = 2  # as emolib does
        total = stream.frames or sum(1 for p in container.demux(stream) if p.size)
        container.seek(0)
        wanted = {int(total * (k + 0.5) / FRAMES) for k in range(FRAMES)}
        frames = enumerate(container.decode(stream))
        return [frame.to_ndarray(format="rgb24") for k, frame in frames if k in wanted]


def with_decord(path: Path) -> list[np.ndarray]:
    import decord

    reader = decord.VideoReader(str(path), num_threads=2)
    wanted = [int(len(reader) * (k + 0.5) / FRAMES) for k in range(FRAMES)]
    return list(reader.get_batch(wanted).asnumpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    ways: dict[str, Callable[[Path], list[np.ndarray]]] = {
        "sample_frames": with_emolib,
        "pyav_all": with_pyav,
    }
    versions = {"av": av.__version__, "python": platform.python_version()}
    try:
        import decord

        ways["decord"] = with_decord
        versions["decord"] = decord.__version__
    except ImportError:
        print("decord is not installed: left out")

    infos = [probe(clip) for clip in args.clips]
    total = sum(info.n_frames for info in infos)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(args.repeats):
        for name, read in ways.items():
            start = time.perf_counter()
            for clip in args.clips:
                assert len(read(clip)) == FRAMES, (name, clip)
            best[name] = min(best[name], time.perf_counter() - start)

    record = {
        "clips": len(args.clips),
        "frames": total,
        "seconds_of_video": round(sum(info.duration_s for info in infos), 2),
        "repeats": args.repeats,
        "cores": os.cpu_count(),
        "versions": versions,
        "ways": {
            name: {
                "seconds": round(seconds, 4),
                "clips_per_s": round(len(args.clips) / seconds, 1),
                "frames_per_s": round(total / seconds),
                "times_pyav_all": round(best["pyav_all"] / seconds, 2),
            }
            for name, seconds in best.items()
        },
    }
    print(f"{len(args.clips)} clips, {total} frames, best of {args.repeats} rounds")
    print(f"{'way':<16}{'seconds':>9}{'clips/s':>9}{'frames/s':>10}{'x pyav_all':>12}")
    for name, seconds in best.items():
        ratio = best["pyav_all"] / seconds
        print(
            f"{name:<16}{seconds:>9.3f}{len(infos) / seconds:>9.1f}{total / seconds:>10.0f}"
            f"{ratio:>12.2f}"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        part = args.json.with_name(args.json.name + ".part")
        part.write_text(json.dumps(record, indent=1) + "\n")
        part.replace(args.json)


if __name__ == "__main__":
    main()
