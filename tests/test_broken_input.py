"""Everything a folder, a table, a disk or a server may come with, each beside good clips.

Each kind gives its clip a row with the error (or a right answer where the clip is merely odd),
or stops with a message that names the fault; and every good clip of the same run gets its row.
Videos that hang a decoder are in ``test_supervisor``.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib import captioning, quarantine, words
from emolib.datasets.clip import Clip
from emolib.datasets.inspection import ClipFacts, inspect
from emolib.datasets.open import open_dataset
from emolib.datasets.splits import apply_split
from emolib.engines.server import ServerEngine
from emolib.errors import DataError, EmolibError, LedgerError, RunError
from emolib.files import write_jsonl
from emolib.ledger import Ledger
from emolib.media import supervisor
from emolib.media.asr import Recognizer
from emolib.media.store import FrameStore
from emolib.media.transcript import Segment
from emolib.params import DataParams, ModelParams
from emolib.params.media import AsrParams, DecodeParams
from emolib.predict import Prediction, predict
from tests.fakes import FakeEngine
from tests.media_files import tone, write_audio, write_video
from tests.paths import searched_first
from tests.test_server_engine import GOOD, Server, hang_up, send, stop_half_way
from tests.test_supervisor import FAULTS

OK = ""  # the clip is odd and its frames are right
ANY = 0  # as many different frames as the draw happens to hit


@dataclass(frozen=True)
class Kind:
    """One kind of input: what makes its file, what its row's error holds, its frames."""

    make: Callable[[Path, bytes], object]
    error: str = OK
    name: str = "clip.mp4"
    frames: int = 12


def cut(share: float) -> Callable[[Path, bytes], object]:
    return lambda path, good: path.write_bytes(good[: int(share * len(good))])


def patched(box: bytes, offset: int, value: int) -> Callable[[Path, bytes], object]:
    """Overwrite four bytes of every box of a name."""

    def make(path: Path, good: bytes) -> None:
        data, at = bytearray(good), good.find(box)
        assert at > 0
        while at > 0:
            data[at + offset : at + offset + 4] = value.to_bytes(4, "big")
            at = good.find(box, at + 1)
        path.write_bytes(data)

    return make


def damaged(path: Path, good: bytes) -> None:
    data, at = bytearray(good), good.find(b"mdat") + 60
    data[at : at + 900] = bytes(900)
    path.write_bytes(data)


def video(n: int = 12, **options: Any) -> Callable[[Path, bytes], object]:
    return lambda path, good: write_video(path, n, **options)


def unreadable(path: Path, good: bytes) -> None:
    """A file whose bytes cannot be had, for root neither."""
    path.symlink_to("/proc/self/mem")


def copy(path: Path, good: bytes) -> None:
    path.write_bytes(good)


PICTURES = {
    "zero bytes": Kind(cut(0), "empty"),
    "text renamed to mp4": Kind(lambda p, g: p.write_text("Hello!\n" * 50), "invalid data"),
    "page of a login wall": Kind(
        lambda p, g: p.write_text("<!DOCTYPE html><html>Please sign in</html>"), "invalid data"
    ),
    "random bytes": Kind(
        lambda p, g: p.write_bytes(np.random.default_rng(0).bytes(5000)), "invalid data"
    ),
    "play list that leads elsewhere": Kind(
        lambda p, g: p.write_text("#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"), "cannot be read"
    ),
    "truncated, tables first": Kind(cut(0.7), "cut short"),
    "truncated, tables lost": Kind(lambda p, g: p.write_bytes(g[:40]), "cut short"),
    "damaged in the middle": Kind(damaged, "damaged|can be decoded"),
    "no video stream": Kind(lambda p, g: write_audio(p, tone(0.3)[None]), "no video stream"),
    "decoder crashes": Kind(copy, "crashed the decoder (SIGSEGV", "segfault.mp4"),
    "unreadable file": Kind(unreadable, "Input/output error|empty"),
    "named pipe": Kind(lambda p, g: os.mkfifo(p), "not a regular file"),
    "no audio": Kind(video()),
    "1 frame": Kind(video(1), frames=1),
    "4K frame": Kind(video(1, size=(3840, 2160)), frames=1),
    "odd size": Kind(video(size=(127, 63), pix_fmt="yuv444p")),
    "2 pixels": Kind(video(size=(16, 2), codec="ffv1"), name="two.mkv"),
    "10-bit": Kind(video(codec="libx265", pix_fmt="yuv420p10le")),
    "rotated": Kind(video(rotation=90)),
    "10-hour header": Kind(patched(b"mvhd", 20, 36_000_000)),
    "10 hours between two frames": Kind(video(2, pts=[0, 36_000_000]), frames=1),
    "header of no length": Kind(patched(b"mdhd", 20, 0)),
    "0 fps": Kind(patched(b"stts", 16, 0), frames=ANY),
    "variable rate, late start": Kind(video(4, pts=[700, 720, 1500, 1510]), frames=ANY),
    "B-frames in AVI": Kind(video(), name="old.avi"),
    "unicode name": Kind(copy, name="她笑了 – ¿qué? 😀.mp4"),
    "newline in the name": Kind(copy, name="two\nlines\t.mp4"),
    "name that is no text": Kind(copy, name=os.fsdecode(b"caf\xe9.mp4")),
    "name like an address": Kind(copy, name="http:__x?a=1&b=<i>.mp4"),
    "name like an option": Kind(copy, name="-rf.mp4"),
    "very long name": Kind(copy, name="x" * 240 + ".mp4"),
    "name twice in two folders": Kind(copy, name="again/good0.mp4"),
}
GOODS = 3


@dataclass(frozen=True)
class Result:
    """What one run over the folder gave, by kind."""

    clips: dict[str, Clip]
    facts: dict[str, ClipFacts]
    rows: dict[str, Prediction]
    images: dict[str, int]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(scope="module")
def good(folder: Path) -> bytes:
    options = {"size": (320, 240), "muxer": {"movflags": "faststart"}}
    return write_video(folder / "good.mp4", 12, audio=tone(0.5)[None], **options).read_bytes()


@pytest.fixture(scope="module")
def run(folder: Path, good: bytes) -> Iterator[Result]:
    """One run: look at every clip, store its frames, ask a model."""
    root = folder / "clips"
    names = {}
    for number, (kind, one) in enumerate(PICTURES.items()):
        name = one.name.replace("clip", f"clip{number}")
        names[kind] = (root / name).absolute()
        names[kind].parent.mkdir(parents=True, exist_ok=True)
        # A trailing byte makes the content a file's own, so that none is answered for another.
        one.make(names[kind], good + bytes([number]))
    for k in range(GOODS):
        names[f"good {k}"] = root / f"good{k}.mp4"
        names[f"good {k}"].write_bytes(good + bytes([200 + k]))
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    (root / "folder.mp4").mkdir()
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(FAULTS.format(log=str(folder / "log.txt")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", searched_first(site))
        supervisor._current = None
        with quarantine.supervised(DecodeParams(), folder / "quarantine.jsonl"):
            clips = list(open_dataset(DataParams(kind="folder", root=str(root)), folder))
            facts = {fact.name: fact for fact in inspect(clips)}
            with Ledger(folder / "images.jsonl") as ledger:
                store = FrameStore(folder / "images", "jpeg")
                images, _ = captioning.extract_images(clips, store, ledger, frames=2, seed=0)
            with Ledger(folder / "predict.jsonl") as ledger:
                engine = FakeEngine(lambda request: '["happy"]')
                rows = {row.name: row for row in predict(clips, engine, ledger, system="s")}
            workers = supervisor.active()
            assert workers is not None
            workers.close()
    by_path = {clip.video.absolute(): clip for clip in clips}
    assert len(by_path) == len(clips) == len(names), "each once, circles not followed"
    of = {kind: by_path[path] for kind, path in names.items()}
    stored = [image.clip for image in images]
    return Result(
        of,
        {kind: facts[clip.name] for kind, clip in of.items()},
        {kind: rows[clip.name] for kind, clip in of.items()},
        {kind: stored.count(clip.name) for kind, clip in of.items()},
    )


@pytest.mark.parametrize("kind", PICTURES)
def test_a_clip_of_each_kind_has_its_row(run: Result, kind: str) -> None:
    wanted, row, fact = PICTURES[kind], run.rows[kind], run.facts[kind]
    if wanted.error == OK:
        assert (row.error, row.status, row.labels) == (None, "ok", ("happy",))
        assert row.info["distinct_frames"] in (
            [min(6, wanted.frames)] if wanted.frames else range(1, 7)
        )
        assert fact.error is None
        assert run.images[kind] == 2
    else:
        assert row.error is not None
        assert any(part.lower() in row.error.lower() for part in wanted.error.split("|")), row.error
        assert run.clips[kind].video.name in row.error, "the message names the file"
        assert (row.status, row.labels) == ("error", ())
        assert run.images[kind] == 0


def test_every_good_clip_has_its_row(run: Result) -> None:
    for k in range(GOODS):
        assert run.rows[f"good {k}"].labels == ("happy",)
        assert run.facts[f"good {k}"].has_audio
        assert run.images[f"good {k}"] == 2
    errors = [kind for kind, row in run.rows.items() if row.error]
    assert sorted(errors) == sorted(k for k, one in PICTURES.items() if one.error != OK)


def write_nan(path: Path) -> Path:
    sound = tone(0.4)
    sound[100] = np.nan
    return write_audio(path, sound[None], codec="pcm_f32le")


SOUNDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "NaN in the sound": (lambda p: write_nan(p.with_suffix(".wav")), "unreadable"),
    "sound cut short": (
        lambda p: _cut_file(write_audio(p.with_suffix(".wav"), tone(0.5)[None])),
        "unreadable",
    ),
    "text as sound": (lambda p: _text_file(p.with_suffix(".wav")), "unreadable"),
    "no audio track": (lambda p: write_video(p.with_suffix(".mp4"), 4), "no-audio"),
    "silence": (
        lambda p: write_audio(p.with_suffix(".wav"), np.zeros((1, 8000), np.float32)),
        "asr:fake:silent",
    ),
    "speech": (lambda p: write_audio(p.with_suffix(".wav"), tone(0.5)[None]), "asr:fake"),
}


def _cut_file(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-4000])
    return path


def _text_file(path: Path) -> Path:
    path.write_text("no sound")
    return path


class Fake(Recognizer):
    """Hears one word."""

    fingerprint = "fake"

    def hear(self, sound: np.ndarray, spans: Any) -> tuple[list[Segment], str]:
        return [Segment(0.0, 0.5, "Hello.", 0.1, -0.2, 1.0)], "en"


def test_sounds_say_where_their_words_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, wanted = [], {}
    for number, (kind, (make, source)) in enumerate(SOUNDS.items()):
        made = make(tmp_path / f"s{number}")
        clips.append(Clip(kind, made, audio=made))
        wanted[kind] = source
    params = AsrParams(model="fake", simplified=False)
    monkeypatch.setattr(words, "open_recognizer", lambda given: Fake(given, "fake"))
    with Ledger(tmp_path / "words.jsonl") as ledger:
        heard = words.with_words(clips, params, ledger)
    assert {clip.name: clip.subtitle_source for clip in heard} == wanted
    assert [clip.subtitle for clip in heard] == [None] * 5 + ["Hello."]


TABLES: dict[str, tuple[bytes, str]] = {
    "duplicate names": (b"name,subtitle\na,Hi\na,Ho\n", "given more than once"),
    "a name without a video": (b"name\na\nghost\n", "ghost"),
    "missing name": (b"name,subtitle\n,Hi\n", "line 2: no name"),
    "wrong column": (b"name,subtitel\na,Hi\n", "did you mean 'subtitle'"),
    "too many cells": (b"name,subtitle\na,Oh, no\n", "line 2: 3 cells"),
    "wrong encoding": (b"name,subtitle\na,\xff\x80\xff\n", "not text in UTF-8"),
    "a spreadsheet": (b"PK\x03\x04" + bytes(range(256)), "not text|not valid CSV|no column"),
    "empty table": (b"", "the table is empty"),
    "unknown split": (b"name,split\na,tset\n", "split 'tset'"),
    "sound that is not there": (b"name,audio\na,a.wav\n", "no sound file 'a.wav'"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_wrong_table_stops_before_any_work(tmp_path: Path, good: bytes, kind: str) -> None:
    content, message = TABLES[kind]
    (tmp_path / "a.mp4").write_bytes(good)
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_dataset(DataParams(kind="folder", root=str(tmp_path), table="t.csv"), tmp_path)
    assert any(part in str(caught.value) for part in message.split("|"))
    assert "t.csv" in str(caught.value)


TEXTS = {
    "blank subtitle": ("   ", "are unknown."),
    "NaN as subtitle": ("NaN", "are unknown."),
    "subtitle with special tokens": ("<image> <|im_end|> </s> Hi", "Hi."),
    "subtitle of several lines": ('"One\nTwo"', "One Two"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_odd_words_reach_the_model_as_plain_text(tmp_path: Path, good: bytes, kind: str) -> None:
    text, wanted = TEXTS[kind]
    (tmp_path / "a.mp4").write_bytes(good)
    (tmp_path / "t.csv").write_text(f"name,subtitle,labels\na,{text},NaN\n", encoding="utf-8")
    params = DataParams(kind="folder", root=str(tmp_path), table="t.csv")
    clips = open_dataset(params, tmp_path)
    engine = FakeEngine(lambda request: '["happy"]')
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        [row] = predict(clips, engine, ledger, system="s")
    assert row.status == "ok"
    assert clips[0].labels is None
    assert wanted in engine.seen[0].prompt
    assert not any(mark in engine.seen[0].prompt for mark in ("<image>", "<|", "</s>", "\n"))


def test_other_wrong_folders_stop(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(DataError, match="links that lead nowhere"):
        open_dataset(DataParams(kind="folder", root=str(tmp_path)), tmp_path)
    clip = Clip("a", tmp_path / "a.mp4")
    (tmp_path / "split.json").write_text('{"train": ["b"], "test": ["a"]}')
    with pytest.raises(DataError, match=r"split\.json"):
        apply_split([clip], tmp_path / "split.json")


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond ``size`` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("where", ["ledger", "images", "predictions"])
def test_a_full_disk_stops_clearly_and_nothing_is_asked_twice(
    tmp_path: Path, good: bytes, where: str
) -> None:
    clips = []
    for k in range(4):
        (tmp_path / f"c{k}.mp4").write_bytes(good + bytes([k]))
        clips.append(Clip(f"c{k}", tmp_path / f"c{k}.mp4"))
    engine = FakeEngine(lambda request: '["happy"]')
    ledger, images = Ledger(tmp_path / "l.jsonl"), Ledger(tmp_path / "i.jsonl")
    store = FrameStore(tmp_path / "images", "jpeg")

    def work() -> None:
        captioning.extract_images(clips, store, images, frames=1, seed=0)
        rows = predict(clips, engine, ledger, system="s")
        write_jsonl(tmp_path / "out.jsonl", [row.to_json() for row in rows])

    size = {"images": 500, "ledger": 900, "predictions": 0}[where]
    wanted: type[EmolibError] = {"images": RunError, "ledger": LedgerError}.get(where, DataError)
    if where != "images":
        captioning.extract_images(clips, store, images, frames=1, seed=0)
    if where == "predictions":
        rows = predict(clips, engine, ledger, system="s")
        size = ledger.path.stat().st_size // 3
        with full_disk(size), pytest.raises(wanted, match=r"cannot be written"):
            write_jsonl(tmp_path / "out.jsonl", [row.to_json() for row in rows])
    else:
        with full_disk(size), pytest.raises(wanted, match=r"(not|cannot be) written"):
            work()
    assert not list(tmp_path.glob("out.jsonl*")), "no half-written file"
    before = len(engine.seen)
    ledger.close()
    ledger = Ledger(tmp_path / "l.jsonl")  # the next run
    kept = len(ledger)
    work()
    # At most the row that could not be written was asked a second time.
    assert len(engine.seen) == before + 4 - kept <= 5
    assert (tmp_path / "out.jsonl").read_text().count('["happy"]') > 0
    ledger.close()
    images.close()


RUBBISH: dict[str, tuple[Callable[[Any], None], str]] = {
    "answers a page": (send(200, b"<html>Bad gateway</html>"), "not JSON|unexpected|understood"),
    "answers other JSON": (send(200, {"error": "none"}), ""),
    "answers no choices": (send(200, {"choices": []}), ""),
    "answers null": (send(200, {"choices": [{"message": {"content": None}}]}), ""),
    "answers half": (stop_half_way, ""),
    "hangs up": (hang_up, ""),
    "answers 429": (send(429, {"error": {"message": "slow down"}}), "429"),
    "answers 500": (send(500, {"error": {"message": "out of memory"}}), "500"),
    "answers 401": (send(401, {"error": {"message": "who are you"}}), "401"),
}


@pytest.fixture(scope="module")
def served(folder: Path, good: bytes) -> Iterator[dict[str, Prediction]]:
    """One run against one server that fails at every second clip, and hangs at the last."""
    ever = threading.Event()

    def hang(handler: Any) -> None:
        ever.wait(60)
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)

    kinds: dict[str, Callable[[Any], None]] = {kind: one for kind, (one, _) in RUBBISH.items()}
    kinds["hangs"] = hang
    clips, plan = [], []
    for k, (kind, answer) in enumerate(kinds.items()):
        for name, what in ((kind, answer), (f"good after {kind}", send(200, GOOD))):
            file = folder / f"served{k}{name == kind}.mp4"
            file.write_bytes(good + bytes([k, name == kind]))
            clips.append(Clip(name, file))
            plan.append(what)
    with Server() as server:
        server.plan = plan
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        params = ModelParams(
            engine="server", model="m", base_url=server.url, concurrency=1, retries=0, timeout_s=3
        )
        engine = ServerEngine(params, "s", sleep=lambda seconds: None)
        with Ledger(folder / "served.jsonl") as ledger:
            rows = predict(clips, engine, ledger, system="s", frames=1)
        engine.close()
        ever.set()
        server.shutdown()
        thread.join()
    return {row.name: row for row in rows}


@pytest.mark.parametrize("kind", [*RUBBISH, "hangs"])
def test_whatever_a_server_does_costs_one_row(served: dict[str, Prediction], kind: str) -> None:
    error = served[kind].error
    assert error is not None
    assert any(part in error for part in RUBBISH.get(kind, (None, ""))[1].split("|")), error
    assert "\n" not in error
    assert served[f"good after {kind}"].labels == ("happy",)


def test_there_are_forty_kinds_at_least() -> None:
    assert len([*PICTURES, *SOUNDS, *TABLES, *TEXTS, *RUBBISH]) >= 40
