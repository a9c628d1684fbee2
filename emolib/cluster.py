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
from collections import Counter
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
_TRIES = 3
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
    context.execution_no_progress_timeout_s = -1  # a run waits for machines that join
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

    A block whose workers died three times over it is put aside; its items come again at the end,
    each by itself.

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
        LostItems: items ended every worker that tried them, for want of memory, say; the results
            of all others have been given before.
        EngineError: workers die, and none has done anything.
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
    for size, patience in ((block, 2 * copies), (1, len(items))):
        if left:
            workers = min(copies, len(left))
            yield from _given_out(ray, left, opener, params, size, workers, gpus, patience)
    if left:
        raise LostItems(list(left.values()), len(items))


def _given_out(
    ray: Any,
    left: dict[int, Any],
    opener: Callable[[], Work],
    params: ClusterParams,
    block: int,
    copies: int,
    gpus: float,
    patience: int,
) -> Iterator[Any]:
    """Results of ``left``, by number, out of which goes what is done."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    rows = [{"item": pickle.dumps(numbered)} for numbered in left.items()]
    data = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    tries = ray.remote(Tries).options(num_cpus=0, scheduling_strategy=here).remote()
    results = data.map_batches(
        Worker,
        fn_constructor_args=(
            str(Path.cwd()),
            {k: os.environ[k] for k in _SHARED if k in os.environ},
            pickle.dumps(opener),
            tries,
        ),
        batch_size=None,  # a block at a time
        compute=ray.data.ActorPoolStrategy(size=copies, max_tasks_in_flight_per_actor=2),
        num_cpus=params.cpus,
        num_gpus=gpus or None,
    )
    try:
        batches = results.iter_batches(batch_size=None, prefetch_batches=0)
        said = (pickle.loads(row) for batch in batches for row in batch["result"])
        yield from _settled(said, left, patience)
    except ray.exceptions.RayError as error:
        text = str(error).strip().splitlines()
        raise EngineError(f"the cluster failed: {text[0] if text else error!r}") from error


def _settled(said: Iterable[Any], left: dict[int, Any], patience: int) -> Iterator[Any]:
    """Results out of what workers say; what is done goes out of ``left``.

    More than ``patience`` lost blocks before anything is done are not the items' fault.
    """
    before, lost = len(left), 0
    for result in said:
        if isinstance(result, Fault):
            raise result.error
        if isinstance(result, Done):
            for number in result.numbers:
                left.pop(number, None)  # gone already, should Ray ever bring a block twice
        elif isinstance(result, Lost):
            lost += 1
            if lost > patience and len(left) == before:
                raise EngineError(
                    f"the first {lost} blocks of items ended every worker that tried them and "
                    "nothing was done: too little memory on the nodes? Run again without "
                    "cluster, or see `ray logs`"
                )
        else:
            yield result


class LostItems(EngineError):
    """Items that ended every worker that was given them.

    Attributes:
        items: As they were given.
    """

    def __init__(self, items: Sequence[Any], of: int) -> None:
        self.items = list(items)
        super().__init__(
            f"{len(self.items)} of {of} items ended every worker that tried them; the others are "
            f"done. Run again without cluster to see what is wrong with {_name(self.items[0])}"
        )


def _name(item: Any) -> str:
    """What an item is called: a clip's name, a task's or a request's id."""
    for part in item if isinstance(item, tuple) else (item,):
        for field in ("name", "id"):
            if isinstance(found := getattr(part, field, None), str):
                return found
    return reprlib.repr(item)


class Tries:
    """Counts how often each block was begun; lives beside the process that gives them out."""

    def __init__(self) -> None:
        self._begun: Counter[int] = Counter()

    def begin(self, block: int) -> int:
        """One more try of a block, called by its first item's number; gives which one it is."""
        self._begun[block] += 1
        return self._begun[block]


@dataclass(frozen=True, slots=True)
class Done:
    """What a worker says after the results of a block.

    Attributes:
        numbers: The items'.
    """

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """What a worker says of a block over which others have died."""


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

    def __init__(self, folder: str, environ: dict[str, str], opener: bytes, tries: Any) -> None:
        os.environ.update(environ)
        self._tries = tries
        self._node = os.uname().nodename
        self._fault: Fault | None = None
        try:
            os.chdir(folder)
            self._work: Work = pickle.loads(opener)()
        except Exception as error:
            self._fault = Fault(error, self._node)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Results of a block; the last says what became of it."""
        return {"result": [pickle.dumps(result) for result in self._results(batch["item"])]}

    def _results(self, rows: Iterable[bytes]) -> Iterator[Any]:
        if self._fault is not None:
            yield self._fault
            return
        try:
            numbers, items = zip(*map(pickle.loads, rows), strict=True)
            if self._begin(numbers[0]) > _TRIES:
                yield Lost()
                return
            yield from self._work(items)
            yield Done(numbers)
        except Exception as error:
            yield Fault(error, self._node)

    def _begin(self, block: int) -> int:
        import ray

        return int(ray.get(self._tries.begin.remote(block)))


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
