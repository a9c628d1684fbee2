"""Whether a server is alive, and what to do when it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx

from emolib.engines.launch import Launched
from emolib.errors import EngineError
from emolib.params.schemas import ModelParams

_LOOK_S = 10.0  # seconds one look at a server may take
_ENOUGH = 100  # answers after which a start counts as a success
_POLL_S = 0.5  # between looks at one that is expected back


class Watch:
    """Counts failures of all requests together; brings a server back, or stops the run.

    A request that failed for good after all its tries is one of three things: bad luck of that
    request (the server is alive and answers others), a server that is down (nothing answers),
    or one that hangs or refuses everything (alive, and as many requests in a row failed as
    would be an accident). The first stays that row's error. In the other cases a launched
    server is started anew, another is waited for; when that does not help the whole run stops,
    because every further row would be an error.

    Args:
        client: Reaches the server at its base address.
        params: ``base_url``, ``concurrency``, ``patience_s``, ``launch_s`` and ``restarts``.
        name: The model's name, for messages.
        launched: The server's command, if it is ours to start.
        sleep: Waits so many seconds; true when the engine was closed meanwhile.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        client: httpx.Client,
        params: ModelParams,
        name: str,
        launched: Launched | None,
        sleep: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._params, self._name = client, params, name
        self._launched, self._sleep, self._clock = launched, sleep, clock
        self._lock = threading.Lock()
        self._failures = self._answered = 0
        self._most = max(8, 2 * params.concurrency)
        self.round = 0  # how often the server was brought back
        self.over: EngineError | None = None

    def alive(self) -> bool:
        """Ask ``/health`` beside ``/v1``, or where there is none, for the list of models."""
        root = self._client.base_url.copy_with(path="/health")
        wait = min(_LOOK_S, self._params.timeout_s)
        try:
            status = self._client.get(root, timeout=wait).status_code
            if status in (200, 204) or status >= 500:
                return status < 500
            return self._client.get("models", timeout=wait).status_code < 500
        except (httpx.HTTPError, RuntimeError):  # RuntimeError: the client is closed
            return False

    def version(self) -> dict[str, str]:
        """The server's version where it tells one (vLLM does), for the record."""
        try:
            answer = self._client.get(
                self._client.base_url.copy_with(path="/version"), timeout=_LOOK_S
            )
            version = answer.json()["version"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return {}
        return {"server": version} if isinstance(version, str) else {}

    def worked(self) -> None:
        """Note that the server answered."""
        self._failures = 0
        self._answered += 1

    def failed(self, error: str, since: int) -> bool:
        """Note a request that failed after all its tries.

        Args:
            error: What it failed with.
            since: ``round`` when the request began.

        Returns:
            Whether the server was brought back since, so that asking again makes sense.

        Raises:
            EngineError: the run must stop.
        """
        with self._lock:
            if self.over:
                raise self.over
            if self.round > since:
                return True
            self._failures += 1
            alive = self.alive()
            if alive and self._failures < self._most:
                return False
            try:
                self._bring_back(error, alive)
            except EngineError as stop:
                self.over = stop
                raise
            self._failures = 0
            self.round += 1
            return True

    def stop(self, error: str) -> EngineError:
        """End the run for a fault that every further request would meet."""
        with self._lock:
            self.over = self.over or EngineError(f"{self._name}: {error}")
            return self.over

    def start(self) -> None:
        """Start a server that is ours and wait until it answers.

        Raises:
            EngineError: it ended or did not answer in time.
        """
        assert self._launched is not None
        self._launched.start()
        deadline = self._clock() + self._params.launch_s
        while not self.alive():
            if why := self._launched.ended():
                raise EngineError(f"{self._name}: {why}", transient=True)
            if self._clock() > deadline:
                raise EngineError(
                    f"{self._name}: no answer at {self._params.base_url} within launch_s = "
                    f"{self._params.launch_s:g} s; see {self._launched.log}",
                    transient=True,
                )
            if self._sleep(_POLL_S):
                raise EngineError(f"{self._name}: the engine was closed", transient=True)

    def _bring_back(self, error: str, alive: bool) -> None:
        where = self._params.base_url
        why = (
            f"the last {self._failures} requests to {where} failed, the last with: {error}"
            if alive
            else f"nothing answers at {where} any more ({error})"
        )
        if self._launched is None:
            if alive or not self._comes_back():
                raise EngineError(
                    f"{self._name}: {why}. What was answered is kept: see to the server, then run "
                    "again",
                    transient=True,
                )
            return
        if not alive and not self._launched.ended() and self._comes_back():
            return
        if self._answered >= _ENOUGH:
            self._launched.starts = 1
        self._answered = 0
        while self._launched.starts <= self._params.restarts:
            try:
                self.start()
                return
            except EngineError as again:
                why = str(again)
        raise EngineError(
            f"{self._name}: {why}. Started {self._launched.starts} times (restarts = "
            f"{self._params.restarts}); what was answered is kept; {self._launched.log} says more",
            transient=True,
        )

    def _comes_back(self) -> bool:
        """Wait up to ``patience_s`` for a server that others look after."""
        deadline = self._clock() + self._params.patience_s
        while self._clock() < deadline:
            if self._sleep(_POLL_S):
                return False
            if self.alive():
                return True
        return False
