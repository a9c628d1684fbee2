"""kill -9 at twenty random moments of a captioning run: no row lost, no answer asked for twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import numpy as np
import pytest

from emolib.captioning import Image, caption
from emolib.engines import open_engine
from emolib.ledger import Ledger
from emolib.media.store import FrameStore
from emolib.params import ModelParams
from tests import fake_server
from tests.test_server_watch import free_port

ROWS, KILLS, CONCURRENCY, LATENCY_S = 2_000, 20, 16, 0.01


def _caption_all(images: list[Image], url: str, ledger: Path) -> None:
    """What notebook 01 does for one model; runs in a process that is killed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # no progress bars
    model = ModelParams(engine="server", model="fake", base_url=url, concurrency=CONCURRENCY)
    with open_engine(model, name="fake") as engine, Ledger(ledger) as answers:
        caption(images, engine, answers)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    store = FrameStore(tmp_path_factory.mktemp("images"))
    made = []
    for i in range(ROWS):
        pixels = np.full((2, 2, 3), (i // 256, i % 256, 0), np.uint8)
        path = store.put(pixels)
        made.append(Image(clip=f"c{i}", index=0, pts_s=0.0, sha=path.stem, path=str(path)))
    return made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server that counts requests, in a process of its own: (address, file of requests)."""
    port, seen = free_port(), tmp_path / "seen"
    options = ["--port", str(port), "--latency", str(LATENCY_S), "--seen", str(seen)]
    process = subprocess.Popen(
        [sys.executable, fake_server.__file__, *options], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    url = f"http://127.0.0.1:{port}/v1"
    while True:
        try:
            httpx.get(f"{url}/models", trust_env=False)
            break
        except httpx.ConnectError:
            time.sleep(0.01)
    yield url, seen
    process.kill()
    process.communicate()


def _written(ledger: Path) -> list[str]:
    """The request every whole line of the ledger answers."""
    if not ledger.exists():
        return []
    answered = []
    for line in ledger.read_bytes().splitlines():
        try:
            answered.append(json.loads(line)["text"].removeprefix("answer "))
        except ValueError:
            continue  # cut off by a kill
    return answered


def _start(images: list[Image], url: str, ledger: Path) -> BaseProcess:
    process = get_context("fork").Process(target=_caption_all, args=(images, url, ledger))
    process.start()
    return process


def test_twenty_kills_lose_no_row_and_repeat_only_what_was_under_way(
    tmp_path: Path, images: list[Image], server: tuple[str, Path]
) -> None:
    url, seen = server
    ledger = tmp_path / "captions.jsonl"
    rng = random.Random(0)
    under_way: Counter[str] = Counter()
    for moment in sorted(rng.sample(range(ROWS), KILLS)):
        before = len(seen.read_text().split())
        run = _start(images, url, ledger)
        while seen.stat().st_size // 65 < moment:  # a line a request
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 2 * LATENCY_S))  # anywhere between request and written row
        assert run.is_alive()
        os.kill(run.pid or 0, signal.SIGKILL)
        run.join()
        time.sleep(2 * LATENCY_S)  # what was sent has arrived at the server
        lost = set(seen.read_text().split()[before:]) - set(_written(ledger))
        assert len(lost) <= CONCURRENCY
        under_way.update(lost)
    last = _start(images, url, ledger)
    last.join()
    assert last.exitcode == 0

    written, asked = _written(ledger), Counter(seen.read_text().split())
    assert len(written) == len(set(written)) == ROWS, "each row exactly once"
    assert asked.keys() == set(written)
    assert asked == Counter(written) + under_way, "asked again: what was under way, nothing else"
    with Ledger(ledger) as rows:
        assert len(rows) == ROWS
        assert all(row["error"] is None for row in rows)
        assert rows.broken <= KILLS
