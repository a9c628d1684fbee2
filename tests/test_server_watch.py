"""A server that dies, hangs or refuses everything: noticed, brought back, or a clear stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from emolib.engines import Request, answer_all, open_engine
from emolib.engines.launch import Launched
from emolib.engines.server import ServerEngine
from emolib.errors import EngineError
from emolib.inference import Task, ask
from emolib.ledger import Ledger
from emolib.params import ModelParams
from tests import fake_server
from tests.fake_server import FakeServer

SERVER = Path(fake_server.__file__)


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def task(word: str) -> Task:
    return Task(id=word, content={"word": word}, build=lambda: Request("", word))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as running:
        yield running


def params(url: str, **changes: object) -> ModelParams:
    known: dict[str, object] = {"retries": 0, "patience_s": 0.0, "concurrency": 2}
    return ModelParams(engine="server", model="fake", base_url=url, **(known | changes))  # type: ignore[arg-type]


def test_a_dead_server_stops_the_run_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    tasks = [task(f"word {i}") for i in range(200)]
    with Ledger(tmp_path / "l") as ledger:
        with FakeServer() as server, ServerEngine(params(server.url), "qwen") as engine:

            class Dying(list[str]):
                def append(self, digest: str) -> None:
                    super().append(digest)
                    if len(self) > 5:
                        raise ConnectionAbortedError  # hangs up on everybody from now on

            server.asked = Dying()
            alive = engine._watch.alive
            engine._watch.alive = lambda: len(server.asked) <= 5 and alive()  # type: ignore[method-assign]
            with pytest.raises(EngineError, match=r"qwen: nothing answers at .* any more.*is kept"):
                ask(tasks, engine, ledger, "captions")
        kept = len(ledger)
        assert 5 <= kept <= 7
        assert all(row["error"] is None for row in ledger), "no row is an error of the server's"
    with Ledger(tmp_path / "l") as ledger, FakeServer() as server:
        with ServerEngine(params(server.url), "qwen") as engine:
            rows = ask(tasks, engine, ledger, "captions")
        assert len(server.asked) == 200 - kept
    assert all(row["text"].startswith("answer") for row in rows.values())


def test_a_server_that_comes_back_is_waited_for(server: FakeServer) -> None:
    engine = ServerEngine(params(server.url, patience_s=60.0), "x", sleep=lambda s: None)
    looks = iter([False, False, True])
    engine._watch.alive = lambda: next(looks)  # type: ignore[method-assign]
    failing = [True]
    post = engine._post

    def once(body: bytes) -> bytes:
        if failing and failing.pop():
            raise EngineError("connection failed", transient=True)
        return post(body)

    engine._post = once  # type: ignore[method-assign]
    [reply] = answer_all(engine, [Request("a", "x")])
    engine.close()
    assert reply.error is None, "the request that met the dead server was asked again"
    assert next(looks, None) is None


@pytest.mark.parametrize(
    "error", ["HTTP 429: slow down", "no answer within 120 s", "HTTP 401: key"]
)
def test_a_server_that_refuses_everything_stops_the_run(server: FakeServer, error: str) -> None:
    engine = ServerEngine(params(server.url), "x")

    def refuse(body: bytes) -> bytes:
        raise EngineError(error, transient=True)

    engine._post = refuse  # type: ignore[method-assign]
    replies = []
    with pytest.raises(EngineError, match=rf"the last 8 requests .* failed, .*{error}"):
        replies += engine.stream([Request(str(i), "x") for i in range(100)])
    with engine:
        assert len(replies) == 0 or all(r.transient for r in replies)


def test_failures_between_answers_do_not_add_up(server: FakeServer) -> None:
    engine = ServerEngine(params(server.url, concurrency=1), "x")
    post = engine._post
    asked = []

    def every_third_works(body: bytes) -> bytes:
        asked.append(body)
        if len(asked) % 3:
            raise EngineError("HTTP 500", transient=True)
        return post(body)

    engine._post = every_third_works  # type: ignore[method-assign]
    with engine:
        replies = answer_all(engine, [Request(str(i), "x") for i in range(60)])
    assert sum(r.error is None for r in replies) == 20


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., ModelParams]:
    def _launch(*options: str, **changes: object) -> ModelParams:
        port = free_port()
        command = (sys.executable, str(SERVER), "--port", str(port), *options)
        return params(f"http://127.0.0.1:{port}/v1", launch=command, launch_s=60.0, **changes)

    return _launch


def test_a_launched_server_is_started_restarted_and_ended(
    tmp_path: Path, launch: Callable[..., ModelParams]
) -> None:
    seen = tmp_path / "seen"
    model = launch("--seen", str(seen))
    cache = tmp_path / "models"
    with open_engine(model, name="qwen", cache=cache) as engine:
        assert engine.software == {"server": "fake 1"}
        assert "launch" not in engine.identity
        with open_engine(model, name="second", cache=cache):
            pass  # found it running: does not start, does not end it
        requests = [Request(str(i), f"q{i}") for i in range(60)]
        stream = engine.stream(requests)
        replies = [next(stream) for _ in range(5)]
        keeper = engine._launched._keeper  # type: ignore[attr-defined]
        os.kill(_child(keeper.pid), signal.SIGKILL)
        replies += stream
        assert [r.error for r in replies] == [None] * 60
    assert len({r.id for r in replies}) == 60
    assert len(seen.read_text().splitlines()) <= 60 + 2 * model.concurrency
    assert (tmp_path / "servers/qwen.log").read_text().splitlines() == ["serving"] * 2
    with pytest.raises(EngineError, match="nothing answers"):
        open_engine(model.model_copy(update={"launch": ()}), name="gone")


def test_a_request_that_kills_the_server_is_a_row_error_and_the_others_go_on(
    launch: Callable[..., ModelParams], tmp_path: Path
) -> None:
    model = launch("--poison", "a bad picture", concurrency=1)
    with open_engine(model, name="qwen", cache=tmp_path / "models") as engine:
        requests = [Request("1", "good"), Request("2", "a bad picture"), Request("3", "good")]
        replies = answer_all(engine, requests)
    assert [r.error is None for r in replies] == [True, False, True]
    assert replies[1].transient


def test_a_server_that_does_not_stay_up_stops_the_run_with_its_log(
    launch: Callable[..., ModelParams], tmp_path: Path
) -> None:
    model = launch("--no-such-option")
    with pytest.raises(EngineError, match=r"exit code 2\)(.|\n)*no-such-option"):
        open_engine(model, name="qwen", cache=tmp_path / "models")


def test_a_program_that_is_not_there(tmp_path: Path, server: FakeServer) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(EngineError, match=r"qwen: launch: there is no program 'no-such-vllm'"):
        ServerEngine(params(url, launch=("no-such-vllm", "serve")), "qwen")
    with ServerEngine(params(server.url, launch=("no-such-vllm", "serve")), "qwen"):
        pass  # it answers: nothing has to be started


def test_a_launched_server_sees_the_gpus_of_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'))"
    monkeypatch.setattr("emolib.engines.server.gpu_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    url = f"http://127.0.0.1:{free_port()}/v1"
    for device, gpus, seen in (("cuda:1", 2, "5,6"), ("cuda", 1, "4"), ("auto", 1, "4,5,6")):
        changed = params(url, launch=(sys.executable, "-c", code), device=device, gpus=gpus)
        with pytest.raises(EngineError, match=f"sees {seen}"):
            ServerEngine(changed, "x", log=tmp_path / device)


def test_a_launched_server_dies_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from emolib.engines.launch import Launched;"
        f"l = Launched([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True);"
        f" time.sleep(600)'], Path({str(tmp_path / 'log')!r}), 'x'); l.start();"
        "print('up', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    child = int(_wait_for(lambda: (tmp_path / "log").read_text()))
    parent.kill()
    parent.wait()
    assert _wait_for(lambda: not Path(f"/proc/{child}/stat").exists() or _is_zombie(child))


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    launched = Launched([sys.executable, "-c", "pass"], tmp_path / "log", "x")
    launched.start()
    launched.close()
    launched.close()
    assert "exit code None" in launched.ended()


def _child(pid: int) -> int:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return int(text.split()[0])


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _wait_for(look: Callable[[], object]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := look():
            return str(found)
        time.sleep(0.02)
    raise AssertionError("waited a minute")
