"""Decode in worker processes: a crash or a hang of a decoder costs one file, never the run.

In force where :func:`emolib.quarantine.supervise` was called: in every notebook and command. Then
:mod:`emolib.media.video` and :mod:`emolib.media.audio` hand each file to a worker and give what
they give without one. Cost: 0.3 s a worker at its start, and a copy of the frames (about 1 ms a
megapixel).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from emolib.errors import DecoderError, MediaError, NoAudioError, RunError
from emolib.media import wire
from emolib.processes import search_path, side_by_side
from emolib.quarantine import VARIABLE, Fault, Quarantine, Settings, meet, settings

T = TypeVar("T")
R = TypeVar("R")

START_S = 120.0
# Codec libraries leak a little; a fresh worker now and then keeps memory flat.
FILES_A_WORKER = 2_000
# Sent by someone else (an operator, a system out of memory): the file may be innocent.
OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
PIPE_BYTES = 1 << 20


class Hung(Exception):
    """No answer within the time limit."""


class Died(Exception):
    """The worker ended while it worked, or answered nonsense.

    Attributes:
        outside: By a signal that is sent from outside, so that the file may be innocent.
    """

    def __init__(self, cause: str, outside: bool = False) -> None:
        super().__init__(cause)
        self.outside = outside


class Worker:
    """One decoding process."""

    def __init__(self) -> None:
        self.jobs = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emolib.media.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**environment, "PYTHONPATH": search_path()},
            start_new_session=True,  # an interrupt from the keyboard is the parent's
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        _widen(self._out)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN | select.POLLHUP)
        try:
            self._receive(time.monotonic() + START_S)
        except (Hung, Died) as error:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            told = self._errors.read()[-1000:].decode(errors="replace").strip()
            self.close()
            why = "did not start" if isinstance(error, Hung) else "ended at once"
            raise RunError(f"a decoding worker {why}: {told or 'it said nothing'}") from None

    def ask(self, job: dict[str, Any], timeout_s: float) -> tuple[wire.Message, list[Any]]:
        """Give it one job and wait for the answer.

        Raises:
            Hung: none within ``timeout_s``.
            Died: the process ended.
        """
        self.jobs += 1
        deadline = time.monotonic() + timeout_s
        line = memoryview(json.dumps(job).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._in, line) :]
        except BrokenPipeError:
            raise self._death() from None
        return self._receive(deadline)

    def _receive(self, deadline: float) -> tuple[wire.Message, list[Any]]:
        def read_into(view: memoryview) -> None:
            while view:
                left = deadline - time.monotonic()
                if left <= 0 or not self._poll.poll(1000 * left):
                    raise Hung
                got = os.readv(self._out, [view])
                if not got:
                    raise self._death()
                view = view[got:]

        try:
            return wire.receive(read_into)
        except (ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
            raise Died(f"a garbled answer ({type(error).__name__})") from None

    def _death(self) -> Died:
        code = self._process.wait()
        if code >= 0:
            return Died(f"exit code {code}")
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return Died(name, -code in OUTSIDE)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Let the process end: it does when its standard input does."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._errors.close()


class Supervisor:
    """Workers, started when needed and used again; may be called from several threads."""

    def __init__(self, chosen: Settings) -> None:
        self.params = chosen.params
        self.quarantine = Quarantine(chosen.file)
        self._idle: list[Worker] = []
        self._tried: set[str] = set()
        self._lock = threading.Lock()

    def call(self, operation: str, path: Path, **options: Any) -> Any:
        """Let a worker do one operation on one file.

        Raises:
            MediaError: as the operation itself.
            DecoderError: the file hung or crashed the worker, or is quarantined for that.
            RunError: workers cannot be started.
            LedgerError: the quarantine cannot be read or written.
        """
        known = self.quarantine.find(path)
        if known is not None and not (self.params.retry and known.sha not in self._tried):
            raise self._refused(path, known)
        job = {
            "operation": operation,
            "path": str(path),
            "options": options,
            "cwd": str(Path.cwd()),
            "timeout_s": self.params.timeout_s,
        }
        message, arrays = self._ask(job, path)
        if "value" in message:
            return wire.unpack(message["value"], arrays, path)
        if message["error"] == "no audio":
            raise NoAudioError(message["message"])
        if message["error"] == "media":
            raise MediaError(message["message"])
        raise DecoderError(f"{path}: cannot be decoded: {message['message']}")

    def _ask(self, job: dict[str, Any], path: Path) -> tuple[wire.Message, list[Any]]:
        """Find a worker; a worker that died from outside is replaced once."""
        for last in (False, True):
            worker = self._take()
            try:
                answer = worker.ask(job, self.params.timeout_s)
            except Hung:
                worker.kill()
                limit = f"no answer within {self.params.timeout_s:g} s"
                raise self._caught(path, "hung", limit, job["operation"]) from None
            except Died as death:
                worker.kill()
                if death.outside and not last:
                    continue
                raise self._caught(path, "crashed", str(death), job["operation"]) from None
            except BaseException:  # interrupted: its answer would be taken for the next one's
                worker.kill()
                raise
            self._give_back(worker)
            return answer
        raise AssertionError("unreachable")

    def _caught(self, path: Path, fault: Any, detail: str, operation: str) -> DecoderError:
        found = self.quarantine.add(path, fault, detail, operation)
        if found is None:
            return DecoderError(f"{path}: {detail}; the file is gone")
        self._tried.add(found.sha)
        return self._refused(path, found)

    def _refused(self, path: Path, fault: Fault) -> DecoderError:
        meet(fault)
        where = self.quarantine.path
        listed = f" ({where})" if where is not None else ""
        return DecoderError(
            f"{path}: {fault.fault} the decoder ({fault}); quarantined{listed} until its content "
            "changes or decode.retry is set"
        )

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return Worker()

    def _give_back(self, worker: Worker) -> None:
        if worker.jobs < FILES_A_WORKER:
            with self._lock:
                self._idle.append(worker)
        else:
            worker.close()

    def close(self) -> None:
        """End the idle workers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()


_current: tuple[int, Settings, Supervisor] | None = None
_opening = threading.Lock()


def active() -> Supervisor | None:
    """The supervisor in force in this process; None = decode here."""
    global _current
    chosen = settings()
    if chosen is None:
        return None
    with _opening:
        # A forked process shares its parent's pipes and must not use them.
        if _current is None or _current[0] != os.getpid() or _current[1] != chosen:
            if _current is not None and _current[0] == os.getpid():
                _current[2].close()
            _current = os.getpid(), chosen, Supervisor(chosen)
        return _current[2]


def spread(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply ``function``, which decodes a file, to all items: ``decode.workers`` side by side.

    Results come in the items' order, with at most twice that many waiting. Without supervision
    one after the other.
    """
    workers = active()
    if workers is None or workers.params.workers == 1:
        yield from map(function, items)
        return
    yield from side_by_side(function, items, workers.params.workers)


def _widen(pipe: int) -> None:
    """Let a pipe hold more than its 64 kB: fewer switches between the processes."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (AttributeError, OSError):
        return  # not Linux, or the user's limit is reached
