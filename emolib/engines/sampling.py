"""Sampling whose draws depend on the request alone, not on the batch it was in."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from emolib.engines.base import Request
from emolib.params.schemas import Decoding


class Sampler:
    """Logits processor: draws each row's next token with that row's own generator.

    Adding Gumbel noise to the logits and taking the largest is drawing from their softmax;
    generation itself stays greedy. Processors of ``generate`` run in the order
    repetition penalty, this one.
    """

    def __init__(self, decoding: Decoding, seeds: list[int]) -> None:
        import torch
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        self._rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._warpers: list[Any] = [TemperatureLogitsWarper(float(decoding.temperature))]
        if decoding.top_p < 1:
            self._warpers.append(TopPLogitsWarper(decoding.top_p))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Perturb the logits [rows, vocabulary] so that their largest is a draw."""
        import torch

        for warper in self._warpers:
            scores = warper(input_ids, scores)
        noise = [torch.rand(scores.shape[1], generator=g, dtype=torch.float64) for g in self._rows]
        uniform = torch.stack(noise).clamp_min(1e-300).to(scores.device)
        return (scores.double() - torch.log(-torch.log(uniform))).to(torch.float32)


def request_seed(seed: int, request: Request) -> int:
    """Derive a generator's seed from ``seed`` and everything the request holds but its id."""
    digest = hashlib.sha256(f"{seed}\0{request.system}\0{request.prompt}".encode())
    for array in (*request.images, *request.audio):
        digest.update(str((array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return int.from_bytes(digest.digest()[:7], "big")
