"""Asking through the ledger: once each, errors as rows, media read only when needed."""

from __future__ import annotations

import numpy as np
import pytest

from emolib.engines.base import Reply, Request
from emolib.errors import DataError, MediaError
from emolib.inference import Task, ask
from emolib.ledger import Ledger
from tests.fakes import FakeEngine


def task(name: str, built: list[str], *, broken: bool = False, content: str = "") -> Task:
    def build() -> Request:
        built.append(name)
        if broken:
            raise MediaError(f"{name}.mp4: no video stream")
        return Request(id="", prompt=name, images=(np.zeros((2, 2, 3), np.uint8),))

    return Task(id=name, content={"what": content or name}, build=build, info={"from": name})


def test_answers_come_back_in_order_with_info(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        rows = ask([task("b", []), task("a", [])], FakeEngine(lambda r: r.prompt * 2), ledger, "x")
    assert list(rows) == ["b", "a"]
    assert rows["a"]["text"] == "aa"
    assert rows["a"]["info"] == {"from": "a"}


def test_answered_tasks_are_neither_asked_nor_even_read_again(tmp_path):
    built: list[str] = []
    with Ledger(tmp_path / "l") as ledger:
        ask([task("a", built)], FakeEngine(), ledger, "x")
    with Ledger(tmp_path / "l") as ledger:
        engine = FakeEngine()
        rows = ask([task("a", built), task("b", built)], engine, ledger, "x")
    assert built == ["a", "b"]
    assert len(engine.seen) == 1
    assert set(rows) == {"a", "b"}


def test_a_broken_clip_is_a_row_and_the_others_go_on(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        tasks = [task("a", []), task("bad", [], broken=True), task("c", [])]
        rows = ask(tasks, FakeEngine(lambda r: "ok"), ledger, "x")
        assert rows["bad"]["error"] == "bad.mp4: no video stream"
        assert [rows[n]["text"] for n in "ac"] == ["ok", "ok"]
        assert all(ledger.settled(row["key"]) for row in rows.values())


def test_transient_errors_are_asked_again_next_time(tmp_path):
    down = FakeEngine(lambda r: Reply(id=r.id, error="503", transient=True))
    with Ledger(tmp_path / "l") as ledger:
        assert ask([task("a", [])], down, ledger, "x")["a"]["error"] == "503"
        assert ask([task("a", [])], FakeEngine(lambda r: "up"), ledger, "x")["a"]["text"] == "up"


def test_the_same_content_is_asked_once(tmp_path):
    engine = FakeEngine()
    with Ledger(tmp_path / "l") as ledger:
        rows = ask(
            [task("a", [], content="same"), task("b", [], content="same")], engine, ledger, "x"
        )
    assert len(engine.seen) == 1
    assert set(rows) == {"a", "b"}


def test_another_model_is_another_question(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        ask([task("a", [])], FakeEngine(identity={"engine": "1"}), ledger, "x")
        other = FakeEngine(identity={"engine": "2"})
        ask([task("a", [])], other, ledger, "x")
    assert len(other.seen) == 1


def test_media_are_decoded_one_batch_ahead_at_most(tmp_path):
    built: list[str] = []

    class Batches(FakeEngine):
        def stream(self, requests):
            for request in requests:
                assert len(built) <= len(self.seen) + 1
                self.seen.append(request)
                yield Reply(id=request.id, text="x")

    with Ledger(tmp_path / "l") as ledger:
        ask([task(str(i), built) for i in range(20)], Batches(), ledger, "x")


def test_ids_must_be_unique(tmp_path):
    with Ledger(tmp_path / "l") as ledger, pytest.raises(ValueError, match="unique"):
        ask([task("a", []), task("a", [])], FakeEngine(), ledger, "x")


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), DataError("gone")])
def test_a_file_out_of_reach_is_tried_again_next_time(tmp_path, fault):
    def fail() -> Request:
        raise fault

    with Ledger(tmp_path / "l") as ledger:
        lost = Task(id="a", content={"what": "a"}, build=fail)
        assert ask([lost], FakeEngine(), ledger, "x")["a"]["error"] == str(fault)
        assert ask([task("a", [])], FakeEngine(lambda r: "ok"), ledger, "x")["a"]["text"] == "ok"
