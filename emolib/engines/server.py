"""Models behind any OpenAI-compatible server: vLLM, lmdeploy, ``swift deploy``, hosted ones."""

from __future__ import annotations

import email.utils
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any

import httpx

from emolib.engines.base import EngineBase, Reply, Request
from emolib.engines.encode import media_fault, png_base64, wav_base64
from emolib.errors import EngineError, MissingModelError
from emolib.params.schemas import Decoding, ModelParams

LONGEST_WAIT = 120.0  # seconds; a server that asks for more gets its row repeated another day
_LARGEST_ANSWER = 16 * 2**20  # bytes
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Servers tokenise the text themselves, so marks of the common templates are blunted here.
_MARK = re.compile(
    r"<(?=\|[^|<>]*\||/?(?:s|img|image|video|audio|IMG_CONTEXT|start-image|bbox|ref-object)>)"
)


class ServerEngine(EngineBase):
    """Client of one model on a server; up to ``concurrency`` requests under way at once.

    The server's address is not part of ``identity``: a model moved to another machine or
    port keeps its answers, and two servers must not offer different weights under one name.

    Args:
        params: ``base_url``, ``model``, ``api_key_env``, ``concurrency``, ``timeout_s``,
            ``retries`` and ``decoding`` are used.
        name: Short name for tables.
        sleep: Waits that many seconds between tries; for tests. None = a wait that
            :meth:`close` ends.

    Raises:
        EngineError: the address is no address, the key's variable is not set, or nothing
            answers there.
        MissingModelError: the server answers and does not offer ``model``.
    """

    def __init__(
        self,
        params: ModelParams,
        name: str,
        *,
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
        try:
            offered = self.check()
        except BaseException:
            self._client.close()
            raise
        self.identity = {
            "engine": "server",
            "model": params.model,
            "served": {k: offered[k] for k in ("root", "owned_by") if offered.get(k)},
            "decoding": _sampling(params.decoding),
        }

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
        source = iter(requests)
        pool = ThreadPoolExecutor(self._params.concurrency, thread_name_prefix=self.name)
        under_way: set[Future[Reply]] = set()
        try:
            while True:
                while len(under_way) < self._params.concurrency:
                    request = next(source, None)
                    if request is None:
                        break
                    under_way.add(pool.submit(self._answer, request))
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Close the connections; requests under way end as errors."""
        self._closed.set()
        self._client.close()

    def _answer(self, request: Request) -> Reply:
        start = time.perf_counter()
        error, transient = "", False
        try:
            body = self._body(request)
            for attempt in range(self._params.retries + 1):
                try:
                    answer = _read(self._post(body))
                    return Reply(request.id, seconds=time.perf_counter() - start, **answer)
                except _Again as again:
                    error, transient = str(again), True
                    delay = again.after
                    if delay is None:
                        delay = min(2.0**attempt, 30.0) * random.SystemRandom().uniform(0.5, 1)
                    if delay > LONGEST_WAIT:
                        error = f"{error}; the server asks to wait {delay:.0f} s"
                        break
                    if attempt < self._params.retries and not self._closed.is_set():
                        self._sleep(delay)
        except EngineError as problem:
            error, transient = str(problem), problem.transient
        except Exception as problem:
            error, transient = f"{type(problem).__name__}: {problem}", False
        seconds = time.perf_counter() - start
        return Reply(request.id, error=self._clean(error), transient=transient, seconds=seconds)

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
                        raise _Again(f"no full answer within {self._params.timeout_s:g} s")
                    if size > _LARGEST_ANSWER:
                        raise EngineError(f"the answer is longer than {_LARGEST_ANSWER} bytes")
        except httpx.TimeoutException:
            raise _Again(f"no answer within {self._params.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _Again(f"connection failed ({type(error).__name__})") from None
        except RuntimeError:
            if self._closed.is_set():
                raise EngineError("the engine was closed", transient=True) from None
            raise
        content = b"".join(parts)
        status = response.status_code
        if status == 429 or status >= 500:
            raise _Again(f"HTTP {status}: {_reason(content)}", _retry_after(response.headers))
        if status != 200:
            raise EngineError(f"HTTP {status}: {_reason(content)}")
        return content

    def _body(self, request: Request) -> bytes:
        if fault := media_fault(request):
            raise EngineError(fault)
        content: list[dict[str, Any]] = []
        for image in request.images:
            url = f"data:image/png;base64,{png_base64(image)}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        for audio in request.audio:
            data = {"data": wav_base64(audio, request.sample_rate), "format": "wav"}
            content.append({"type": "input_audio", "input_audio": data})
        prompt = _MARK.sub("\u2039", request.prompt)
        content.append({"type": "text", "text": prompt})
        messages: list[dict[str, Any]] = []
        if request.system is not None:
            messages.append({"role": "system", "content": _MARK.sub("\u2039", request.system)})
        messages.append({"role": "user", "content": content if len(content) > 1 else prompt})
        body = {"model": self._params.model, "messages": messages, "stream": False}
        return json.dumps(body | _sampling(self._params.decoding)).encode()

    def _clean(self, text: str) -> str:
        """One line of at most 300 characters, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:300] or "unknown error"


class _Again(Exception):
    """A try failed in a way that may pass; ``after`` is the wait the server asked for."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


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


def _sampling(decoding: Decoding) -> dict[str, object]:
    settings: dict[str, object] = {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
    }
    if decoding.temperature > 0:
        settings |= {"top_p": decoding.top_p, "seed": decoding.seed}
    if decoding.repetition_penalty != 1:  # an extension that not every server knows
        settings["repetition_penalty"] = decoding.repetition_penalty
    if decoding.stop:
        settings["stop"] = list(decoding.stop)
    return settings


def _read(content: bytes) -> dict[str, Any]:
    """Turn a server's answer into the fields of a :class:`Reply`."""
    try:
        answer = json.loads(content)
    except ValueError:
        raise EngineError("the answer is not JSON", transient=True) from None
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"]
        reason = choice.get("finish_reason") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EngineError("the answer holds no choices[0].message.content") from None
    if not isinstance(text, str) or not text.strip():
        raise EngineError(f"the answer is empty (finish_reason {reason!r})")
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return {
        "text": text,
        "finish_reason": str(reason),
        "prompt_tokens": _count(usage.get("prompt_tokens")),
        "new_tokens": _count(usage.get("completion_tokens")),
    }


def _count(value: object) -> int:
    return value if isinstance(value, int) else -1


def _reason(content: bytes) -> str:
    """Find the message in an error answer."""
    text = content[:4000].decode(errors="replace")
    try:
        answer = json.loads(text)
        answer = answer.get("error", answer)
        found = answer.get("message") if isinstance(answer, dict) else answer
        return str(found or text)
    except (ValueError, AttributeError):
        return text


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds a ``Retry-After`` header asks for; it holds a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
