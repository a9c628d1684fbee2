"""AffectGPT behind the project's engine interface: requests in, descriptions out, in batches.

A batch runs until its longest answer ends. Answers to video, sound and words together are three
times as long as answers to one of them, so a window of several batches is put in order first:
the perspectives of a clip come together, each goes into a batch of its own kind.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emolib.engines.base import EngineBase, Reply, Request
from emolib.engines.encode import media_fault
from emolib.engines.fingerprint import fingerprint
from emolib.engines.gpus import device_map
from emolib.engines.local import decoding_identity
from emolib.engines.precision import weight_type
from emolib.engines.sampling import Sampler, request_seed
from emolib.engines.swift_setup import find_model, one_line, shown_name
from emolib.errors import EmolibError, EngineError
from emolib.hashing import sha_file
from emolib.models.affectgpt.auto import AffectGPTForConditionalGeneration, AffectGPTProcessor
from emolib.models.affectgpt.cache import pack_frames
from emolib.models.affectgpt.prompts import STOP
from emolib.models.affectgpt.prompts import media_fault as prompt_fault
from emolib.models.affectgpt.trained import load_branches
from emolib.params.schemas import ModelParams

_REMEMBERED = 64  # media whose tower outputs are kept, 0.8 MB each at full size
_AHEAD = 4  # batches that are put in order together: as many as a clip has perspectives


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request whose media the frozen towers have seen; pixels and samples are let go."""

    id: str
    prompt: str
    seed: int
    frames: torch.Tensor | None
    sound: torch.Tensor | None
    error: str = ""
    seconds: float = 0.0

    @property
    def kind(self) -> tuple[bool, bool, int]:
        """What decides how long prompt and answer are."""
        return self.frames is None, self.sound is None, len(self.prompt)


class AffectGPTEngine(EngineBase):
    """Answers ``batch_size`` requests at a time; rows may hold any modalities.

    A request's prompt is finished (:func:`emolib.models.affectgpt.prompts.build_prompt`): with
    ``<ImageHere>`` it brings the frames of one video as its images (a single image is a still
    picture), with ``<AudioHere>`` one sound. Frozen towers run once for media that follow each
    other, so the perspectives of a clip cost one encoding.

    Args:
        params: The converted folder or "tiny:affectgpt"; ``adapters`` may name one file of trained
            branches.
        name: Short name for tables.
        branches: Trained branches (and LoRA) put over the folder's own; None: those of
            ``params``, or as converted.
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Raises:
        MissingModelError: model or branches not found.
        EngineError: not an AffectGPT folder, or the branches do not fit it.
    """

    def __init__(
        self,
        params: ModelParams,
        name: str,
        branches: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        if params.load_in_4bit:
            raise EngineError(f"{name}: AffectGPT is not loaded in 4 bits; leave load_in_4bit out")
        if len(params.adapters) > 1:
            raise EngineError(f"{name}: {len(params.adapters)} adapters; AffectGPT takes one")
        if branches is None and params.adapters:
            branches = Path(params.adapters[0]).expanduser()
        if params.gpus > 1:
            raise EngineError(f"{name}: gpus = {params.gpus}; AffectGPT takes one GPU")
        placed, _ = device_map(params.device, 1, torch.cuda.device_count())
        found = find_model(params, cache)
        dtype = weight_type(params, found.dtype)
        try:
            model = AffectGPTForConditionalGeneration.from_pretrained(
                found.path,
                dtype=getattr(torch, dtype),
                device_map=None if placed == "cpu" else placed or "auto",
                attn_implementation=params.attention or None,
            )
            processor = AffectGPTProcessor.from_pretrained(found.path)
        except EmolibError:
            raise
        except Exception as error:
            raise EngineError(f"{params.model} cannot be loaded: {one_line(error)}") from error
        if branches is not None:
            load_branches(model, branches)
        self.name = name
        self._model: Any = model.eval()
        self._processor: Any = processor
        self._batch, self._decoding = params.batch_size, params.decoding
        self._towers: OrderedDict[str, torch.Tensor] = OrderedDict()
        #: Sound is wanted with all channels, [channels, samples], as the published code hears it.
        self.channels: bool = processor.feature_extractor.reference_compat
        self.identity = {
            "engine": "affectgpt",
            "model": shown_name(params, found),
            "weights": fingerprint(found.path),
            "branches": sha_file(branches)[:16] if branches else "",
            "dtype": dtype,
            "decoding": decoding_identity(params.decoding),
        }

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """See :meth:`emolib.engines.base.Engine.stream`."""
        if self._model is None:
            raise EngineError(f"engine {self.name!r} is closed")
        source = iter(requests)
        while window := [
            self._prepared(request) for request in itertools.islice(source, _AHEAD * self._batch)
        ]:
            yield from (Reply(row.id, error=row.error) for row in window if row.error)
            good = iter(sorted((row for row in window if not row.error), key=lambda row: row.kind))
            while batch := list(itertools.islice(good, self._batch)):
                yield from self._answer(batch)

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        self._towers.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _prepared(self, request: Request) -> _Prepared:
        """Let the towers see a request's media; what fails is this row's error."""
        start = time.perf_counter()
        error, frames, sound = _fault(request, self._processor.multi_tokens), None, None
        if not error:
            try:
                frames = self._frames(request.images) if request.images else None
                if request.audio:
                    sound = self._sound(request.audio[0], request.sample_rate)
            except Exception as failure:
                error = one_line(failure)
        drawn = self._decoding.temperature > 0
        seed = request_seed(self._decoding.seed, request) if drawn else 0
        seconds = time.perf_counter() - start
        return _Prepared(request.id, request.prompt, seed, frames, sound, error, seconds)

    def _answer(self, batch: list[_Prepared]) -> Iterator[Reply]:
        start = time.perf_counter()
        try:
            answers = self._generate(batch)
        except Exception as error:
            answers = self._one_by_one(batch, error)
        seconds = (time.perf_counter() - start) / len(batch)
        for row, reply in zip(batch, answers, strict=True):
            yield replace(reply, seconds=row.seconds + seconds)

    def _one_by_one(self, batch: list[_Prepared], error: Exception) -> list[Reply]:
        """Answer singly after a batch failed as a whole (memory, one odd medium)."""
        if len(batch) == 1:
            return [Reply(batch[0].id, error=one_line(error))]
        replies = []
        for row in batch:
            try:
                replies += self._generate([row])
            except Exception as own:
                replies.append(Reply(row.id, error=one_line(own)))
        return replies

    @torch.inference_mode()
    def _generate(self, batch: list[_Prepared]) -> list[Reply]:
        model, processor, decoding = self._model, self._processor, self._decoding
        inputs: dict[str, Any] = dict(_padded(processor, [r.prompt for r in batch], model.device))
        if videos := [row.frames for row in batch if row.frames is not None]:
            inputs |= {k: v.to(model.device) for k, v in pack_frames(videos).items()}
        if sounds := [row.sound for row in batch if row.sound is not None]:
            inputs["clip_features"] = torch.stack(sounds).to(model.device)
        length = inputs["input_ids"].shape[1]
        settings: dict[str, Any] = {}
        if decoding.temperature > 0:
            settings["logits_processor"] = [Sampler(decoding, [row.seed for row in batch])]
        out = model.generate(
            **inputs,
            **settings,
            do_sample=False,  # Sampler perturbs the logits
            max_new_tokens=decoding.max_new_tokens,
            repetition_penalty=decoding.repetition_penalty,
            stop_strings=[STOP, *decoding.stop],
            tokenizer=processor.tokenizer,
        )
        texts = processor.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
        return [
            self._reply(asked.id, text, out[row, length:], int(inputs["attention_mask"][row].sum()))
            for row, (asked, text) in enumerate(zip(batch, texts, strict=True))
        ]

    def _reply(self, asked: str, text: str, ids: torch.Tensor, prompt: int) -> Reply:
        ends = [at for stop in (STOP, *self._decoding.stop) if (at := text.find(stop)) >= 0]
        eos = self._processor.tokenizer.eos_token_id
        ended = bool(ends) or bool((ids == eos).any())
        return Reply(
            asked,
            text=text[: min(ends)].strip() if ends else text.strip(),
            finish_reason="stop" if ended else "length",
            prompt_tokens=prompt,
            new_tokens=int((ids != eos).sum()),
        )

    def _frames(self, images: tuple[np.ndarray, ...]) -> torch.Tensor:
        """Image tower's output of one video or still: float [frames, tokens, width]."""
        clip = images[0] if len(images) == 1 else np.stack(images)

        def encode() -> torch.Tensor:
            pixels = self._processor.video_processor([clip])["pixel_values_videos"]
            return self._model.encode_frames(pixels.to(self._model.device))[0]

        return self._remembered(clip, encode)

    def _sound(self, samples: np.ndarray, rate: int) -> torch.Tensor:
        """Audio tower's output of one recording: float [clips, width]."""

        def encode() -> torch.Tensor:
            mel = self._processor.feature_extractor([samples], rate)["input_features"]
            return self._model.encode_clips(mel.to(self._model.device))[0]

        return self._remembered(samples, encode)

    def _remembered(self, array: np.ndarray, encode: Any) -> torch.Tensor:
        digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
        key = digest.hexdigest()
        if key not in self._towers:
            self._towers[key] = encode().cpu()
            while len(self._towers) > _REMEMBERED:
                self._towers.popitem(last=False)
        self._towers.move_to_end(key)
        return self._towers[key]


def _fault(request: Request, multi_tokens: int) -> str:
    """What is wrong with a request; "" when nothing is."""
    # several channels are as good as one here
    first = tuple(sound[0] if sound.ndim == 2 and len(sound) else sound for sound in request.audio)
    if fault := media_fault(replace(request, audio=first)):
        return fault
    if request.system is not None:
        return "AffectGPT takes no system message"
    seen, heard = bool(request.images), bool(request.audio)
    if fault := prompt_fault([request.prompt], seen, heard, multi_tokens):
        return fault
    if len(request.audio) > 1:
        return f"{len(request.audio)} sounds; AffectGPT takes one"
    if len({image.shape for image in request.images}) > 1:
        return "frames of different sizes"
    return ""


def _padded(processor: Any, prompts: list[str], device: torch.device) -> dict[str, torch.Tensor]:
    """Prompts as ids, padded on the left."""
    rows = [processor.encode([(prompt, None)])[0] for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), processor.tokenizer.pad_token_id)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, found in enumerate(rows):
        ids[row, longest - len(found) :] = torch.tensor(found)
        mask[row, longest - len(found) :] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
