"""A model served to this machine alone, for as long as a ``with`` block lasts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from emolib import processes
from emolib.engines.fingerprint import fingerprint
from emolib.engines.gpus import VARIABLE, choose_gpus, gpu_count
from emolib.engines.launch import tail
from emolib.engines.precision import weight_type
from emolib.engines.swift_setup import ModelFolder, child_environment, find_model
from emolib.errors import EngineError
from emolib.params.schemas import ModelParams

_POLL_S = 0.2  # between looks at a server that starts
_ADDRESS = "127.0.0.1"


@contextmanager
def serve(
    model: ModelParams,
    log: Path,
    *,
    name: str = "served",
    adapters: Sequence[Path] = (),
    cache: Path | None = None,
    patience_s: float = 1800.0,
) -> Iterator[ModelParams]:
    """Run ``swift deploy`` on a free port of the loopback interface.

    The server is a process of its own: it needs the model's memory again, and dies with the
    block or with this process, however that ends. It answers one request after another as they
    come. Starting costs the imports (some 15 s) and the reading of the weights.

    Args:
        model: The model; ``engine`` is not looked at. ``max_length``, ``max_tiles``,
            ``max_pixels``, ``dtype``, ``attention``, ``device`` and ``gpus`` hold for the server,
            ``decoding`` for its client.
        log: File for everything the server prints; written anew.
        name: What the server calls the model.
        adapters: LoRA folders, applied in order after ``model.adapters``.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.
        patience_s: The server must answer within so many seconds.

    Yields:
        Parameters of the model behind the server, for ``open_engine``; ``base_url`` is its
        address.

    Raises:
        MissingModelError: the model is not on this machine.
        EngineError: the server ended or did not answer in time; with the end of its log.
        ParamsError: fewer GPUs are visible than the parameters ask for.

    Example:
        >>> with serve(ModelParams(model="tiny:internvl"), Path("serve.log")) as served:
        ...     with open_engine(served, name="tiny") as engine: ...  # doctest: +SKIP
    """
    if model.load_in_4bit:
        raise EngineError(f"{name}: load_in_4bit is not for serving")
    port = _free_port()
    found = find_model(model, cache)
    folders = [*map(Path, model.adapters), *adapters]
    loras = [folder.expanduser().resolve() for folder in folders]
    weights = "+".join(fingerprint(folder) for folder in (found.path, *loras))
    command = build_command(model, found, loras, port, name, weights)
    url = f"http://{_ADDRESS}:{port}/v1"
    environment = child_environment(allow_download=model.allow_download) | _own_gpus(model)
    log = Path(log).absolute()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches us, and we end it
        )
        try:
            _wait(server, url, (name, weights), log, patience_s)
            yield model.model_copy(
                update={
                    "engine": "server",
                    "model": name,
                    "base_url": url,
                    "adapters": (),
                    "max_tiles": 0,
                    "max_pixels": 0,
                    "api_key_env": "",
                    "concurrency": 1,
                }
            )
        finally:
            processes.end(server)


def build_command(
    model: ModelParams,
    found: ModelFolder,
    adapters: Sequence[Path],
    port: int,
    name: str,
    owner: str,
) -> list[str]:
    """Write the server's command line: our options, then ``swift deploy``'s."""
    options: dict[str, object] = {
        "model": found.path.resolve(),
        "use_hf": "true",
        "model_type": found.model_type or None,
        "template": found.template or None,
        "torch_dtype": weight_type(model, found.dtype),
        "attn_impl": model.attention or None,
        "max_length": model.max_length or None,
        "truncation_strategy": "delete",  # ms-swift's word for: refuse what is too long
        "infer_backend": "transformers",
        "served_model_name": name,
        "owned_by": owner,
        "host": _ADDRESS,
        "port": port,
        "verbose": "false",
        "log_interval": -1,
    }
    command = [sys.executable, "-m", "emolib.engines.deploy", "--parent", str(os.getpid())]
    command += ["--max_tiles", str(model.max_tiles), "--max_pixels", str(model.max_pixels)]
    for option, value in options.items():
        if value is not None:
            command += [f"--{option}", str(value)]
    return command + (["--adapters", *map(str, adapters)] if adapters else [])


def _own_gpus(model: ModelParams) -> dict[str, str]:
    """Let a server see its GPUs alone: ms-swift spreads the model over all that it sees."""
    gpus = 0 if model.device == "cpu" else gpu_count()
    chosen = choose_gpus(model.device, model.gpus, gpus, os.environ.get(VARIABLE))
    return {VARIABLE: ",".join(chosen)}


def _free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind((_ADDRESS, 0))
        return int(free.getsockname()[1])


def _wait(
    server: subprocess.Popen[bytes], url: str, wanted: tuple[str, str], log: Path, patience_s: float
) -> None:
    """Return when the server offers what is ``wanted``.

    Raises:
        EngineError: it ended, or time is up.
    """
    deadline = time.monotonic() + patience_s
    while not _offers(url, wanted):
        if (code := server.poll()) is not None:
            raise EngineError(f"the model server ended (exit code {code}); {tail(log)}")
        if time.monotonic() > deadline:
            raise EngineError(
                f"no answer from the model server within {patience_s:g} s; {tail(log)}"
            )
        time.sleep(_POLL_S)


def _offers(url: str, wanted: tuple[str, str]) -> bool:
    """Whether our (name, weights) are there: another process may have taken the port."""
    try:
        listed = httpx.get(f"{url}/models", trust_env=False, timeout=5.0).json()
        return any((model["id"], model["owned_by"]) == wanted for model in listed["data"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return False
