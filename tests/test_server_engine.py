"""The client of OpenAI-compatible servers, against a real one and one that misbehaves."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import threading
import wave
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.engines import Engine, Request, answer_all, open_engine
from emolib.engines.base import Token
from emolib.engines.fingerprint import fingerprint
from emolib.engines.server import ServerEngine
from emolib.engines.serving import serve
from emolib.engines.tiny import tiny_folder
from emolib.errors import EngineError, MissingModelError, ParamsError
from emolib.params import Decoding, ModelParams
from emolib.params.loading import Source, merge

GOOD = {
    "choices": [{"message": {"content": '["happy"]'}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers from the server's list, then well for ever."""

    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": "m", "root": "/weights", "owned_by": "test"}]})

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(self)
            plan = self.server.plan
            answer = plan.pop(0) if plan else send(200, GOOD)
        answer(self)

    def send(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.plan: list[Answer] = []
        self.seen: list[Handler] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


def send(status: int, content: Any, **headers: str) -> Answer:
    return lambda handler: handler.send(status, content, **headers)


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def stop_half_way(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def connect(server: Server, waits: list[float]) -> Iterator[Callable[..., ServerEngine]]:
    opened: list[ServerEngine] = []

    def _connect(**changes: Any) -> ServerEngine:
        params = ModelParams(engine="server", model="m", base_url=server.url).model_copy(
            update=changes
        )
        opened.append(ServerEngine(params, "test", sleep=waits.append))
        return opened[-1]

    yield _connect
    for engine in opened:
        engine.close()


def test_request_and_reply(connect: Callable[..., ServerEngine], server: Server) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    sound = np.array([0.0, 0.5, -1.0, 1.0], dtype=np.float32)
    engine = connect(decoding=Decoding(max_new_tokens=9, stop=("\n",)))
    assert isinstance(engine, Engine)
    request = Request("a", "What?", (image, image[::-1]), (sound,), 8000, system="Be brief.")
    [reply] = answer_all(engine, [request])
    assert (reply.text, reply.error, reply.finish_reason) == ('["happy"]', None, "stop")
    assert (reply.prompt_tokens, reply.new_tokens) == (7, 3)
    assert reply.seconds > 0

    [handler] = server.seen
    assert handler.path == "/v1/chat/completions"
    assert "Authorization" not in handler.headers
    body = handler.body
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 9, 0)
    assert body["stop"] == ["\n"]
    assert "seed" not in body
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["image_url", "image_url", "input_audio", "text"], "the images stand first"
    assert user["content"][-1]["text"] == "What?"
    for part, pixels in zip(user["content"][:2], (image, image[::-1]), strict=True):
        assert np.array_equal(_decoded(part["image_url"]["url"]), pixels), "pixels changed"
    with wave.open(io.BytesIO(base64.b64decode(user["content"][2]["input_audio"]["data"]))) as wav:
        assert wav.getframerate() == 8000
        heard = np.frombuffer(wav.readframes(4), "<i2") / 32767
    assert np.allclose(heard, sound, atol=1e-4)


def _decoded(url: str) -> np.ndarray:
    from PIL import Image

    head, data = url.split(",", 1)
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_sampling_settings_are_sent(connect: Callable[..., ServerEngine], server: Server) -> None:
    decoding = Decoding(temperature=0.7, top_p=0.9, seed=3, repetition_penalty=1.1)
    engine = connect(decoding=decoding)
    answer_all(engine, [Request("a", "x")])
    body = server.seen[0].body
    assert body["messages"] == [{"role": "user", "content": "x"}]
    wanted = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "repetition_penalty": 1.1}
    assert {k: body[k] for k in wanted} == wanted
    assert engine.identity["decoding"] == {"max_tokens": 512, **wanted}


REASONING = {"max_tokens", "temperature", "top_p"}  # what OpenAI's reasoning models refuse


def as_reasoning_model(handler: Handler) -> None:
    """Answers as they do: what is not supported is named, everything else is answered."""
    for field in sorted(REASONING & handler.body.keys()):
        message = f"Unsupported parameter: '{field}' is not supported with this model."
        error = {"message": message, "param": field, "code": "unsupported_parameter"}
        return handler.send(400, {"error": error})
    handler.send(200, GOOD)


def test_a_model_that_refuses_max_tokens_and_temperature_is_asked_without(
    connect: Callable[..., ServerEngine], server: Server
) -> None:
    server.plan = [as_reasoning_model]
    thinking = {"chat_template_kwargs": {"enable_thinking": False}}
    engine = connect(
        max_tokens_key="max_completion_tokens",
        send_temperature=False,
        extra_body={**thinking, "reasoning_effort": "low"},
        decoding=Decoding(max_new_tokens=9),
    )
    [reply] = answer_all(engine, [Request("a", "x")])
    assert reply.error is None
    body = server.seen[0].body
    assert body["max_completion_tokens"] == 9
    assert not REASONING & body.keys()
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert body["reasoning_effort"] == "low"
    assert engine.identity["decoding"] == {"max_completion_tokens": 9}
    assert engine.identity["extra_body"] == {**thinking, "reasoning_effort": "low"}
    assert "extra_body" not in connect().identity, "answers of before keep their key"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, r"'max_tokens': set max_tokens_key: max_completion_tokens"),
        (
            {"max_tokens_key": "max_completion_tokens"},
            r"'temperature': set send_temperature: false",
        ),
    ],
)
def test_an_unsupported_setting_stops_the_run_and_names_the_parameter(
    changes: dict[str, Any], words: str, connect: Callable[..., ServerEngine], server: Server
) -> None:
    server.plan = [as_reasoning_model] * 40
    requests = [Request(str(n), "x") for n in range(40)]
    with pytest.raises(EngineError, match=f"test: the model does not support {words}"):
        answer_all(connect(concurrency=1, **changes), requests)
    assert len(server.seen) <= 2, "every further row would fail as well"


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too long", "param": "messages", "code": "unsupported_value"},
        {"message": "at most 4096", "param": "max_tokens", "code": "invalid_value"},
        {"message": "x", "param": ["max_tokens"], "code": "unsupported_parameter"},
        "max_tokens",
    ],
)
def test_a_fault_of_one_row_stops_nothing(
    error: Any, connect: Callable[..., ServerEngine], server: Server
) -> None:
    server.plan = [send(400, {"error": error})]
    engine = connect(concurrency=1)
    first, second = answer_all(engine, [Request("a", "x"), Request("b", "y")])
    assert (first.error or "").startswith("HTTP 400")
    assert second.error is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"send_temperature": False, "decoding": {"temperature": 0.5}}, "send_temperature.*0.5"),
        ({"extra_body": {"temperature": 1}}, r"extra_body.*temperature \(decoding.temperature\)"),
        ({"extra_body": {"messages": []}}, "extra_body.*messages"),
        ({"max_tokens_key": "max_output_tokens"}, "max_tokens_key.*'max_completion_tokens'"),
        ({"extra_body": {"x": float("nan")}}, "extra_body.*not JSON compliant"),
    ],
)
def test_contradicting_request_fields_are_refused(values: dict[str, Any], words: str) -> None:
    source = Source("p.yaml", {"engine": "server", "model": "m", **values})
    with pytest.raises(ParamsError, match=words):
        merge(ModelParams, [source])


def test_marks_in_prompts_are_blunted(connect: Callable[..., ServerEngine], server: Server) -> None:
    text = "<image> </s> <|im_end|> a<b <3 <happy>"
    answer_all(connect(), [Request("a", text, system="<|im_start|>")])
    system, user = server.seen[0].body["messages"]
    assert system["content"] == "‹|im_start|>"
    assert user["content"] == "‹image> ‹/s> ‹|im_end|> a<b <3 <happy>"


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(send(500, {"error": {"message": "oops"}}), id="500"),
        pytest.param(send(503, b"<html>busy</html>"), id="503"),
        pytest.param(send(429, {"error": "slow down"}), id="429"),
        pytest.param(hang_up, id="hang-up"),
        pytest.param(stop_half_way, id="half-an-answer"),
    ],
)
def test_passing_trouble_is_tried_again(
    trouble: Answer, connect: Callable[..., ServerEngine], server: Server, waits: list[float]
) -> None:
    server.plan = [trouble, trouble]
    [reply] = answer_all(connect(), [Request("a", "x")])
    assert (reply.text, reply.error) == ('["happy"]', None)
    assert len(server.seen) == 3
    assert len(waits) == 2
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2, "the waits double, with some chance in them"


def test_lasting_trouble_is_a_transient_error(
    connect: Callable[..., ServerEngine], server: Server, waits: list[float]
) -> None:
    server.plan = [send(500, {"error": {"message": "line one\nline two"}})] * 9
    [reply] = answer_all(connect(retries=2), [Request("a", "x")])
    assert reply.error == "HTTP 500: line one line two"
    assert reply.transient
    assert reply.text == ""
    assert len(server.seen) == 3
    assert len(waits) == 2, "no wait after the last try"


def test_retry_after_is_honoured(
    connect: Callable[..., ServerEngine], server: Server, waits: list[float]
) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    server.plan = [
        send(429, {}, Retry_After="7"),
        send(503, {}, Retry_After=soon),
        send(429, {}, Retry_After="soonish"),
    ]
    [reply] = answer_all(connect(), [Request("a", "x")])
    assert reply.error is None
    assert waits[0] == 7
    assert 20 < waits[1] <= 30
    assert waits[2] <= 4


def test_too_long_a_wait_ends_the_try(
    connect: Callable[..., ServerEngine], server: Server, waits: list[float]
) -> None:
    server.plan = [send(429, {"error": "quota"}, Retry_After="86400")]
    [reply] = answer_all(connect(), [Request("a", "x")])
    assert reply.transient
    assert "86400 s" in (reply.error or "")
    assert (waits, len(server.seen)) == ([], 1)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_our_own_faults_are_not_tried_again(
    status: int, connect: Callable[..., ServerEngine], server: Server
) -> None:
    server.plan = [send(status, {"error": {"message": "no such thing"}})]
    [reply] = answer_all(connect(), [Request("a", "x")])
    assert reply.error == f"HTTP {status}: no such thing"
    assert not reply.transient
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_refused_key_is_the_rows_passing_error(
    status: int, connect: Callable[..., ServerEngine], server: Server
) -> None:
    server.plan = [send(status, {"error": {"message": "no credit"}})]
    refused, answered = answer_all(connect(concurrency=1), [Request("a", "x"), Request("b", "y")])
    assert refused.error == f"HTTP {status}: no credit"
    assert refused.transient, "the next run asks again, with another key"
    assert answered.error is None
    assert len(server.seen) == 2, "asking at once again changes nothing"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>hello</html>", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "choices"),
        ({"choices": []}, "choices"),
        ({"choices": [{"text": "old interface"}]}, "choices"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, "empty.*length"),
        ({"choices": [{"message": {"content": None}}]}, "empty"),
        (
            {"choices": [{"message": {"content": "", "reasoning_content": "Hm"}}]},
            "ended while thinking; raise max_new_tokens",
        ),
        (
            {"choices": [{"message": {"content": None, "refusal": "I can't."}}]},
            r"the model refused: I can't\.",
        ),
        ({"choices": [{"message": {"content": ["x"]}}]}, "empty"),
    ],
)
def test_rubbish_is_an_error(
    content: Any, words: str, connect: Callable[..., ServerEngine], server: Server
) -> None:
    server.plan = [send(200, content)]
    [reply] = answer_all(connect(), [Request("a", "x")])
    assert reply.error is not None
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reply.error)


def test_token_probabilities_are_asked_for_and_read(
    connect: Callable[..., ServerEngine], server: Server
) -> None:
    top = [{"token": "1", "logprob": -2.0}, {"token": "0", "logprob": -0.2}]
    told = {"content": [{"token": "0", "logprob": -0.2, "bytes": [48], "top_logprobs": top}]}
    choice = {"message": {"content": "0"}, "finish_reason": "stop", "logprobs": told}
    server.plan = [send(200, {"choices": [choice]})] * 2 + [send(200, GOOD)]
    engine = connect(concurrency=1)
    requests = [Request(str(n), "x", alternatives=n) for n in (2, 0, 3)]
    replies = answer_all(engine, requests)
    assert replies[0].tokens == (Token("0", -0.2, (("0", -0.2), ("1", -2.0))),)
    assert replies[2].tokens == (), "a server that tells none"
    assert [handler.body.get("top_logprobs") for handler in server.seen] == [2, None, 3]
    assert "logprobs" not in server.seen[1].body


def test_missing_usage_is_unknown(connect: Callable[..., ServerEngine], server: Server) -> None:
    server.plan = [send(200, {"choices": [{"message": {"content": "hi"}}], "usage": None})]
    [reply] = answer_all(connect(), [Request("a", "x")])
    assert (reply.text, reply.finish_reason) == ("hi", "")
    assert (reply.prompt_tokens, reply.new_tokens) == (-1, -1)


def test_slow_server_is_a_time_out(connect: Callable[..., ServerEngine], server: Server) -> None:
    gate = threading.Event()
    server.plan = [lambda handler: gate.wait(20)] * 2  # type: ignore[list-item]
    try:
        [reply] = answer_all(connect(timeout_s=0.2, retries=1), [Request("a", "x")])
    finally:
        gate.set()
    assert reply.error == "no answer within 0.2 s"
    assert reply.transient
    assert len(server.seen) == 2


def test_trickling_server_is_a_time_out(
    connect: Callable[..., ServerEngine], server: Server
) -> None:
    """Bytes that keep coming do not stretch ``timeout_s``."""
    gate = threading.Event()

    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not gate.wait(0.02):
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return

    server.plan = [trickle]
    try:
        [reply] = answer_all(connect(timeout_s=0.3, retries=0), [Request("a", "x")])
    finally:
        gate.set()
    assert "within 0.3 s" in (reply.error or "")


def test_one_failure_does_not_stop_the_others(
    connect: Callable[..., ServerEngine], server: Server
) -> None:
    requests = [Request(str(i), f"q{i}") for i in range(6)]
    requests[2] = Request("2", "x", (np.zeros((2, 2), np.uint8),))

    def echo(handler: Handler) -> None:
        word = handler.body["messages"][0]["content"]
        if word == "q4":
            handler.send(400, {"error": {"message": "bad"}})
        else:
            handler.send(200, {"choices": [{"message": {"content": f"re {word}"}}]})

    server.plan = [echo] * 6
    replies = answer_all(connect(), requests)
    assert [r.text for r in replies] == ["re q0", "re q1", "", "re q3", "", "re q5"]
    assert "uint8" in (replies[2].error or "")
    assert replies[4].error == "HTTP 400: bad"


def test_concurrency_is_used_and_bounded_and_pulling_is_lazy(
    connect: Callable[..., ServerEngine], server: Server
) -> None:
    barrier = threading.Barrier(3, timeout=20)  # breaks unless three are under way at once
    pulled: list[int] = []

    def together(handler: Handler) -> None:
        barrier.wait()
        handler.send(200, GOOD)

    def source() -> Iterator[Request]:
        for i in range(9):
            pulled.append(i)
            yield Request(str(i), "x")

    server.plan = [together] * 9
    stream = connect(concurrency=3).stream(source())
    next(stream)
    assert len(pulled) <= 3 + 2, "replies not yet taken, and those under way"
    assert len(list(stream)) == 8
    assert sorted(pulled) == list(range(9))


def test_replies_come_as_they_complete(
    connect: Callable[..., ServerEngine], server: Server
) -> None:
    gate = threading.Event()

    def late(handler: Handler) -> None:
        gate.wait(20)
        handler.send(200, GOOD)

    def route(handler: Handler) -> None:
        slow = handler.body["messages"][0]["content"] == "slow"
        (late if slow else send(200, GOOD))(handler)

    server.plan = [route, route]
    stream = connect(concurrency=2).stream([Request("slow", "slow"), Request("fast", "fast")])
    assert next(stream).id == "fast"
    gate.set()
    assert next(stream).id == "slow"


def test_key_is_sent_and_never_told(
    connect: Callable[..., ServerEngine], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret-1")
    server.plan = [send(401, {"error": {"message": "wrong key sk-secret-1 given"}})]
    engine = connect(api_key_env="TEST_KEY")
    [reply] = answer_all(engine, [Request("a", "x")])
    assert server.seen[0].headers["Authorization"] == "Bearer sk-secret-1"
    assert reply.error == "HTTP 401: wrong key *** given"
    assert "sk-secret" not in json.dumps(engine.identity)


def test_missing_key_names_the_variable(
    connect: Callable[..., ServerEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(EngineError, match="NO_SUCH_KEY"):
        connect(api_key_env="NO_SUCH_KEY")


def test_no_server_there() -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        port = taken.getsockname()[1]
        params = ModelParams(engine="server", model="m", base_url=f"http://127.0.0.1:{port}/v1")
        with pytest.raises(EngineError, match=rf"nothing answers at .*{port}") as caught:
            open_engine(params, name="captioner")
    assert caught.value.transient


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x/v1", "http://"])
def test_bad_address(url: str) -> None:
    with pytest.raises(EngineError, match="base_url"):
        open_engine(ModelParams(engine="server", model="m", base_url=url), name="x")


def test_unknown_model_names_those_offered(connect: Callable[..., ServerEngine]) -> None:
    with pytest.raises(MissingModelError, match=r"'other'.*\['m'\]"):
        connect(model="other")


def test_adapters_are_the_servers(server: Server, tmp_path: Path) -> None:
    params = ModelParams(engine="server", model="m", base_url=server.url)
    with pytest.raises(EngineError, match="adapters"):
        open_engine(params, name="x", adapters=[tmp_path])


def test_identity(connect: Callable[..., ServerEngine]) -> None:
    identity = connect().identity
    assert identity["engine"] == "server"
    assert identity["model"] == "m"
    assert identity["served"] == {"root": "/weights", "owned_by": "test"}
    json.dumps(identity)


def test_closed_engine_says_so(connect: Callable[..., ServerEngine]) -> None:
    engine = connect()
    with engine:
        pass
    with pytest.raises(EngineError, match="closed"):
        next(iter(engine.stream([Request("1", "x")])))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ModelParams, Path]]:
    """``swift deploy`` with a tiny checkpoint on a free port of this machine."""
    cache = tmp_path_factory.mktemp("deploy")
    params = ModelParams(
        model="tiny:internvl", device="cpu", decoding=Decoding(max_new_tokens=8), max_length=600
    )
    with serve(params, cache / "log.txt", name="tiny", cache=cache) as served:
        yield served, tiny_folder("internvl", cache)
    with pytest.raises(EngineError, match="nothing answers"):
        open_engine(served, name="gone")


def test_real_server_gives_the_local_engines_answers(deployed: tuple[ModelParams, Path]) -> None:
    params, folder = deployed
    rng = np.random.default_rng(0)
    requests = [
        Request(
            str(n),
            "Describe the <image> of this person.",
            tuple(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(n)),
        )
        for n in (0, 1, 6)
    ]
    with open_engine(params, name="served") as engine:
        assert engine.identity["served"] == {"owned_by": fingerprint(folder)}
        served = answer_all(engine, requests)
    # the client blunts the mark, so the engine of this process gets the blunted words
    same = [Request(r.id, r.prompt.replace("<", "‹"), r.images) for r in requests]
    here = ModelParams(model=str(folder), decoding=params.decoding, device="cpu")
    with open_engine(here, name="local") as engine:
        local = answer_all(engine, same)
    assert [r.error for r in served] == [None] * 3
    assert [r.text for r in served] == [r.text for r in local]
    assert [r.prompt_tokens for r in served] == [r.prompt_tokens for r in local]


def test_served_model_refuses_what_is_too_long_and_keeps_no_questions(
    deployed: tuple[ModelParams, Path],
) -> None:
    params, folder = deployed
    with open_engine(params, name="served") as engine:
        [reply] = answer_all(engine, [Request("long", "word " * 900)])
    assert "max_length" in (reply.error or "")
    assert not list(folder.parent.rglob("*result*"))


def test_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    folder = tiny_folder("internvl", tmp_path / "models")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    log = tmp_path / "log.txt"
    with (
        pytest.raises(EngineError, match=r"server ended \(exit code 1\)(.|\n)*log.txt ends:"),
        serve(ModelParams(model=str(broken), device="cpu"), log),
    ):
        pytest.fail("it serves")
