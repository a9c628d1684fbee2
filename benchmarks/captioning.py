"""Captioning behind a server, several requests under way at once, against one by one.

    python -m benchmarks.captioning --json outputs/record/captioning.json

The server answers every request after ``--latency`` seconds (5: some 500 tokens of a caption at
100 tokens a second), any number at once, as a batching model server does; it runs in a process
of its own. In one run and against the same server, notebook 01's captioning code asks about
images of 640 x 480 pixels with ``concurrency`` 1 and with ``--concurrency``, in turn,
``--rounds`` times, each time with an empty ledger. Reported are captions a second, their ratio,
the most requests that were ever under way, and the processor time of this process per caption
(reading the image, PNG, JSON, HTTP, ledger), which bounds how many captions a second one
process can ask for.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import httpx
import numpy as np

from emolib.captioning import Image, caption
from emolib.engines import open_engine
from emolib.files import write_json
from emolib.ledger import Ledger
from emolib.media.store import FrameStore
from emolib.params import ModelParams

SERVER = Path(__file__).parents[1] / "tests/fake_server.py"


def make_images(folder: Path, count: int) -> list[Image]:
    """Smooth random pictures, which PNG packs about as well as photographs."""
    store, rng, made = FrameStore(folder), np.random.default_rng(0), []
    for i in range(count):
        small = rng.integers(0, 256, (60, 80, 3), np.uint8)
        pixels = cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC)
        path = store.put(pixels + rng.integers(0, 4, pixels.shape, np.uint8))
        made.append(Image(f"c{i}", 0, 0.0, path.stem, str(path)))
    return made


def measure(url: str, images: list[Image], concurrency: int, ledger: Path) -> dict[str, float]:
    model = ModelParams(engine="server", model="fake", base_url=url, concurrency=concurrency)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with open_engine(model, name=f"{concurrency} at once") as engine, Ledger(ledger) as answers:
        rows = caption(images, engine, answers)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    assert all(row["error"] is None for row in rows)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"per_second": len(rows) / wall, "cpu_ms": 1000 * cpu / len(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--latency", type=float, default=5.0, help="seconds an answer takes")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=4, help="asked about one by one")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), 8137
        images = make_images(folder / "images", args.images * args.concurrency)
        command = [sys.executable, str(SERVER), "--port", str(port), "--latency", str(args.latency)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        url = f"http://127.0.0.1:{port}/v1"
        try:
            assert server.stdout is not None
            server.stdout.readline()
            time.sleep(1)
            ways: dict[int, list[dict[str, float]]] = {1: [], args.concurrency: []}
            for i in range(args.rounds):
                for width, found in ways.items():
                    some = images[: args.images * width]
                    found.append(measure(url, some, width, folder / f"{width}-{i}.jsonl"))
            most = httpx.get(f"http://127.0.0.1:{port}/most", trust_env=False).json()["most"]
        finally:
            server.kill()
            server.wait()
    one, many = (
        {key: round(statistics.median(f[key] for f in found), 3) for key in found[0]}
        for found in ways.values()
    )
    ratios = [b["per_second"] / a["per_second"] for a, b in zip(*ways.values(), strict=True)]
    record = {
        "command": f"python -m benchmarks.captioning --latency {args.latency:g} --concurrency "
        f"{args.concurrency} --rounds {args.rounds} --images {args.images}",
        "latency_s": args.latency,
        "one_by_one": one | {"captions": args.images},
        "concurrent": many
        | {"captions": args.images * args.concurrency, "concurrency": args.concurrency},
        "most_under_way": most,
        "times_faster": [round(ratio, 2) for ratio in ratios],
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} while measured",
        "versions": {"python": platform.python_version(), "httpx": httpx.__version__},
    }
    print(record)
    if args.json:
        write_json(args.json, record)


if __name__ == "__main__":
    main()
