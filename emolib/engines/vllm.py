"""Models in this process through vLLM, as ms-swift drives it."""

from __future__ import annotations

import asyncio
import importlib
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from emolib.engines.base import Reply, Request, keep_busy
from emolib.engines.local import LocalEngine, make_template
from emolib.engines.sampling import request_seed
from emolib.engines.swift_setup import (
    ModelFolder,
    check_type,
    find_model,
    import_swift,
    one_line,
    prepare_processor,
)
from emolib.errors import EngineError, MissingDependencyError
from emolib.params.schemas import ModelParams

# Ranks that vLLM has room for; one is enough when it is not smaller than the adapter's.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# What vLLM's processor calls the most tiles of one image, by architecture.
_TILES = {
    "InternVLForConditionalGeneration": "max_patches",
    "InternVLChatModel": "max_dynamic_patch",
}
_DEAD = {"EngineDeadError", "AsyncEngineDeadError"}


class VllmEngine(LocalEngine):
    """A model of this process under vLLM; up to ``concurrency`` requests under way at once.

    Prompts are tokenised by the same guarded templates as :class:`LocalEngine`'s. vLLM resizes
    images with its own copy of the processor and computes with its own kernels, so answers may
    differ from "transformers": it is another engine in every ledger key, and the parity gate
    compares the two before a score counts.

    Args:
        params: ``model``, ``adapters`` (one at most), ``dtype``, ``max_length``, ``max_tiles``,
            ``concurrency``, ``gpu_memory``, ``gpus`` and ``decoding`` are used.
        name: Short name for tables.
        adapters: LoRA folders, after ``params.adapters``.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Raises:
        MissingDependencyError: vLLM is not installed.
        MissingModelError: model or adapter not found.
        EngineError: an option that vLLM does not know, or the model cannot be loaded.
    """

    _packages = ("ms-swift", "vllm", "transformers", "torch")

    def _find(self, params: ModelParams, cache: Path | None) -> ModelFolder:
        """Say what is wrong before any weight is read."""
        _vllm()
        for option, plain in (("device", ("auto", "cuda")), ("attention", ("",))):
            if (value := getattr(params, option)) not in plain:
                raise EngineError(
                    f"{self.name}: {option} = {value!r} is not read by engine: vllm, which takes "
                    "the GPUs of CUDA_VISIBLE_DEVICES and chooses its kernels; leave it out"
                )
        return find_model(params, cache)

    def _load(self, params: ModelParams, found: ModelFolder, dtype: str, loras: list[Path]) -> Any:
        import_swift(allow_download=params.allow_download)
        import torch
        from swift.model import get_processor

        check_type(found)
        self._most, self._longest = params.concurrency, params.max_length
        if len(loras) > 1:
            raise EngineError(
                f"{self.name}: vLLM takes one LoRA at a time, not {len(loras)}: merge the earlier "
                "ones into the weights (swift export --merge_lora true)"
            )
        try:
            processor = get_processor(
                str(found.path), model_type=found.model_type or None, use_hf=True
            )
            return _vllm()(
                str(found.path),
                template=make_template(
                    prepare_processor(processor, max_pixels=params.max_pixels), params, found
                ),
                torch_dtype=getattr(torch, dtype),
                adapters=[str(lora) for lora in loras] or None,
                use_async_engine=True,
                model_type=found.model_type or None,
                use_hf=True,
                gpu_memory_utilization=params.gpu_memory,
                tensor_parallel_size=params.gpus,
                max_model_len=_room(params),
                max_num_seqs=params.concurrency,
                max_lora_rank=max([8, *map(_rank, loras)]),
                engine_kwargs=_tiles(params, found),
            )
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"{params.model} cannot be loaded: {one_line(error)}") from error

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """See :meth:`emolib.engines.base.Engine.stream`; replies come as they complete.

        Raises:
            EngineError: vLLM's engine died; replies given before stay good.
        """
        if self._engine is None:
            raise EngineError(f"engine {self.name!r} is closed")
        loop = self._engine._get_event_loop()

        def start(request: Request) -> Future[Reply]:
            return asyncio.run_coroutine_threadsafe(self._one(request), loop)

        for done in keep_busy(requests, start, self._most):
            yield from (f.result() for f in done if not f.exception())
            if lost := [f for f in done if f.exception()]:
                raise EngineError(
                    f"{self.name}: vLLM's engine died ({lost[0].exception()}). What was answered "
                    "is kept; run again",
                    transient=True,
                )

    async def _one(self, request: Request) -> Reply:
        start = time.perf_counter()
        if problem := self._problem(request):
            return Reply(request.id, error=problem)
        _, prepared = self._prepare(request)
        try:
            answer = await self._engine.infer_async(prepared, self._config(request))
        except Exception as error:
            if type(error).__name__ in _DEAD:
                raise
            answer = error
        finally:
            self._engine.template.drop(prepared.messages)
        reply = self._reply(request, answer, time.perf_counter() - start)
        # ms-swift counts an image as one token here; only vLLM knows how many it became.
        if self._longest and reply.prompt_tokens > self._longest:
            error_text = (
                f"prompt too long: {reply.prompt_tokens} tokens, max_length {self._longest}"
            )
            return Reply(request.id, error=error_text, seconds=reply.seconds)
        return reply

    def _config(self, request: Request) -> Any:
        from swift.infer_engine import RequestConfig

        decoding = self._decoding
        drawn = decoding.temperature > 0
        return RequestConfig(
            max_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            top_p=decoding.top_p if drawn else 1.0,
            top_k=-1,  # None would take the model folder's
            min_p=0.0,
            repetition_penalty=decoding.repetition_penalty,
            seed=request_seed(decoding.seed, request) if drawn else None,
            stop=list(decoding.stop),
            return_details=True,
            logprobs=request.alternatives > 0,
            top_logprobs=request.alternatives or None,
        )

    @property
    def _end_ids(self) -> set[int]:
        return set()  # vLLM tells itself why an answer ended


def _vllm() -> Any:
    """ms-swift's engine class."""
    try:
        importlib.import_module("vllm")
    except ImportError as error:
        raise MissingDependencyError(
            f"engine: vllm needs vLLM in this environment ({error}): pip install vllm where its "
            "torch and transformers fit (see docs/servers.md), or serve the model from an "
            "environment of its own and use engine: server"
        ) from error
    import_swift()
    from swift.infer_engine import VllmEngine as Swift

    return Swift


def _room(params: ModelParams) -> int | None:
    """Tokens of prompt and answer together; None = the model's own limit."""
    return params.max_length + params.decoding.max_new_tokens if params.max_length else None


def _rank(lora: Path) -> int:
    config = json.loads((lora / "adapter_config.json").read_text(encoding="utf-8"))
    rank = max([int(config["r"]), *(config.get("rank_pattern") or {}).values()])
    return next((room for room in _RANKS if room >= rank), rank)


def _tiles(params: ModelParams, found: ModelFolder) -> dict[str, Any]:
    """What tells vLLM's processor to cut at most ``max_tiles`` tiles."""
    if not params.max_tiles:
        return {}
    config = json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or [""])[0]
    if architecture not in _TILES:
        raise EngineError(
            f"max_tiles = {params.max_tiles}, but {architecture} does not cut images into tiles: "
            "set it to 0"
        )
    return {"mm_processor_kwargs": {_TILES[architecture]: params.max_tiles}}
