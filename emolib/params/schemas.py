"""Building blocks of every stage's parameters: data, models, decoding."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

#: Folders of a clone of the AffectGPT repository: outputs of other models, and of AffectGPT-2025.
RELEASED = ("OV-MER/output/results-ovmerd", "AffectGPT/output/results-ovmerdplus")

DataKind = Literal[
    "demo",
    "folder",
    "mer2024-labelled",
    "mer2024-unlabelled",
    "mer2024-ov",
    "mer2025",
    "mer2026",
    "emer-v1",
    "emer-v2",
    "chsims",
    "chsims-v2",
]


class _Operational:
    """Marks a field that states how or where something is computed, never what."""

    def __repr__(self) -> str:
        return "OPERATIONAL"


#: In a field's ``Annotated`` type: no result depends on its value (device, workers, a server's
#: address), so a run or a training made with another value is still up to date. A field
#: without it counts.
OPERATIONAL = _Operational()


class Schema(BaseModel):
    """Base of all parameter schemas: unknown keys refused, values frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    def identity(self) -> dict[str, Any]:
        """Return the plain values that results depend on: fields not :data:`OPERATIONAL`."""
        plain = self.model_dump(mode="json")
        fields = type(self).model_fields.items()
        return {
            name: _identity(getattr(self, name), plain[name])
            for name, field in fields
            if OPERATIONAL not in field.metadata
        }


def _identity(value: Any, plain: Any) -> Any:
    if isinstance(value, Schema):
        return value.identity()
    if isinstance(value, dict):
        return {key: _identity(one, plain[key]) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_identity(one, other) for one, other in zip(value, plain, strict=True)]
    return plain


class DataParams(Schema):
    """Which clips a stage reads.

    Attributes:
        kind: Reader: "demo" (generated), "folder" (videos, optional CSV of words and labels), or
            a published set as its authors lay it out (``docs/data.md``).
        root: The folder read; for "demo" where the generated set is kept ("" = under outputs).
        table: Label file, below ``root`` or anywhere; "" = the set's own. "folder": CSV with
            ``name`` and any of ``subtitle, labels, description, split, audio, group``.
        subtitles: Published sets: file of the spoken words; "" = the set's own.
        videos: Published sets: folder of the videos, below ``root`` or anywhere; "" = the
            set's own.
        language: Published sets: which words and descriptions are taken where there are both.
        media: Published sets: a listed clip without video is an error ("needed"), left out and
            told ("available"), or no video is looked for ("none", texts alone).
        split_file: A split recorded by ``emolib datasets split``; "" = the set's own.
        clips: Number of clips the demo set has.
        seed: Seed of the demo set.
        domain: World of the demo set: "base" (training, captions) or "target" (other people,
            places, sentences and camera; evaluation without having seen it).
        split: Only this split; "" = all.
        limit: At most this many clips, in the reader's order; 0 = all.
    """

    kind: DataKind = "demo"
    root: str = ""
    table: str = ""
    subtitles: str = ""
    videos: str = ""
    language: Literal["chinese", "english"] = "english"
    media: Literal["needed", "available", "none"] = "needed"
    split_file: str = ""
    clips: int = Field(default=24, ge=1)
    seed: int = Field(default=0, ge=0)
    domain: Literal["base", "target"] = "base"
    split: str = ""
    limit: int = Field(default=0, ge=0)


class ReleasedParams(Schema):
    """Published outputs of other models on the clips, see :mod:`emolib.baselines.released`.

    Attributes:
        root: A clone of the repository that holds them, or a folder of tables.
        models: Only these; () = all. One that is not there is named and left out.
        variants: Only these, e.g. "subtitle" or "epoch_30"; () = all.
    """

    root: str = Field(min_length=1)
    models: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


class Decoding(Schema):
    """How an answer is generated; part of every ledger key.

    Attributes:
        max_new_tokens: Longest answer, in tokens.
        temperature: 0 is greedy.
        top_p: Nucleus sampling; only read when temperature > 0.
        repetition_penalty: 1 is none.
        seed: Seed of sampling; only read when temperature > 0.
        stop: Strings that end the answer.
    """

    max_new_tokens: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)
    stop: tuple[str, ...] = ()


class Prices(Schema):
    """What a model's answers cost; shown while it works and written into results.

    Attributes:
        prompt: Price of a million prompt tokens.
        new: Price of a million generated tokens.
        hour: Price of an hour of the machine the model runs on.
        currency: Name behind the sums.
    """

    prompt: float = Field(default=0.0, ge=0)
    new: float = Field(default=0.0, ge=0)
    hour: float = Field(default=0.0, ge=0)
    currency: str = "USD"


# Fields of a chat request that are written from other parameters.
_REQUEST_FIELDS = {
    "model": "model",
    "messages": "the stage's prompt",
    "stream": "always false",
    "n": "always 1",
    "max_tokens": "decoding.max_new_tokens",
    "max_completion_tokens": "decoding.max_new_tokens, max_tokens_key",
    "temperature": "decoding.temperature",
    "top_p": "decoding.top_p",
    "seed": "decoding.seed",
    "repetition_penalty": "decoding.repetition_penalty",
    "stop": "decoding.stop",
    "logprobs": "the stage's scoring",
    "top_logprobs": "the stage's scoring",
}


class ModelParams(Schema):
    """One model and the engine that runs it.

    Attributes:
        engine: "transformers" or "vllm" (in this process; vLLM must be installed) or "server"
            (any OpenAI-compatible address).
        model: Local folder, hub id, "nano:internvl" / "nano:llava" / "nano:teacher" /
            "nano:affectgpt" (small shipped models that learned the demo world), or
            "tiny:internvl" / "tiny:llava" / "tiny:qwen2audio" / "tiny:affectgpt" (some 200,000
            to 400,000 random weights of the real architecture, built on first
            use). For "server" the name the server knows it by.
        model_type: ms-swift's model type; "" = found from the folder's config. Where several share
            an architecture, as with Llama, an error names the candidates.
        template: ms-swift's template, which is the chat format; "" = the model type's own.
        adapters: LoRA folders, applied in order.
        dtype: Weight type; "auto" = as stored, "fit" = bfloat16 or float16 where the device
            computes in it, else float32.
        load_in_4bit: "transformers": quantize the weights to 4 bits while loading (bitsandbytes,
            extra ``quant``): about a third of the memory in bfloat16. For asking only, never for
            training or serving.
        device: "cpu", "cuda" (the first GPU visible), "cuda:1" (the second), ...; "auto" = the
            first GPU when there is one. "server" with ``launch``: the GPU its command sees, "auto"
            = all.
        attention: Attention kernel; "" = the library's choice.
        batch_size: Requests computed together ("transformers").
        max_length: Longest prompt in tokens, images included; 0 = the model's own limit.
            A longer prompt is that row's error, never cut.
        max_tiles: Most tiles one image is cut into (InternVL family); 0 = the model's own
            limit. Six frames fit 8,192 tokens with at most 4.
        max_pixels: Most pixels one image is scaled to (Qwen-VL and Qwen-Omni), at a token for
            28 x 28 or 32 x 32 of them; 0 = the model's own limit, 16,384 tokens. Like
            ``max_tiles`` it is not read for "server", which scales images itself.
        decoding: See :class:`Decoding`.
        base_url: "server": address up to and including ``/v1``.
        api_key_env: "server": *name* of the environment variable with the key; "" = none.
        max_tokens_key: "server": what the request calls ``decoding.max_new_tokens``. Hosted
            reasoning models accept "max_completion_tokens" only.
        send_temperature: "server": false leaves temperature and ``top_p`` out of the request, for
            models that refuse them; they then sample as their provider decided.
        extra_body: "server": further fields of every request, as the server defines them, e.g.
            ``{chat_template_kwargs: {enable_thinking: false}}``. Written into records: no secrets.
        concurrency: "server", "vllm": requests under way at once.
        gpu_memory: "vllm": share of each GPU's memory it takes.
        gpus: GPUs over which the weights are spread: of "transformers" those from ``device`` on,
            of "vllm" the first, of "server" those its ``launch`` sees. A training takes one for
            each of its processes instead.
        timeout_s: "server": seconds one request may take.
        retries: "server": further tries after 429, 5xx, time-outs and cut connections.
        patience_s: "server": how long one that was lost is waited for before the run stops.
        launch: "server": program and arguments that start it on this machine, e.g. of another
            environment; run when nothing answers at ``base_url``, run again when it dies or
            hangs, ended with the engine. Empty = somebody else starts it.
        launch_s: "server": seconds such a start may take.
        restarts: "server": most starts in a row with fewer than 100 answers between them.
        prices: What its answers cost; see :class:`Prices`.
        trust_remote_code: Allow Python code inside a model folder to run.
        allow_download: Allow fetching a hub id; otherwise only what lies on this machine.
    """

    engine: Literal["transformers", "vllm", "server"] = "transformers"
    model: str = Field(min_length=1)
    model_type: str = ""
    template: str = ""
    adapters: tuple[str, ...] = ()
    dtype: Literal["auto", "fit", "float32", "bfloat16", "float16"] = "auto"
    load_in_4bit: bool = False
    device: Annotated[str, OPERATIONAL] = "auto"
    attention: Literal["", "eager", "sdpa", "flash_attn"] = ""
    batch_size: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    max_length: int = Field(default=0, ge=0)
    max_tiles: int = Field(default=0, ge=0)
    max_pixels: int = Field(default=0, ge=0)
    decoding: Decoding = Decoding()
    base_url: Annotated[str, OPERATIONAL] = ""
    api_key_env: Annotated[str, OPERATIONAL] = ""
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_temperature: bool = True
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    concurrency: Annotated[int, OPERATIONAL] = Field(default=4, ge=1)
    gpu_memory: Annotated[float, OPERATIONAL] = Field(default=0.9, gt=0, le=1)
    gpus: Annotated[int, OPERATIONAL] = Field(default=1, ge=1)
    timeout_s: Annotated[float, OPERATIONAL] = Field(default=120.0, gt=0)
    retries: Annotated[int, OPERATIONAL] = Field(default=3, ge=0)
    patience_s: Annotated[float, OPERATIONAL] = Field(default=60.0, ge=0)
    launch: Annotated[tuple[str, ...], OPERATIONAL] = ()
    launch_s: Annotated[float, OPERATIONAL] = Field(default=1800.0, gt=0)
    restarts: Annotated[int, OPERATIONAL] = Field(default=3, ge=0)
    prices: Prices = Prices()
    trust_remote_code: bool = False
    allow_download: Annotated[bool, OPERATIONAL] = False

    # Parameters are written into run folders, so no secret may stand in them, and the messages
    # do not repeat what stood there.
    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
            raise ValueError("give the *name* of an environment variable, never the key itself")
        return value

    @field_validator("base_url")
    @classmethod
    def _no_password(cls, value: str) -> str:
        try:
            hidden = "@" in urlsplit(value).netloc
        except ValueError:
            return value  # the engine says what is wrong with it
        if hidden:
            raise ValueError("an address with a password in it; use api_key_env")
        return value

    @field_validator("extra_body")
    @classmethod
    def _plain_json(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(value, allow_nan=False)  # ValueError: a number that JSON does not have
        return value

    @model_validator(mode="after")
    def _quantized_here(self) -> Self:
        if self.load_in_4bit and self.engine != "transformers":
            raise ValueError(
                f"load_in_4bit: is read by engine transformers, not by {self.engine}; give it a "
                "checkpoint that was quantized before"
            )
        return self

    @model_validator(mode="after")
    def _request_fields_agree(self) -> Self:
        if not self.send_temperature and self.decoding.temperature > 0:
            raise ValueError(
                f"send_temperature: false would not send decoding.temperature = "
                f"{self.decoding.temperature:g}; leave one of them out"
            )
        if taken := sorted(self.extra_body.keys() & _REQUEST_FIELDS.keys()):
            where = ", ".join(f"{key} ({_REQUEST_FIELDS[key]})" for key in taken)
            raise ValueError(f"extra_body: these fields have parameters of their own: {where}")
        return self


def as_path(text: str) -> Path | None:
    """Turn a parameter that may be "" into a path or None."""
    return Path(text).expanduser() if text else None
