"""A package named ``vllm`` with the names ms-swift imports from vLLM 0.33, and a tiny engine.

Signatures follow the released wheel (vllm-0.33.0): ``EngineArgs`` fields that ms-swift passes,
``SamplingParams`` fields it sets, ``AsyncLLM.generate`` and the fields of its outputs it reads.
The engine answers every prompt with a fixed text, so that everything around it is real:
ms-swift's ``VllmEngine``, the template, the tokenizer.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

VERSION = "0.33.0"


@dataclass
class EngineArgs:
    model: str
    dtype: str = "auto"
    seed: int | None = None
    max_model_len: int | None = None
    trust_remote_code: bool = False
    load_format: str = "auto"
    distributed_executor_backend: str | None = None
    pipeline_parallel_size: int = 1
    tensor_parallel_size: int = 1
    enable_expert_parallel: bool = False
    enable_prefix_caching: bool | None = None
    disable_cascade_attn: bool = False
    gpu_memory_utilization: float = 0.92
    max_num_seqs: int | None = None
    logprobs_mode: str = "raw_logprobs"
    disable_log_stats: bool = False
    hf_overrides: Any = None
    quantization: str | None = None
    enforce_eager: bool = False
    disable_custom_all_reduce: bool = False
    limit_mm_per_prompt: dict[str, int] = field(default_factory=dict)
    mm_processor_kwargs: dict[str, Any] | None = None
    mm_processor_cache_gb: float = 4
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    enable_sleep_mode: bool = False
    speculative_config: dict[str, Any] | None = None


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: Any = None
    stop_token_ids: list[int] | None = None
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structured_outputs: Any = None


@dataclass
class PoolingParams:
    task: str | None = None


class EngineDeadError(Exception):
    """vLLM's name for an engine that will answer nothing more."""


class AsyncLLM:
    """Answers with ``reply`` (text or exception); keeps what it was asked in ``asked``."""

    made: list[AsyncLLM] = []  # noqa: RUF012
    reply: Any = "0.85"
    image_tokens = 7

    def __init__(self, args: EngineArgs) -> None:
        self.args = args
        self.asked: list[SimpleNamespace] = []
        self.now = self.most = 0
        self.made.append(self)
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(args.model)

    @classmethod
    def from_engine_args(cls, args: EngineArgs) -> AsyncLLM:
        return cls(args)

    async def generate(
        self,
        prompt: dict[str, Any],
        sampling_params: SamplingParams,
        request_id: str,
        *,
        lora_request: Any = None,
    ) -> Any:
        import asyncio

        self.asked.append(
            SimpleNamespace(prompt=prompt, sampling=sampling_params, lora=lora_request)
        )
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        self.now -= 1
        reply = self.reply(prompt) if callable(self.reply) else self.reply
        if isinstance(reply, Exception):
            raise reply
        images = prompt.get("multi_modal_data", {}).get("image", [])
        count = len(images) if isinstance(images, list) else 1
        ids = self._tokenizer.encode(reply, add_special_tokens=False)
        logprobs = None
        if sampling_params.logprobs is not None:
            tops = range(sampling_params.logprobs)
            logprobs = [
                {one: SimpleNamespace(logprob=-0.1)}
                | {other: SimpleNamespace(logprob=-3.0 - other) for other in tops if other != one}
                for one in ids
            ]
        output = SimpleNamespace(
            index=0, token_ids=tuple(ids), logprobs=logprobs, finish_reason="stop"
        )
        prompt_ids = prompt["prompt_token_ids"] + [0] * (self.image_tokens - 1) * count
        yield SimpleNamespace(
            request_id=request_id,
            prompt_token_ids=prompt_ids,
            prompt_logprobs=None,
            outputs=[output],
            finished=True,
        )


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


def modules() -> dict[str, ModuleType]:
    """The fake package's modules, for ``monkeypatch.setitem(sys.modules, ...)``."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {
            "__version__": VERSION,
            "AsyncEngineArgs": EngineArgs,
            "EngineArgs": EngineArgs,
            "AsyncLLMEngine": AsyncLLM,
            "LLMEngine": AsyncLLM,
            "SamplingParams": SamplingParams,
        },
        "vllm.engine": {},
        "vllm.engine.async_llm_engine": {"AsyncLLMEngine": AsyncLLM},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.pooling_params": {"PoolingParams": PoolingParams},
        "vllm.sampling_params": {"StructuredOutputsParams": SimpleNamespace},
    }
    made = {}
    for name, values in contents.items():
        module = ModuleType(name)
        module.__path__ = []  # a package
        module.__spec__ = ModuleSpec(name, None, is_package=True)
        vars(module).update(values)
        made[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(made[parent], child, module)
    assert not made.keys() & sys.modules.keys(), "vLLM is installed: test with it instead"
    return made
