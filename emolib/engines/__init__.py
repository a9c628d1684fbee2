"""One interface over in-process models and model servers: ``open_engine(params)``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emolib.engines.base import Engine, Reply, Request, answer_all
from emolib.params.cluster import ClusterParams
from emolib.params.schemas import ModelParams

__all__ = ["Engine", "Reply", "Request", "answer_all", "open_engine"]


def open_engine(
    params: ModelParams,
    *,
    name: str,
    adapters: Sequence[Path] = (),
    cache: Path | None = None,
    cluster: ClusterParams | None = None,
) -> Engine:
    """Open the model that ``params`` describe. Use the result as a context manager.

    Args:
        params: See :class:`emolib.params.ModelParams`.
        name: Short name for tables, e.g. "internvl".
        adapters: LoRA folders, applied in order after ``params.adapters``.
        cache: Where "tiny:" checkpoints are kept; None = ``outputs/models``.
        cluster: Where copies of the model answer; None or engine "none" = in this process.

    Raises:
        MissingModelError: model or adapter is not on this machine.
        MissingDependencyError: the engine's packages are not installed.
        EngineError: the model cannot be loaded, or nothing answers at ``base_url``.

    Example:
        >>> with open_engine(ModelParams(model="tiny:internvl"), name="tiny") as engine:
        ...     [reply] = answer_all(engine, [Request("1", "Describe.")])  # doctest: +SKIP
    """
    if cluster is not None and cluster.engine != "none":
        from emolib.engines.cluster import ClusterEngine

        engine: Engine = ClusterEngine(params, name, adapters, cache, cluster)
    else:
        engine = _open(params, name, adapters, cache)
    engine.prices = params.prices
    return engine


def _open(params: ModelParams, name: str, adapters: Sequence[Path], cache: Path | None) -> Engine:
    if params.engine == "server":
        from emolib.engines.server import ServerEngine

        if adapters or params.adapters:
            from emolib.errors import EngineError

            raise EngineError(
                f"{name}: a server applies its own adapters; name the adapter the server "
                "knows in 'model' instead of giving folders"
            )
        models = Path("outputs/models") if cache is None else cache
        return ServerEngine(params, name, log=models.parent / "servers" / f"{name}.log")
    if params.engine == "vllm":
        from emolib.engines.vllm import VllmEngine

        return VllmEngine(params, name, adapters, cache)
    from emolib.engines.local import LocalEngine

    return LocalEngine(params, name, adapters, cache)
