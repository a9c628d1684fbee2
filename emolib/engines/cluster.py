"""A model whose copies answer on the workers of a Ray cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from emolib import cluster
from emolib.engines.base import Engine, EngineBase, Reply, Request
from emolib.errors import EngineError, ParamsError
from emolib.hashing import canonical
from emolib.params.cluster import ClusterParams
from emolib.params.schemas import ModelParams

ENDED = "every worker that had this row died"

# Ledger key -> task, and an engine, to ledger rows: emolib.inference.answers.
Answers = Callable[[Mapping[str, Any], Engine], Iterable[dict[str, Any]]]


class ClusterEngine(EngineBase):
    """Knows who answers without holding the model; the workers each open a copy.

    A worker whose copy is not this very model (other weights under the same path, another
    template) stops the run. Opening costs reading the weights once for their fingerprint.

    Args:
        params: The model.
        name: Short name for tables.
        adapters: LoRA folders, applied in order after ``params.adapters``.
        cache: Where tiny checkpoints are kept.
        where: The cluster.

    Raises:
        ParamsError: the model is tied to one device or is to be launched here.
        EngineError: as :func:`emolib.engines.open_engine`.
    """

    def __init__(
        self,
        params: ModelParams,
        name: str,
        adapters: Sequence[Path],
        cache: Path | None,
        where: ClusterParams,
    ) -> None:
        if ":" in params.device:
            raise ParamsError(
                f"{name}: device = {params.device!r} names one GPU of one machine; on a cluster "
                "give 'cuda', and cluster.gpus for each copy"
            )
        if params.launch:
            raise ParamsError(
                f"{name}: launch starts a server on one machine; on a cluster start it yourself, "
                "at a base_url that every node reaches"
            )
        self.name = name
        self._params, self._where = params, where
        self._arguments = (params, name, tuple(adapters), cache)
        if params.engine == "server":
            with _open(*self._arguments) as engine:
                self.identity, self.software = engine.identity, engine.software
        else:
            self.identity, self.software = identify(params, name, adapters, cache)

    def rows(self, tasks: Mapping[str, Any], answers: Answers) -> Iterator[dict[str, Any]]:
        """Rows of tasks, computed by ``answers`` in the workers; each task's media are read there.

        A task that ends every worker has none.
        """
        with contextlib.suppress(cluster.LostItems):
            yield from self._spread(list(tasks.items()), partial(_rows, answers))

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """See :meth:`emolib.engines.base.Engine.stream`; takes all requests before the first."""
        try:
            yield from self._spread(list(requests), _replies)
        except cluster.LostItems as lost:
            for request in lost.items:
                yield ended(request.id)

    def _spread(self, items: list[Any], answer: Callable[..., Iterable[Any]]) -> Iterator[Any]:
        params, where = self._params, self._where
        gpus = {"server": 0.0, "vllm": float(params.gpus)}.get(params.engine, where.gpus)
        opener = partial(_opened, self._arguments, self.identity, answer)
        yield from cluster.spread(
            items,
            opener,
            where,
            block=params.batch_size if params.engine == "transformers" else params.concurrency,
            copies=where.copies,
            gpus=0.0 if params.device == "cpu" else gpus,
        )


def ended(request: str) -> Reply:
    """The reply to a request that ended every worker of a cluster that was given it."""
    return Reply(id=request, error=ENDED, transient=True)


def identify(
    params: ModelParams, name: str, adapters: Sequence[Path] = (), cache: Path | None = None
) -> tuple[dict[str, object], dict[str, str]]:
    """``identity`` and ``software`` of the engine that would be opened, without the model.

    Costs the import of torch and ms-swift and one read of the weights; no memory for them.

    Raises:
        MissingModelError: model or adapter not found.
        MissingDependencyError: the engine's packages are not installed here.
        EngineError: ms-swift does not know the model.
    """
    from emolib.engines.local import LocalEngine, make_template
    from emolib.engines.swift_setup import import_swift, one_line

    kind: Any = LocalEngine
    if params.engine == "vllm":
        from emolib.engines.vllm import VllmEngine

        kind = VllmEngine

    class Unloaded(kind):
        def _load(self, params: ModelParams, found: Any, dtype: str, loras: list[Path]) -> Any:
            import_swift(allow_download=params.allow_download)
            from swift.model import get_processor

            try:
                processor = get_processor(
                    str(found.path), model_type=found.model_type or None, use_hf=True
                )
                return SimpleNamespace(template=make_template(processor, params, found))
            except Exception as error:
                raise EngineError(f"{params.model} cannot be loaded: {one_line(error)}") from error

    engine = Unloaded(params, name, adapters, cache)
    return engine.identity, engine.software


def _open(params: ModelParams, name: str, adapters: Sequence[Path], cache: Path | None) -> Engine:
    from emolib.engines import open_engine

    return open_engine(params, name=name, adapters=adapters, cache=cache)


def _opened(
    arguments: tuple[Any, ...], identity: dict[str, object], answer: Callable[..., Iterable[Any]]
) -> cluster.Work:
    """In a worker: open the copy and check that it is the model that was asked for."""
    engine = _open(*arguments)
    if canonical(engine.identity) != canonical(identity):
        parts = sorted(k for k in identity if engine.identity.get(k) != identity[k])
        raise EngineError(
            f"{engine.name} is another model here than where the run began ({', '.join(parts)} "
            "differ): all nodes must see the same weights and packages"
        )
    return partial(answer, engine)


def _rows(
    answers: Answers, engine: Engine, items: list[tuple[str, Any]]
) -> Iterable[dict[str, Any]]:
    return answers(dict(items), engine)


def _replies(engine: Engine, items: list[Request]) -> Iterable[Reply]:
    return engine.stream(items)
