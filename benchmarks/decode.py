"""Time reading six frames of a clip against decord, and watch memory over many clips.

    python -m benchmarks.decode clips/*.mp4 --json outputs/record/decode.json [--repeats 5]
        [--memory 10000]

One run times every way on the same clips in turn (round robin, so that a busy machine slows
all alike) and keeps each way's best round. The ways:

- ``sample_frames``: emolib, six frames by the time they are shown, upright, with hashes;
- ``supervised``: the same in a worker process, as every stage reads them;
- ``pyav_all``: PyAV decodes every frame and turns the six into RGB;
- ``decord``: six frames by number with the decord package, only if it is installed (it is no
  dependency: ``pip install --target DIR --no-deps decord`` and ``PYTHONPATH=DIR``).

Written for each way: seconds for all clips, processor seconds (workers included), clips a second,
and how many times faster than decord (else than ``pyav_all``) by either clock. Processor seconds
are what to look at on a busy machine.

``--memory N`` reads N clips, three small generated ones in turn, in this process and in a
worker, and writes the resident memory of both on the way.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from emolib.files import write_json
from emolib.media import supervisor
from emolib.media.video import probe, sample_frames
from emolib.params.media import DecodeParams
from emolib.quarantine import supervised

FRAMES = 6
MB = 2**20


def with_emolib(path: Path) -> list[np.ndarray]:
    return list(sample_frames(path, FRAMES, rule="uniform").images)


def with_worker(path: Path) -> list[np.ndarray]:
    with supervised(DecodeParams(), None):
        return with_emolib(path)


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


def workers() -> list[int]:
    """Process numbers of the idle workers, which are all between two files."""
    current = supervisor._current
    return [worker._process.pid for worker in current[2]._idle] if current else []


def processor_seconds() -> float:
    """What this process and its workers have used so far."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = time.process_time()
    for pid in workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        used += (int(fields[11]) + int(fields[12])) / ticks
    return used


def resident_mb(pid: int | str) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MB, 1)


def watch_memory(clips: list[Path], n: int, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Read ``n`` clips and note the resident memory ten times."""
    marks: list[dict[str, Any]] = []
    start = time.perf_counter()
    for k in range(1, n + 1):
        read(clips[k % len(clips)])
        if k % (n // 10) == 0:
            gc.collect()
            mark = {"clips": k, "here_mb": resident_mb("self")}
            if pids := workers():
                mark["worker_mb"] = resident_mb(pids[0])
            marks.append(mark)
    grown = {
        key: round(marks[-1][key] - marks[0][key], 1)
        for key in ("here_mb", "worker_mb")
        if key in marks[0] and key in marks[-1]
    }
    seconds = round(time.perf_counter() - start, 1)
    return {"clips": n, "seconds": seconds, "marks": marks, "grown_from_first_to_last": grown}


def small_clips(folder: Path) -> list[Path]:
    """Three of 160 x 120 pixels: H.264 with B-frames, MPEG-4 in AVI, and H.264 in Matroska."""
    rng = np.random.default_rng(0)
    made = []
    for name, codec in (("a.mp4", "libx264"), ("b.avi", "mpeg4"), ("c.mkv", "libx264")):
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            for _ in range(25):
                picture = np.kron(rng.integers(0, 256, (15, 20, 3)), np.ones((8, 8, 1)))
                frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        made.append(folder / name)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", type=int, default=0, help="clips to read for the memory test")
    args = parser.parse_args()

    ways: dict[str, Callable[[Path], list[np.ndarray]]] = {
        "sample_frames": with_emolib,
        "supervised": with_worker,
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
    with_worker(args.clips[0])  # the worker's start is not decoding
    total = sum(info.n_frames for info in infos)
    wall = dict.fromkeys(ways, float("inf"))
    used = dict.fromkeys(ways, float("inf"))
    for _ in range(args.repeats):
        for name, read in ways.items():
            start, before = time.perf_counter(), processor_seconds()
            for clip in args.clips:
                assert len(read(clip)) == FRAMES, (name, clip)
            wall[name] = min(wall[name], time.perf_counter() - start)
            used[name] = min(used[name], processor_seconds() - before)

    against = "decord" if "decord" in ways else "pyav_all"
    record = {
        "command": "python -m benchmarks.decode CLIPS --json outputs/record/decode.json "
        f"--repeats {args.repeats} --memory {args.memory}",
        "clips": len(args.clips),
        "frames": total,
        "seconds_of_video": round(sum(info.duration_s for info in infos), 2),
        "repeats": args.repeats,
        "cores": os.cpu_count(),
        "load_average": [round(one, 1) for one in os.getloadavg()],
        "versions": versions,
        "ways": {
            name: {
                "seconds": round(wall[name], 4),
                "processor_seconds": round(used[name], 4),
                "clips_per_s": round(len(args.clips) / wall[name], 1),
                f"times_{against}": round(wall[against] / wall[name], 2),
                f"times_{against}_processor": round(used[against] / used[name], 2),
            }
            for name in ways
        },
    }
    print(f"{len(args.clips)} clips, {total} frames, best of {args.repeats} rounds")
    print(f"{'way':<16}{'seconds':>9}{'processor':>11}{f'x {against}':>12}{'processor':>11}")
    for name in ways:
        print(
            f"{name:<16}{wall[name]:>9.3f}{used[name]:>11.3f}"
            f"{wall[against] / wall[name]:>12.2f}{used[against] / used[name]:>11.2f}"
        )
    if args.json:
        write_json(args.json, record)
    if args.memory:
        with tempfile.TemporaryDirectory() as folder:
            clips = small_clips(Path(folder))
            record["memory"] = {
                "supervised": watch_memory(clips, args.memory, with_worker),
                "sample_frames": watch_memory(clips, args.memory, with_emolib),
            }
        print(json.dumps(record["memory"], indent=1))
        if args.json:
            write_json(args.json, record)


if __name__ == "__main__":
    main()
