"""A model server started by its own command line, often in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from emolib.engines import keeper
from emolib.engines.gpus import VARIABLE
from emolib.errors import EngineError

_TAIL = 30  # lines of the log in an error
_GRACE_S = 25.0  # longer than the keeper gives the server
# What would make the other environment's Python read packages of this one.
_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")


class Launched:
    """One command that serves, started as often as it must be.

    It dies with this process, however that ends. Not thread-safe: its owner locks.

    Args:
        command: Program and arguments; no shell reads them.
        log: Everything it prints is appended here.
        name: The model's name, for messages.

    Attributes:
        gpus: GPUs it sees when it is started, as ``CUDA_VISIBLE_DEVICES`` names them; () = those
            this process sees.

    Raises:
        EngineError: no such program.
    """

    def __init__(self, command: Sequence[str], log: Path, name: str) -> None:
        program = Path(command[0]).expanduser()
        found = shutil.which(program)
        if found is None:
            raise EngineError(f"{name}: launch: there is no program {command[0]!r} to run")
        self.log = Path(log).absolute()
        self.starts = 0
        self._command = [found, *command[1:]]
        self._name = name
        self.gpus: tuple[str, ...] = ()
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the command, ending an earlier one first."""
        self.close()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if k not in _OURS}
        if self.gpus:
            environment[VARIABLE] = ",".join(self.gpus)
        with self.log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", keeper.__file__, *self._command],
                env=environment | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.starts += 1

    def ended(self) -> str:
        """Why it does not run, with the end of its log; "" while it does."""
        code = self._keeper.poll() if self._keeper else None
        if self._keeper and code is None:
            return ""
        return f"the command of launch ended (exit code {code}); {tail(self.log)}"

    def close(self) -> None:
        """End the command and its children."""
        if self._keeper is None:
            return
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()  # the keeper's sign to end
        try:
            self._keeper.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._keeper = None


def tail(log: Path) -> str:
    """The last lines of a log, under its name."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join([f"{log} ends:", *lines[-_TAIL:]])
