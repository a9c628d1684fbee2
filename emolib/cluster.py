"""Compute a stage's rows on a Ray cluster. Workers only compute; this process alone keeps.

A stage gives its items and what to do with them; Ray Data moves both to workers on any node and
brings the results back as they are made. The caller writes each to its ledger at once, so that
the ledger is the one place where work counts as done: a node that dies costs the rows it was
working on, which Ray Data gives to other workers, a row that ends every worker costs itself, and
a run that dies is taken up from its ledger like any other. All machines see the project, its
outputs, data and weights under the same paths.

Ray is imported when work is spread, not before.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import reprlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.errors import EmolibError, EngineError, MissingDependencyError, RunError
from emolib.params.cluster import ClusterParams

# Some items to their results, one after another; lazily where there is no cluster.
Work = Callable[[Iterable[Any]], Iterable[Any]]

# Settings of this process that its workers need; what may be a key never travels.
_SHARED = ("EMOLIB_DECODE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "USE_HF", "DO_NOT_TRACK")
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without a GPU keep what they see
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
_LARGEST_BLOCK = 16
_TRIES = 3  # a machine that dies takes one of them; the same rows rarely meet three such machines
_LATE_S = 120.0


def is_installed() -> bool:
    """Whether Ray is there; it is not imported."""
    return importlib.util.find_spec("ray") is not None


def connect(params: ClusterParams) -> Any:
    """Join the cluster, once a process, and give the ``ray`` module.

    Raises:
        MissingDependencyError: Ray is not installed.
        RunError: no cluster answers at the address.
    """
    if not is_installed():
        raise MissingDependencyError(
            "cluster.engine = ray needs Ray: pip install -e '.[ray]' -c constraints.txt"
        )
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray
    import ray.data

    if not ray.is_initialized():
        address = None if params.address == "local" else params.address
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address is None else None,
            )
        except Exception as error:
            raise RunError(
                f"cluster.address = {params.address!r}: no Ray cluster answers "
                f"({type(error).__name__}: {error}); start one with `ray start --head`, or use "
                "address: local"
            ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # the others go on; spread sees what is left
    return ray


def spread(
    items: Sequence[Any],
    opener: Callable[[], Work],
    params: ClusterParams | None,
    *,
    block: int = 0,
    copies: int = 0,
    gpus: float = 0.0,
) -> Iterator[Any]:
    """Compute results of items on the cluster's workers, or here when there is none.

    Items whose workers died three times are tried again at the end, each by itself.

    Args:
        items: Anything that can be pickled.
        opener: Called once in every worker, in this process's folder; gives what computes the
            results of a few items at a time. Must be pickled by name: a module's function or a
            ``functools.partial`` of one. Exceptions of both stop the whole run; faults of
            single items are results.
        params: The cluster; None or engine "none" = this process, one item after another.
        block: Items that are computed, and lost with a worker, together; 0 = by their number.
        copies: Workers; 0 = as many as the cluster has room for.
        gpus: GPUs of each.

    Yields:
        Every item's results, in the order they are made; each once.

    Raises:
        MissingDependencyError: Ray is not installed.
        RunError: no cluster, or it can never run such a worker.
        EngineError: an item ended every worker that tried it, for want of memory, say. All the
            others' results have been given before.
        EmolibError: what a worker raised.
    """
    if not items:
        return
    if params is None or params.engine == "none":
        yield from opener()(items)
        return
    ray = connect(params)
    copies = min(copies or _room(ray, params.cpus), len(items))
    block = block or max(1, min(_LARGEST_BLOCK, len(items) // (4 * copies)))
    _wait_for_room(ray, params, gpus)
    left = dict(enumerate(items))
    yield from _given_out(ray, left, opener, params, block, 2, copies, gpus)
    if left:  # which item did it? a block that waits behind one that ends its worker goes with it
        yield from _given_out(ray, left, opener, params, 1, 1, copies, gpus)
    if left:
        first = reprlib.repr(next(iter(left.values())))
        raise EngineError(
            f"{len(left)} of {len(items)} items ended every worker that tried them, {2 * _TRIES} "
            f"times each; all others are done. Run again without cluster to see what is wrong "
            f"with: {first}"
        )


def _given_out(
    ray: Any,
    left: dict[int, Any],
    opener: Callable[[], Work],
    params: ClusterParams,
    block: int,
    at_once: int,
    copies: int,
    gpus: float,
) -> Iterator[Any]:
    """Results of ``left``, by number, out of which goes what is done.

    ``at_once``: blocks a worker has, the one it computes included.
    """
    rows = [{"item": pickle.dumps(numbered)} for numbered in left.items()]
    data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block))
    results = data.map_batches(
        Worker,
        fn_constructor_args=(
            str(Path.cwd()),
            {k: os.environ[k] for k in _SHARED if k in os.environ},
            pickle.dumps(opener),
        ),
        batch_size=None,  # a block at a time
        compute=ray.data.ActorPoolStrategy(size=copies, max_tasks_in_flight_per_actor=at_once),
        num_cpus=params.cpus,
        num_gpus=gpus or None,
        max_task_retries=_TRIES - 1,  # goes to Ray as it is, up to Ray 2.63
    )
    try:
        for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
            for row in batch["result"]:
                result = pickle.loads(row)
                if isinstance(result, Fault):
                    raise result.error
                if isinstance(result, Done):
                    for number in result.numbers:
                        del left[number]
                    continue
                yield result
    except ray.exceptions.RayError as error:
        text = str(error).strip().splitlines()
        raise EngineError(f"the cluster failed: {text[0] if text else error!r}") from error


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker says after the results of a block.

    Attributes:
        numbers: The items'.
    """

    numbers: tuple[int, ...]


class Fault:
    """What made a worker unable to go on, carried home.

    Attributes:
        error: To be raised.
    """

    def __init__(self, error: Exception, node: str) -> None:
        told = f"{error}" if isinstance(error, EmolibError) else f"{type(error).__name__}: {error}"
        kind = type(error) if isinstance(error, EmolibError) else EngineError
        self.error = kind(f"on node {node}: {told}")


class Worker:
    """One worker of :func:`spread`; Ray Data makes it on some node and feeds it blocks."""

    def __init__(self, folder: str, environ: dict[str, str], opener: bytes) -> None:
        os.environ.update(environ)
        self._node = os.uname().nodename
        self._fault: Fault | None = None
        try:
            os.chdir(folder)
            self._work: Work = pickle.loads(opener)()
        except Exception as error:
            self._fault = Fault(error, self._node)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Results of a block; the last says which items they are of, or is a fault."""
        results: list[Any] = []
        if self._fault is None:
            try:
                numbers, items = zip(*map(pickle.loads, batch["item"]), strict=True)
                for result in self._work(items):
                    results.append(result)
                results.append(Done(numbers))
            except Exception as error:
                results.append(Fault(error, self._node))
        else:
            results.append(self._fault)
        return {"result": [pickle.dumps(result) for result in results]}


def _room(ray: Any, cpus: int) -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)


def _wait_for_room(ray: Any, params: ClusterParams, gpus: float) -> None:
    """Wait a while for a node that could run a worker at all: nodes join one after another."""
    deadline = time.monotonic() + _LATE_S
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(n.get("CPU", 0) >= params.cpus and n.get("GPU", 0) >= gpus for n in nodes):
            return
        if time.monotonic() > deadline:
            best = [f"{n.get('CPU', 0):g} cores, {n.get('GPU', 0):g} GPUs" for n in nodes]
            raise RunError(
                f"cluster: no node can give one copy {params.cpus} cores and {gpus:g} GPUs; the "
                f"{len(nodes)} there are have {'; '.join(best)}: change cluster.cpus or "
                "cluster.gpus"
            )
        time.sleep(1)
