"""Decoders that crash, hang or babble cost one file and are not asked about it again."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib import captioning, quarantine, runs
from emolib.datasets.clip import Clip
from emolib.datasets.inspection import inspect
from emolib.errors import DecoderError, LedgerError, MediaError, NoAudioError, RunError
from emolib.ledger import Ledger
from emolib.media import supervisor
from emolib.media.audio import read_audio, read_channels
from emolib.media.store import FrameStore
from emolib.media.supervisor import spread
from emolib.media.video import probe, read_frames, sample_frames
from emolib.params.media import DecodeParams
from emolib.params.stages import DataCheck
from emolib.predict import predict
from tests.fakes import FakeEngine
from tests.media_files import tone, write_video
from tests.paths import searched_first

# What a worker's Python runs at its start: libav with faults, chosen by the file's name.
FAULTS = """
import ctypes, os, signal, time
import av

LOG = {log!r}
really_open = av.open

def faulty_open(name, *args, **options):
    with open(LOG, "a", errors="replace") as log:
        log.write(name.rsplit("/", 1)[-1] + "\\n")
    if "segfault" in name:
        ctypes.string_at(0)
    if "hang" in name:
        time.sleep(3600)
    if "abort" in name:
        os.abort()
    if "bug" in name:
        raise IndexError("codec table")
    if "babble" in name:
        os.write(1, b"[h264 @ 0x55] error while decoding\\n" * 99)
    if "outside" in name and open(LOG, errors="replace").read().count(name.rsplit("/", 1)[-1]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return really_open(name, *args, **options)

av.open = faulty_open
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    audio = np.stack([tone(1.2)])
    return write_video(tmp_path_factory.mktemp("good") / "good.mp4", 30, audio=audio)


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """Supervised decoding by a libav with faults; gives the names of the files it opened."""
    site = tmp_path / "site"
    site.mkdir()
    log = tmp_path / "opened.txt"
    (site / "sitecustomize.py").write_text(FAULTS.format(log=str(log)))
    monkeypatch.setenv("PYTHONPATH", searched_first(site))
    use(tmp_path)
    yield lambda: log.read_text().split() if log.exists() else []
    workers = supervisor.active()
    if workers is not None:
        workers.close()


def use(tmp_path: Path, **changes: Any) -> None:
    """Put new settings in force: a new supervisor, as another run would have."""
    supervisor._current = None
    params = DecodeParams(**{"workers": 1, **changes})
    quarantine.supervise(params, tmp_path / "quarantine.jsonl")


def listed(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "quarantine.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_workers_give_what_the_process_itself_gives(tmp_path, good):
    silent = write_video(tmp_path / "silent.mp4", 4)
    cut = tmp_path / "cut\nin half \udcff.mp4"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    jobs: list[Callable[[], Any]] = [
        lambda: probe(good),
        lambda: sample_frames(good, 6, seed=3, name="x"),
        lambda: sample_frames(silent, 6, rule="uniform"),
        lambda: read_frames(good, np.array([0.9, 0.1, 0.1])),
        lambda: read_audio(good, 8000),
        lambda: read_audio(silent),
        lambda: (read_channels(good).rate, read_channels(good).samples.tobytes()),
        lambda: sample_frames(cut),
        lambda: probe(tmp_path / "missing.mp4"),
        lambda: probe(tmp_path),
    ]

    def outcome(job: Callable[[], Any]) -> Any:
        try:
            return job()
        except MediaError as error:
            return type(error), str(error)

    here = [outcome(job) for job in jobs]
    use(tmp_path)
    there = [outcome(job) for job in jobs]
    for one, other in zip(here, there, strict=True):
        if isinstance(one, np.ndarray):
            assert np.array_equal(one, other)
        elif hasattr(one, "record"):
            assert (one.record, one.times, one.path) == (other.record, other.times, other.path)
            assert all(map(np.array_equal, one.images, other.images))
        else:
            assert one == other
    assert here[5][0] is NoAudioError
    assert there[2].images[1] is there[2].images[2], "a repeated frame is sent once"
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "fault", "detail"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("abort", "crashed", "SIGABRT"),
        ("hang", "hung", "no answer within 5 s"),
    ],
)
def test_one_bad_file_costs_one_file_once(tmp_path, tried, good, name, fault, detail):
    use(tmp_path, timeout_s=5)
    bad = tmp_path / f"{name}.mp4"
    bad.write_bytes(good.read_bytes() + b"\0" * 8)
    for _ in range(2):
        with pytest.raises(DecoderError, match=rf"{fault} the decoder \({detail} in probe\)"):
            probe(bad)
        assert probe(good).n_frames == 30
    assert tried().count(bad.name) == 1
    use(tmp_path)  # the next run knows it, under another name too
    twin = shutil.copy(bad, tmp_path / f"{name}-twin.mp4")
    with pytest.raises(DecoderError, match="quarantined"):
        sample_frames(twin)
    assert tried().count(twin.name) == 0
    [row] = listed(tmp_path)
    assert (row["fault"], row["detail"], row["size"]) == (fault, detail, bad.stat().st_size)


def test_it_is_tried_again_when_asked_or_changed(tmp_path, tried, good):
    bad = tmp_path / "segfault.mp4"
    bad.write_bytes(good.read_bytes() + b"\0" * 8)
    with pytest.raises(DecoderError):
        probe(bad)
    use(tmp_path, retry=True)
    for _ in range(2):  # asked for once a run, not once a frame
        with pytest.raises(DecoderError, match="SIGSEGV"):
            probe(bad)
    assert tried().count(bad.name) == 2
    bad.write_bytes(good.read_bytes() + b"\0" * 9)
    use(tmp_path)
    with pytest.raises(DecoderError, match="SIGSEGV"):
        probe(bad)
    assert tried().count(bad.name) == 3
    assert len({row["sha"] for row in listed(tmp_path)}) == 2
    mended = bad.rename(tmp_path / "mended.mp4")
    (tmp_path / "quarantine.jsonl").unlink()
    assert probe(mended).n_frames == 30


def test_a_worker_ended_from_outside_is_replaced(tmp_path, tried, good):
    innocent = shutil.copy(good, tmp_path / "outside.mp4")
    assert probe(innocent).n_frames == 30
    assert tried().count("outside.mp4") == 2
    assert listed(tmp_path) == []
    # An idle one that was killed is noticed by the next file.
    [idle] = supervisor.active()._idle
    os.kill(idle._process.pid, signal.SIGKILL)
    idle._process.wait()
    assert probe(good).n_frames == 30


def test_codecs_may_print_and_fail(tmp_path, tried, good):
    assert probe(shutil.copy(good, tmp_path / "babble.mp4")).n_frames == 30
    bug = shutil.copy(good, tmp_path / "bug.mp4")
    for _ in range(2):
        with pytest.raises(DecoderError, match=r"IndexError: codec table \(.*py:\d+\)"):
            probe(bug)
    assert tried().count("bug.mp4") == 2
    assert listed(tmp_path) == []


def test_an_interrupted_job_leaves_no_answer_for_the_next(tmp_path, good, monkeypatch):
    use(tmp_path)
    probe(good)

    def interrupt(self: Any, job: Any, timeout_s: float) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(supervisor.Worker, "ask", interrupt)
        with pytest.raises(KeyboardInterrupt):
            probe(good)
    assert supervisor.active()._idle == []
    assert len(sample_frames(good)) == 6


def test_every_good_clip_of_a_run_gets_its_row(tmp_path, tried, good):
    clips = []
    for k, name in enumerate(["one", "segfault", "two", "bug", "three"]):
        video = tmp_path / f"{name}.mp4"
        video.write_bytes(good.read_bytes() + b"\0" * (8 + k))
        clips.append(Clip(name, video, subtitle="Oh."))
    engine = FakeEngine(lambda request: '["happy"]')

    def run() -> list[str]:
        use(tmp_path, workers=2)
        with Ledger(tmp_path / "ledger.jsonl") as ledger:
            return [row.status for row in predict(clips, engine, ledger, system="s")]

    assert run() == run() == ["ok", "error", "ok", "error", "ok"]
    assert len(engine.seen) == 3
    facts = {fact.name: fact.error for fact in inspect(clips)}
    assert [name for name, error in facts.items() if error] == ["segfault", "bug"]
    with Ledger(tmp_path / "images.jsonl") as ledger:
        images, failed = captioning.extract_images(
            clips, FrameStore(tmp_path / "images"), ledger, frames=2, seed=0
        )
    assert [image.clip for image in images] == ["one", "one", "two", "two", "three", "three"]
    assert [row["clip"] for row in failed] == ["segfault", "bug"]
    assert tried().count("segfault.mp4") == 1
    # The file is replaced: its row, an error till now, is asked for again.
    clips[1].video.write_bytes(good.read_bytes() + b"\0" * 20)
    clips[1] = Clip("segfault", clips[1].video.rename(tmp_path / "mended.mp4"), subtitle="Oh.")
    assert run() == ["ok", "ok", "ok", "error", "ok"]
    assert len(engine.seen) == 4


def test_a_result_names_the_quarantined_files(tmp_path, good):
    params = DataCheck(profile="p", outputs=str(tmp_path / "outputs"))
    run = runs.start("00_data_check", params)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes() + b"\0")
    file = quarantine.path_for(tmp_path / "outputs", "p")
    quarantine.Quarantine(file).add(bad, "hung", "no answer within 9 s", "probe")
    with pytest.raises(DecoderError, match=r"outputs/p/quarantine\.jsonl"):
        probe(bad)
    run.finish({"tables": []})
    result = runs.read_result(run.dir)
    assert result["quarantined"] == [
        {
            "file": "bad.mp4",
            "sha": result["quarantined"][0]["sha"],
            "why": "no answer within 9 s in probe",
        }
    ]
    assert result["tables"][-1]["title"] == "Quarantined files"


def test_limits_are_no_part_of_a_runs_identity_but_a_retry_is():
    def key(**decode: Any) -> str:
        params = DataCheck(profile="p", decode=DecodeParams(**decode))
        return runs.run_key("00_data_check", params, {})

    assert key() == key(timeout_s=9, workers=5) != key(retry=True)


def test_broken_lists_are_read_and_unwritable_ones_reported(tmp_path, good):
    file = tmp_path / "list.jsonl"
    file.write_text('{"half": \nnonsense\n[]\n')
    found = quarantine.Quarantine(file)
    assert len(found) == 0
    assert found.add(good, "hung", "d", "o") == next(iter(quarantine.Quarantine(file)))
    assert quarantine.Quarantine(file).find(good) is not None
    assert found.add(tmp_path / "gone.mp4", "hung", "d", "o") is None
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(LedgerError, match="cannot be"):
        quarantine.Quarantine(tmp_path / "folder.jsonl").add(good, "hung", "d", "o")


def test_a_worker_that_cannot_start_says_why(tmp_path, monkeypatch, good):
    (tmp_path / "sitecustomize.py").write_text("import os; os.write(2, b'no libav'); os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", searched_first(tmp_path))
    use(tmp_path)
    with pytest.raises(RunError, match="ended at once: no libav"):
        probe(good)


def test_spread_keeps_the_order_and_gives_errors_to_the_caller(tmp_path):
    assert list(spread(lambda x: 2 * x, range(5))) == [0, 2, 4, 6, 8]
    use(tmp_path, workers=3)
    assert list(spread(lambda x: 2 * x, range(50))) == list(range(0, 100, 2))

    def fails(x: int) -> int:
        if x == 7:
            raise RunError("disk full")
        return x

    with pytest.raises(RunError, match="disk full"):
        list(spread(fails, range(50)))


def test_a_killed_parent_leaves_no_worker(tmp_path, good):
    code = (
        "import sys; from pathlib import Path; from emolib import quarantine\n"
        "from emolib.media import supervisor; from emolib.media.video import probe\n"
        "from emolib.params.media import DecodeParams\n"
        "quarantine.supervise(DecodeParams(), None); probe(Path(sys.argv[1]))\n"
        "print(supervisor.active()._idle[0]._process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(good)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    worker = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    ended = select.poll()
    ended.register(worker, select.POLLIN)
    assert ended.poll(60_000)
    os.close(worker)
