"""The ledger loses nothing and repeats nothing, whatever byte it was cut at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.errors import LedgerError
from emolib.ledger import Ledger

WRITER = """
import sys
from pathlib import Path
from emolib.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    for i in range(100_000):
        if not ledger.settled(str(i)):
            ledger.put({"key": str(i), "text": "愤怒 " * 50, "error": None})
            print(i, flush=True)
"""


def test_rows_come_back(tmp_path):
    with Ledger(tmp_path / "a" / "l.jsonl") as ledger:
        ledger.put({"key": "k", "text": "悲伤\n", "error": None})
    with Ledger(tmp_path / "a" / "l.jsonl") as again:
        assert again.get("k") == {"key": "k", "text": "悲伤\n", "error": None}
        assert len(again) == 1
        assert again.broken == 0


def test_newest_row_of_a_key_counts(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.put({"key": "k", "error": "server down", "transient": True})
        assert not ledger.settled("k")
        ledger.put({"key": "k", "error": None, "text": "x"})
        assert ledger.settled("k")
    with Ledger(path) as again:
        assert again.get("k")["text"] == "x"
    assert len(path.read_text().splitlines()) == 2, "append-only: nothing is rewritten"


def test_lasting_errors_are_settled(tmp_path):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ledger.put({"key": "k", "error": "corrupt", "transient": False})
        assert ledger.settled("k")


@given(cut=st.integers(min_value=0))
def test_cut_at_any_byte(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "l.jsonl"
    rows = [{"key": str(i), "text": "é" * i} for i in range(4)]
    with Ledger(path) as ledger:
        for row in rows:
            ledger.put(row)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    with Ledger(path) as ledger:
        survivors = len(ledger)
        assert [ledger.get(str(i)) for i in range(survivors)] == rows[:survivors]
        assert ledger.broken <= 1
        for row in rows[survivors:]:
            ledger.put(row)
    with Ledger(path) as ledger:
        assert [ledger.get(str(i)) for i in range(4)] == rows


def test_killed_writer_loses_at_most_the_row_in_flight(tmp_path):
    path = tmp_path / "l.jsonl"
    for already in (0, 1):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        told = [int(writer.stdout.readline()) for _ in range(200)]
        os.kill(writer.pid, signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().splitlines()]
        writer.wait()
        assert (told[0] > 0) == bool(already), "the second writer goes on where the first stopped"
        with Ledger(path) as ledger:
            assert all(ledger.settled(str(i)) for i in told)
    lines = path.read_bytes().splitlines()
    keys = [json.loads(line)["key"] for line in lines if line.endswith(b"}")]
    assert len(keys) == len(set(keys)), "no row was written twice"


def _write_many(path: Path, start: int) -> None:
    with Ledger(path) as ledger:
        for i in range(start, start + 200):
            ledger.put({"key": str(i), "text": "x" * 5000})


def test_two_processes_do_not_tear_each_others_lines(tmp_path):
    path = tmp_path / "l.jsonl"
    context = get_context("fork")
    workers = [context.Process(target=_write_many, args=(path, n * 200)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with Ledger(path) as ledger:
        assert len(ledger) == 400
        assert ledger.broken == 0


def test_disk_full_is_a_clear_stop(tmp_path, monkeypatch):
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ledger.put({"key": "a"})

        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("emolib.ledger.os.write", full)
        with pytest.raises(LedgerError, match="No space left on device"):
            ledger.put({"key": "b"})
        assert not ledger.settled("b")


def test_another_kind_of_file_is_refused(tmp_path):
    for text in ("hello\nworld\n", '{"name": "clip", "labels": []}\n', "[1]\n"):
        (tmp_path / "notes.txt").write_text(text)
        with pytest.raises(LedgerError, match="is it a ledger"):
            Ledger(tmp_path / "notes.txt")


@pytest.mark.parametrize("row", [{"text": "no key"}, {"key": "k", "x": float("nan")}])
def test_bad_rows_are_refused(tmp_path, row):
    with Ledger(tmp_path / "l.jsonl") as ledger, pytest.raises(ValueError):  # noqa: PT011
        ledger.put(row)


def test_half_a_character_reads_now_as_it_will_later(tmp_path):
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.put({"key": "k", "text": "glad \ud83d"})
        now = ledger.get("k")
    with Ledger(path) as again:
        assert again.get("k") == now == {"key": "k", "text": "glad ?"}


@pytest.mark.parametrize("line", [b'{"key": "x", "n": NaN}', b'{"key": ' + b"[" * 100_000])
def test_hostile_lines_are_skipped(tmp_path, line):
    path = tmp_path / "l.jsonl"
    path.write_bytes(line + b'\n{"key": "k"}\n')
    with Ledger(path) as ledger:
        assert [row["key"] for row in ledger] == ["k"]
        assert ledger.broken == 1
