"""Models behind any OpenAI-compatible server: vLLM, lmdeploy, ``swift deploy``, hosted ones."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from emolib.engines.base import EngineBase, Reply, Request, keep_busy
from emolib.engines.gpus import VARIABLE, choose_gpus, gpu_count
from emolib.engines.launch import Launched
from emolib.engines.watch import Watch
from emolib.engines.wire import (
    Again,
    Unsupported,
    read_answer,
    reason,
    retry_after,
    sampling,
    unsupported,
    write_body,
)
from emolib.errors import EngineError, MissingModelError
from emolib.params.schemas import ModelParams

LONGEST_WAIT = 120.0  # seconds; a server that asks for more gets its row repeated another day
_LARGEST_ANSWER = 16 * 2**20  # bytes
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Nothing is wrong with the request: the key, the bill or the model's name is.
_REFUSALS = {401, 402, 403, 404}
_REFUSED_FIELDS = {400, 422}
_PASSING = {408, 409, 425, 429}


class ServerEngine(EngineBase):
    """Client of one model on a server; up to ``concurrency`` requests under way at once.

    The server's address is not part of ``identity``: a model moved to another machine or
    port keeps its answers, and two servers must not offer different weights under one name.

    With ``launch`` the server is started here when nothing answers yet, started anew when it
    dies or hangs, and ended with the engine. What happens when a server fails is told in
    :class:`emolib.engines.watch.Watch`.

    Args:
        params: ``base_url``, ``model``, ``api_key_env``, ``concurrency``, ``timeout_s``,
            ``retries``, ``patience_s``, ``launch`` (with ``device`` and ``gpus``, the GPUs it
            sees), ``launch_s``, ``restarts``, ``decoding``,
            ``max_tokens_key``, ``send_temperature`` and ``extra_body`` are used.
        name: Short name for tables.
        log: What a launched server prints.
        sleep: Waits that many seconds between tries; for tests. None = a wait that
            :meth:`close` ends.

    Raises:
        EngineError: the address is no address, the key's variable is not set, nothing answers
            there, or the launched server does not come up.
        MissingModelError: the server answers and does not offer ``model``.
    """

    def __init__(
        self,
        params: ModelParams,
        name: str,
        *,
        log: Path = Path("outputs/servers/server.log"),
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        url = httpx.URL(params.base_url) if params.base_url else httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise EngineError(
                f"{name}: base_url = {params.base_url!r} is no server address; expected for "
                "example http://127.0.0.1:8000/v1"
            )
        self.name = name
        self._params = params
        self._key = _key(params.api_key_env, name)
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._client = httpx.Client(
            base_url=str(url).rstrip("/") + "/",
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=params.timeout_s,
            limits=httpx.Limits(max_connections=params.concurrency),
            trust_env=url.host not in _LOOPBACK,  # no proxy between a machine and itself
        )
        self._launched: Launched | None = None
        self._watch = Watch(self._client, params, name, None, self._sleep)
        try:
            if params.launch and not self._watch.alive():  # else somebody else's: not ours to end
                self._launched = Launched(params.launch, log, name)
                self._launched.gpus = _gpus(params)
                self._watch = Watch(self._client, params, name, self._launched, self._sleep)
                self._watch.start()
            offered = self.check()
            self.software = self._watch.version()
        except BaseException:
            self.close()
            raise
        self.identity = {
            "engine": "server",
            "model": params.model,
            "served": {k: offered[k] for k in ("root", "owned_by") if offered.get(k)},
            "decoding": sampling(params),
        }
        if params.extra_body:
            self.identity["extra_body"] = dict(params.extra_body)

    def check(self) -> dict[str, Any]:
        """Ask the server for its models (``GET /models``).

        Returns:
            What it says about ours; empty when it does not list models.

        Raises:
            EngineError: nothing answers, or the key is refused.
            MissingModelError: our model is not among those offered.
        """
        where = self._params.base_url
        try:
            response = self._client.get("models", timeout=min(10.0, self._params.timeout_s))
        except httpx.HTTPError as error:
            raise EngineError(
                f"{self.name}: nothing answers at {where} ({type(error).__name__}): start the "
                "server, or correct base_url",
                transient=True,
            ) from None
        if response.status_code in (401, 403):
            raise EngineError(
                f"{self.name}: {where} refuses the key (HTTP {response.status_code}); it is "
                f"read from the environment variable named by api_key_env "
                f"({self._params.api_key_env or 'none given'})"
            )
        if response.status_code >= 500:
            raise EngineError(
                f"{self.name}: {where} answers HTTP {response.status_code}", transient=True
            )
        try:
            listed = [m for m in response.json()["data"] if isinstance(m["id"], str)]
        except (ValueError, KeyError, TypeError):
            return {}  # not every server lists its models
        for model in listed:
            if model["id"] == self._params.model:
                return dict(model)
        raise MissingModelError(
            f"{self.name}: {where} does not offer {self._params.model!r}; it offers "
            f"{sorted(m['id'] for m in listed)[:20]}"
        )

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """See :meth:`emolib.engines.base.Engine.stream`; replies come as they complete."""
        if self._closed.is_set():
            raise EngineError(f"engine {self.name!r} is closed")
        width = self._params.concurrency
        pool = ThreadPoolExecutor(width, thread_name_prefix=self.name)
        try:
            for done in keep_busy(requests, lambda r: pool.submit(self._answer, r), width):
                # less the requests that found the server lost
                yield from (f.result() for f in done if not f.exception())
                if self._watch.over:
                    raise self._watch.over
                for future in done:
                    future.result()  # a fault of ours is no reply
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections and end a launched server; requests under way end as errors."""
        self._closed.set()
        self._client.close()
        if self._launched:
            self._launched.close()

    def _answer(self, request: Request) -> Reply:
        """Ask until there is an answer, or a reason why there will be none.

        Raises:
            EngineError: only when the whole run must stop.
        """
        start = time.perf_counter()
        try:
            body = write_body(request, self._params)
        except Exception as fault:
            return self._failure(request, fault, start)
        for last in (False, True):  # a second time when the server was lost and is back
            since = self._watch.round
            try:
                answer = self._ask(body)
            except Unsupported as problem:
                raise self._watch.stop(self._clean(str(problem))) from None
            except Exception as problem:
                passing = isinstance(problem, EngineError) and problem.transient
                back = passing and not self._closed.is_set()
                back = back and self._watch.failed(self._clean(str(problem)), since)
                if not back or last:
                    return self._failure(request, problem, start)
            else:
                self._watch.worked()
                return Reply(request.id, seconds=time.perf_counter() - start, **answer)
        raise AssertionError("unreachable")

    def _ask(self, body: bytes) -> dict[str, Any]:
        """Ask up to ``retries`` + 1 times with growing waits.

        Raises:
            EngineError: transient when all tries failed in ways that may pass.
        """
        for attempt in range(self._params.retries + 1):
            try:
                return read_answer(self._post(body))
            except Again as again:
                error, delay = str(again), again.after
                if delay is None:
                    delay = min(2.0**attempt, 30.0) * random.SystemRandom().uniform(0.5, 1)
                if delay > LONGEST_WAIT:
                    error = f"{error}; the server asks to wait {delay:.0f} s"
                    break
                if attempt < self._params.retries and not self._closed.is_set():
                    self._sleep(delay)
        raise EngineError(error, transient=True)

    def _failure(self, request: Request, problem: Exception, start: float) -> Reply:
        ours = isinstance(problem, EngineError)
        return Reply(
            request.id,
            error=self._clean(str(problem) if ours else f"{type(problem).__name__}: {problem}"),
            transient=isinstance(problem, EngineError) and problem.transient,
            seconds=time.perf_counter() - start,
        )

    def _post(self, body: bytes) -> bytes:
        """Send one try and read the answer within ``timeout_s``, all of it together."""
        deadline = time.perf_counter() + self._params.timeout_s
        headers = {"Content-Type": "application/json"}
        try:
            with self._client.stream(
                "POST", "chat/completions", content=body, headers=headers
            ) as response:
                parts, size = [], 0
                for part in response.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if time.perf_counter() > deadline:
                        raise Again(f"no full answer within {self._params.timeout_s:g} s")
                    if size > _LARGEST_ANSWER:
                        raise EngineError(f"the answer is longer than {_LARGEST_ANSWER} bytes")
        except httpx.TimeoutException:
            raise Again(f"no answer within {self._params.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise Again(f"connection failed ({type(error).__name__})") from None
        except RuntimeError:
            if self._closed.is_set():
                raise EngineError("the engine was closed", transient=True) from None
            raise
        content = b"".join(parts)
        status = response.status_code
        if status in _PASSING or status >= 500:
            raise Again(f"HTTP {status}: {reason(content)}", retry_after(response.headers))
        if status in _REFUSED_FIELDS and (fault := unsupported(content, self._params)):
            raise fault
        if status != 200:
            raise EngineError(f"HTTP {status}: {reason(content)}", transient=status in _REFUSALS)
        return content

    def _clean(self, text: str) -> str:
        """One line of at most 300 characters, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300] or "unknown error"


def _gpus(params: ModelParams) -> tuple[str, ...]:
    """GPUs of a server that is started here; () = all that this process sees."""
    if not params.device.startswith("cuda"):
        return ()
    return choose_gpus(params.device, params.gpus, gpu_count(), os.environ.get(VARIABLE))


def _key(variable: str, name: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EngineError(
            f"{name}: the environment variable {variable} (api_key_env) is not set; export the "
            "server's key in it"
        )
    return key
