"""Models in this process, through ms-swift's transformers engine."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emolib.engines.base import EngineBase, Reply, Request, read_tokens
from emolib.engines.encode import media_fault, wav_bytes
from emolib.engines.fingerprint import fingerprint
from emolib.engines.guard import guard, keys_in
from emolib.engines.precision import weight_type
from emolib.engines.sampling import Sampler, request_seed
from emolib.engines.swift_setup import (
    ModelFolder,
    find_model,
    free_memory,
    load_model,
    one_line,
    shown_name,
    versions,
)
from emolib.errors import EngineError, MissingModelError
from emolib.params.schemas import Decoding, ModelParams


class LocalEngine(EngineBase):
    """A model of this process; answers in the order asked, ``batch_size`` at a time.

    Opening costs the import of torch and ms-swift once a process (about 10 s) and the
    reading of the weights twice (fingerprint and load; the second time from the page cache).
    A batch costs about as much as its longest prompt and its longest answer.

    Sampling (temperature > 0) draws each answer from a generator seeded by the request's
    content and ``decoding.seed``, so an answer depends neither on the batch it was in nor
    on what was asked before.

    Args:
        params: The model; ``engine`` is not looked at.
        name: Short name for tables.
        adapters: LoRA folders, applied in order after ``params.adapters``.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Raises:
        MissingModelError: model or adapter not found.
        EngineError: the model cannot be loaded.
    """

    _packages: tuple[str, ...] = ("ms-swift", "transformers", "torch")

    def __init__(
        self,
        params: ModelParams,
        name: str,
        adapters: Sequence[Path] = (),
        cache: Path | None = None,
    ) -> None:
        self.name = name
        found = self._find(params, cache)
        loras = [Path(a).expanduser() for a in params.adapters]
        loras += [Path(a).expanduser() for a in adapters]
        for lora in loras:
            if not (lora / "adapter_config.json").is_file():
                raise MissingModelError(f"{lora} has no adapter_config.json: not a LoRA folder")
        self._batch = params.batch_size
        self._decoding = params.decoding
        dtype = weight_type(params, found.dtype)
        weights, lora_weights = fingerprint(found.path), [fingerprint(lora) for lora in loras]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations between torch, transformers, swift
            self._engine = self._load(params, found, dtype, loras)
        quantizer = ("bitsandbytes",) if params.load_in_4bit else ()
        self.software = versions(*self._packages, *quantizer)
        self.identity = {
            "engine": params.engine,
            "model": shown_name(params, found),
            "weights": weights,
            "adapters": lora_weights,
            "template": self._engine.template.template_meta.template_type,
            "dtype": dtype,
            "max_length": params.max_length,
            "max_tiles": params.max_tiles,
            # answers given before there was this option keep their key
            **({"max_pixels": params.max_pixels} if params.max_pixels else {}),
            "decoding": decoding_identity(params.decoding),
        }
        if params.load_in_4bit:  # not a key of every identity: answers of before keep theirs
            self.identity["load_in_4bit"] = True

    def _find(self, params: ModelParams, cache: Path | None) -> ModelFolder:
        return find_model(params, cache)

    def _load(self, params: ModelParams, found: ModelFolder, dtype: str, loras: list[Path]) -> Any:
        model, processor = load_model(params, found, dtype)
        from swift.infer_engine import TransformersEngine
        from swift.tuners import Swift

        for i, lora in enumerate(loras):
            try:
                model = Swift.from_pretrained(model, str(lora))
            except Exception as error:
                raise EngineError(
                    f"{lora} does not fit {params.model}: {one_line(error)}"
                ) from error
            if i + 1 < len(loras):
                model = model.merge_and_unload()
        template = make_template(processor, params, found)
        engine = TransformersEngine(
            model, template=template, max_batch_size=params.batch_size, use_hf=True
        )
        engine.strict = False  # a request that cannot be encoded becomes its own error
        return engine

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """See :meth:`emolib.engines.base.Engine.stream`."""
        if self._engine is None:
            raise EngineError(f"engine {self.name!r} is closed")
        source = iter(requests)
        while batch := list(itertools.islice(source, self._batch)):
            yield from self._answer(batch)

    def close(self) -> None:
        """Free the model's memory."""
        if self._engine is None:
            return
        self._engine = None
        free_memory()

    def _answer(self, batch: list[Request]) -> list[Reply]:
        start = time.perf_counter()
        problems = {i: p for i, r in enumerate(batch) if (p := self._problem(r))}
        good = [r for i, r in enumerate(batch) if i not in problems]
        try:
            answers: list[Any] = self._generate(good) if good else []
        except Exception as error:
            answers = [error] if len(good) == 1 else self._one_by_one(good)
        seconds = (time.perf_counter() - start) / len(batch)
        left = iter(answers)
        return [
            Reply(request.id, error=problems[i], seconds=seconds)
            if i in problems
            else self._reply(request, next(left), seconds)
            for i, request in enumerate(batch)
        ]

    def _one_by_one(self, batch: list[Request]) -> list[Any]:
        """Answer again singly after a batch failed as a whole (memory, one odd image)."""
        import torch

        answers: list[Any] = []
        for request in batch:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            try:
                answers += self._generate([request])
            except Exception as error:
                answers.append(error)
        return answers

    def _generate(self, batch: list[Request]) -> list[Any]:
        """One response or exception per request."""
        from swift.infer_engine import RequestConfig

        decoding = self._decoding
        alternatives = max(request.alternatives for request in batch)
        prepared: list[Any] = []
        seeds: dict[str, int] = {}
        for request in batch:
            key, message = self._prepare(request)
            seeds[key] = request_seed(decoding.seed, request)
            prepared.append(message)
        config = RequestConfig(
            max_tokens=decoding.max_new_tokens,
            temperature=0.0,  # ours is added by the hook, see Sampler
            repetition_penalty=decoding.repetition_penalty,
            stop=list(decoding.stop),
            return_details=True,
            logprobs=alternatives > 0,
            top_logprobs=alternatives or None,
        )

        def sample(kwargs: dict[str, Any]) -> dict[str, Any]:
            # some templates put the system message's key before the prompt's
            keys = [keys_in(row.messages[0]["content"]) for row in kwargs["template_inputs"]]
            rows = [next(seeds[key] for key in found if key in seeds) for found in keys]
            kwargs["inputs"]["logits_processor"] = [Sampler(decoding, rows)]
            return kwargs

        try:
            hook = sample if decoding.temperature > 0 else None
            return list(self._engine._infer(prepared, config, pre_infer_hook=hook))
        finally:
            self._engine.template.forget()

    def _prepare(self, request: Request) -> tuple[str, Any]:
        """Turn a request into ms-swift's, with the key that stands for its prompt."""
        from swift.infer_engine import InferRequest

        template = self._engine.template
        text = template.put(request.prompt)
        [key] = keys_in(text)
        media = "<image>" * len(request.images) + "<audio>" * len(request.audio)
        messages = [{"role": "user", "content": media + text}]
        if request.system is not None:
            messages.insert(0, {"role": "system", "content": template.put(request.system)})
        return key, InferRequest(
            messages=messages,
            images=[_image(image) for image in request.images],
            audios=[wav_bytes(a, request.sample_rate) for a in request.audio],
        )

    def _reply(self, request: Request, answer: Any, seconds: float) -> Reply:
        if isinstance(answer, Exception):
            return Reply(request.id, error=_line(answer), seconds=seconds)
        choice = answer.choices[0]
        text, reason = choice.message.content, choice.finish_reason
        ends = [at for stop in self._decoding.stop if stop and (at := text.find(stop)) >= 0]
        if ends:
            text, reason = text[: min(ends)], "stop"
        elif choice.token_ids and choice.token_ids[-1] in self._end_ids:
            reason = "stop"  # the end mark was the last token allowed
        return Reply(
            request.id,
            text=text,
            finish_reason=reason or "",
            prompt_tokens=answer.usage.prompt_tokens,
            new_tokens=answer.usage.completion_tokens,
            seconds=seconds,
            tokens=read_tokens(choice.logprobs) if request.alternatives else (),
        )

    @property
    def _end_ids(self) -> set[int]:
        """Tokens that end an answer; some folders name none (Qwen3-Omni), some another one."""
        named = self._engine.model.generation_config.eos_token_id
        ends = set(named if isinstance(named, list) else [named])
        return ends - {None} | {self._engine.tokenizer.eos_token_id}

    def _problem(self, request: Request) -> str:
        if fault := media_fault(request):
            return fault
        if (request.images or request.audio) and not self._engine.model_meta.is_multimodal:
            return f"{self.name} is a text model and takes no images or audio"
        return ""


def make_template(processor: Any, params: ModelParams, found: ModelFolder) -> Any:
    """Build ms-swift's template of a model, guarded, that refuses what is too long."""
    from swift.template import get_template

    template = get_template(
        processor,
        max_length=params.max_length or None,
        template_type=found.template or None,
        truncation_strategy="raise",
    )
    return guard(template)


def decoding_identity(decoding: Decoding) -> dict[str, object]:
    """Give the decoding settings an answer depends on: greedy ignores seed and top_p."""
    settings = decoding.model_dump(mode="json")
    if decoding.temperature == 0:
        del settings["seed"], settings["top_p"]
    return settings


def _image(array: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(array))


def _line(error: Exception) -> str:
    if type(error).__name__ == "MaxLengthError":
        return f"prompt too long: {error}"
    return one_line(error)
