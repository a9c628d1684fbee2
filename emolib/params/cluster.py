"""Parameters of work that is spread over several machines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emolib.params.schemas import Schema


class ClusterParams(Schema):
    """Where the rows of a stage are computed, see ``docs/scale.md``.

    Results do not depend on it: rows are kept under what they depend on, and one that was
    computed by one process is not computed again by a cluster.

    Attributes:
        engine: "none" (this process) or "ray" (Ray Data).
        address: "auto" = the cluster this machine belongs to; "local" = one on this machine
            for the length of a run; or the head's ``host:port``.
        copies: Copies of each model that work at once; of a model behind a server: workers
            that ask it, each with ``concurrency`` requests under way.
        gpus: GPUs of one copy; not read for models on a CPU or behind a server, and under vLLM
            it is the model's own ``gpus``.
        cpus: Cores of one copy, and of each worker that reads frames or computes features.
            As many such workers are started as the cluster has room for.
    """

    engine: Literal["none", "ray"] = "none"
    address: str = Field(default="auto", min_length=1)
    copies: int = Field(default=1, ge=1)
    gpus: float = Field(default=1.0, ge=0)
    cpus: int = Field(default=1, ge=1)
