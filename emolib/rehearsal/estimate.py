"""What a profile takes at full size: memory a GPU, disk and hours, by counting, not measuring.

Sizes come from the published configurations: the class is built on the meta device, without
weights. Requests are as long as the parameters allow, so hours are an upper estimate.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emolib import assets
from emolib.assets import Asset, Use
from emolib.files import write_json
from emolib.params.affectgpt import SftParams
from emolib.params.schemas import ModelParams, Schema
from emolib.params.stages import (
    AffectGPTSft,
    Baselines,
    CaptionFilter,
    DataGeneration,
    DiscriminativeModel,
    FaceAblation,
    FusionAnalysis,
    InternVLLora,
    StageParams,
)
from emolib.params.training import LoraParams

#: Share of a GPU's peak that is computed with, stated beside every estimate.
MFU_TRAINING, MFU_GENERATION = 0.40, 0.20
#: Clips or images of a data set (docs/data.md).
SIZES = {
    "mer2024-ov": 332,
    "mer2024-labelled": 5_030,
    "mer2024-unlabelled": 115_595,
    "chsims": 2_281,
    "chsims-v2": 4_403,
    "emer-v1": 100,
    "emer-v2": 332,
    "minigpt4": 3_439,
}
#: What :func:`measure` counted.
FILE = Path(assets.__file__).parent / "data" / "full_sizes.json"
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_PROMPT = 2_048  # tokens of a prompt where max_length sets no limit
_FEATURE = 4_112  # tokens or patches of a clip: 16 frames of 257, more than its sound or words have
_ROW = 2_048  # tokens of a training row: one image of four tiles and its thumbnail, and a caption
_TEXT = 512  # tokens of a prompt without images
_TOWER = 4  # patches a vision tower computes for each token that the language model sees
_ADAM = 16  # bytes a trained number: weight, gradient and AdamW's two moments in float32
_GIB = 2**30


class Machine(Schema):
    """The machine a profile is planned for.

    Attributes:
        gpu: Its name.
        gpus: How many.
        memory_gb: Memory of each, GiB.
        tflops: Dense bfloat16 peak of each that its maker states.
        cores: Of the processors.
        ram_gb: Main memory, GiB.
        disk_gb: Free disk space, 10^9 bytes.
    """

    gpu: str = "none"
    gpus: int = 0
    memory_gb: float = 0.0
    tflops: float = 0.0
    cores: int = 4
    ram_gb: float = 16.0
    disk_gb: float = 100.0

    def to_json(self) -> dict[str, Any]:
        """Describe it as ``emolib doctor`` reads it below a rehearsal's root."""
        return {
            "system": "rehearsed",
            "cores": self.cores,
            "memory_gb": self.ram_gb,
            "free_gb": self.disk_gb,
            "gpus": [[self.gpu, self.memory_gb]] * self.gpus,
        }


@dataclass(frozen=True, slots=True)
class Size:
    """A model at full size.

    Attributes:
        parameters: All of them.
        text: Those of the language model that compute a token; of experts, the chosen ones.
        layers: Of the language model.
        hidden: Its width.
        cache: Numbers that the key-value cache keeps for a token.
        vocabulary: Rows of its output layer.
        linear: Sum of input and output widths of its linear layers: LoRA's weights a rank.
    """

    parameters: int
    text: int
    layers: int
    hidden: int
    cache: int
    vocabulary: int
    linear: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """One stage at full size.

    Attributes:
        memory_gb: Most memory of one GPU, GiB; 0 = no model runs here.
        largest: The model that takes it, and what for.
        disk_gb: Weights and data the stage reads, 10^9 bytes; what is not known is left out.
        hours: Upper estimate on the profile's machine; None = no GPU is planned for.
    """

    memory_gb: float
    largest: str
    disk_gb: float
    hours: float | None


@functools.cache
def full_size(name: str) -> Size | None:
    """Look up an asset's size at full scale, as :func:`measure` counted it; None = not known.

    ``emolib/data/full_sizes.json`` holds them (made by ``python -m emolib.rehearsal.estimate``),
    because the largest class takes seconds to build.
    """
    asset = assets.assets()[name]
    if asset.kind == "server":  # as large as the weights it serves
        return full_size(asset.needs[0]) if asset.needs else None
    if (found := _known().get(name)) is not None:
        return Size(**found)
    count = asset.parameters  # remote code, or no language model: all count alike
    return Size(count, count, 0, 0, 0, 0, 0) if count else None


@functools.cache
def _known() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def measure(name: str) -> Size | None:
    """Build an asset's class at full size on the meta device, without weights, and count.

    None where transformers has no class for it, too little is known, or it is no language model.
    """
    asset = assets.assets()[name]
    if name == "affectgpt-2025":  # its language model, and two towers that are small beside it
        llm = measure("Qwen2.5-7B-Instruct")
        return replace(llm, parameters=asset.parameters or llm.parameters) if llm else None
    with contextlib.ExitStack() as quiet:
        logging.disable(logging.WARNING)
        quiet.callback(logging.disable, logging.NOTSET)
        try:
            return _measured(_built(asset))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return None


def _built(asset: Asset) -> Any:
    import torch
    import transformers

    models = assets.published()["models"]
    with torch.device("meta"):
        if asset.name == "video-llama-native":
            from emolib.models.affectgpt import AffectGPTConfig, AffectGPTForConditionalGeneration

            return AffectGPTForConditionalGeneration(AffectGPTConfig())
        entry = models[asset.hub or assets.assets()[asset.needs[0]].hub]
        if "reference_towers" in entry:
            return transformers.InternVLForConditionalGeneration(_native(entry))
        config = _config(entry["config"])
        kind = getattr(transformers, entry["transformers_class"])
        return kind(config)


def _config(values: Mapping[str, Any]) -> Any:
    import transformers

    own = {k: v for k, v in values.items() if k not in ("architectures", "model_type")}
    if values["model_type"] == "internvl":
        own["tie_word_embeddings"] = False
    return transformers.AutoConfig.for_model(values["model_type"], **own)


def _native(entry: Mapping[str, Any]) -> Any:
    """The native configuration of InternVL-Chat-V1.5, as its converter writes it."""
    import transformers

    from emolib.models.internvl import settings

    towers, images = entry["reference_towers"], entry["preprocessor"]
    config = {
        **entry["config"],
        "vision_config": towers["vision"],
        "llm_config": towers["llm"] | {"max_position_embeddings": images.get("max_length", 32_768)},
    }
    values = settings.native(config, towers["llm"]["vocab_size"] - 7)
    own = {k: v for k, v in values.items() if k not in ("architectures", "model_type")}
    return transformers.InternVLConfig(**own)


def _measured(model: Any) -> Size:
    import torch

    whole = getattr(model, "thinker", model)
    text = whole.config.get_text_config()
    head = whole.get_output_embeddings()
    body = getattr(whole.model, "language_model", None) if hasattr(whole, "model") else None
    if body is None:  # AffectGPT has it beside its towers, Qwen-Omni under `model`, others are it
        body = getattr(whole, "model" if hasattr(whole, "visual") else "language_model", whole)
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    linear = [m for m in body.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    used = getattr(text, "num_experts_per_tok", 1) / (getattr(text, "num_experts", 1) or 1)
    own = sum(
        int(p.numel() * used) if ".experts." in name else p.numel()
        for name, p in body.named_parameters()
    )
    if not any(p is head.weight for p in body.parameters()):
        own += head.weight.numel()
    return Size(
        parameters=sum(p.numel() for p in whole.parameters()),
        text=own,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        cache=2 * text.num_hidden_layers * text.num_key_value_heads * width,
        vocabulary=text.vocab_size,
        linear=sum(m.in_features + m.out_features for m in linear),
    )


# Memory and FLOPs ---------------------------------------------------------------------------


def answering(size: Size, model: ModelParams) -> float:
    """Bytes of a model that answers: weights and the key-value cache of a batch."""
    bytes_ = _BYTES.get(model.dtype, 2)
    length = (model.max_length or _PROMPT) + model.decoding.max_new_tokens
    return bytes_ * (size.parameters + model.batch_size * length * size.cache)


def lora_training(size: Size, model: ModelParams, lora: LoraParams) -> float:
    """Bytes of one GPU that trains a LoRA with gradient checkpointing.

    Rows are those of notebook 02, one image each, not as long as ``max_length`` allows. Weights
    (divided among the processes by ZeRO-3), LoRA's own, one activation a layer, one
    layer's inner ones, and logits with their gradient in float32.
    """
    bytes_ = _BYTES.get(model.dtype, 2)
    shared = lora.processes * lora.nodes if lora.deepspeed.startswith("zero3") else 1
    tokens = lora.batch_size * min(lora.max_length, _ROW)
    kept = size.layers if lora.gradient_checkpointing else 16 * size.layers
    activations = tokens * size.hidden * bytes_ * (kept + 16)
    logits = tokens * size.vocabulary * 4 * 2
    return (
        bytes_ * size.parameters / shared + _ADAM * lora.rank * size.linear + activations + logits
    )


def branch_training(size: Size, model: ModelParams, recipe: SftParams) -> float:
    """Bytes of one GPU that trains AffectGPT's branches, 45 million numbers, or LoRA besides."""
    bytes_ = _BYTES.get(model.dtype, 2)
    tokens = recipe.batch_size * recipe.max_length
    kept = size.layers if recipe.gradient_checkpointing else 16 * size.layers
    trained = 45e6 + (recipe.lora.rank * size.linear if recipe.lora else 0)
    activations = tokens * size.hidden * bytes_ * (kept + 16)
    return bytes_ * size.parameters + _ADAM * trained + activations + tokens * size.vocabulary * 8


def _answer_flops(size: Size, model: ModelParams, images: bool) -> float:
    prompt = (model.max_length or _PROMPT) if images else _TEXT
    tower = (size.parameters - size.text) if images else 0
    return 2.0 * (size.text * (prompt + model.decoding.max_new_tokens) + tower * _TOWER * prompt)


def _lora_flops(size: Size, lora: LoraParams, rows: int) -> float:
    per_step = lora.batch_size * lora.accumulate * lora.processes * lora.nodes
    seen = lora.steps * per_step if lora.steps else rows * lora.epochs
    times = 6.0 if lora.gradient_checkpointing else 4.0  # no gradients of frozen weights
    tokens = min(lora.max_length, _ROW)
    return times * seen * tokens * size.text + 2.0 * seen * tokens * 4 * (
        size.parameters - size.text
    )


def _branch_flops(size: Size, recipe: SftParams, rows: int) -> float:
    steps = recipe.steps_per_epoch * recipe.epochs
    seen = steps * recipe.batch_size * recipe.processes if steps else rows * recipe.epochs
    times = 6.0 if recipe.gradient_checkpointing else 4.0
    return times * seen * 512 * size.text


# One stage ----------------------------------------------------------------------------------


def estimate(stage: str, params: StageParams, machine: Machine) -> Estimate:
    """Estimate one stage from its parameters at full size."""
    used = assets.stage_uses(stage, params)
    memory: dict[str, float] = {}
    seconds = 0.0
    peak = machine.tflops * 1e12
    for use in used:
        size = _size_of(use)
        if size is None or not use.required:
            continue
        if use.model is None:
            if isinstance(params, DiscriminativeModel) and use.key.startswith("features."):
                feature = params.features[int(use.key.split(".")[1])]
                title = use.asset.title if use.asset else use.at
                memory[f"{title}, features"] = float(_BYTES[feature.dtype] * size.parameters)
                clips = params.data.limit or SIZES.get(params.data.kind, 100)
                if peak:
                    seconds += 2.0 * size.parameters * clips * _FEATURE / (peak * MFU_GENERATION)
            continue
        memory[f"{use.asset.title if use.asset else use.at}, answering"] = answering(
            size, use.model
        )
        if peak:
            images = not _of_texts(params, use)
            flops = _requests(params, use) * _answer_flops(size, use.model, images)
            seconds += flops / (peak * MFU_GENERATION)
        if isinstance(params, InternVLLora) and params.lora is not None and _trained(params, use):
            memory["LoRA training"] = lora_training(size, use.model, params.lora)
            if peak:
                gpus = params.lora.processes * params.lora.nodes
                rows = getattr(params, "max_pairs", 0) or 26_000
                seconds += _lora_flops(size, params.lora, rows) / (peak * MFU_TRAINING * gpus)
        if isinstance(params, AffectGPTSft) and _trained(params, use):
            memory["AffectGPT training"] = branch_training(size, use.model, params.recipe)
            if peak:
                rows = SIZES.get(params.data.kind, 332)
                flops = _branch_flops(size, params.recipe, rows) * len(params.seeds)
                seconds += flops / (peak * MFU_TRAINING * params.recipe.processes)
    largest = max(memory, key=lambda name: memory[name], default="")
    return Estimate(
        memory.get(largest, 0.0) / _GIB, largest, _disk(used), seconds / 3600 if peak else None
    )


def _size_of(use: Use) -> Size | None:
    away = use.model is not None and use.model.engine == "server" and not use.model.launch
    known = use.asset is not None and use.asset.kind in ("weights", "server")
    return full_size(use.asset.name) if use.asset is not None and known and not away else None


def _trained(params: InternVLLora | AffectGPTSft, use: Use) -> bool:
    return use.key == f"models.{params.model}"


def _of_texts(params: StageParams, use: Use) -> bool:
    """Whether the model reads captions, descriptions or labels and no images."""
    name = use.key.partition(".")[2]
    readers = (*getattr(params, "summarisers", ()), *getattr(params, "extractors", ()))
    return isinstance(params, CaptionFilter | FusionAnalysis) or name in readers


def _requests(params: StageParams, use: Use) -> int:
    """Questions a stage asks a model."""
    clips = params.data.limit or SIZES.get(params.data.kind, 100)
    if isinstance(params, DataGeneration):
        return clips * params.frames
    if isinstance(params, CaptionFilter):
        return (2 if params.both_orders else 1) * SIZES["chsims-v2"] * 6
    if isinstance(params, InternVLLora):
        return clips * (2 if params.lora is not None else 1)
    if isinstance(params, AffectGPTSft):
        before = len(params.views_before)
        after = len(params.views) * len(params.seeds)
        return (params.test or clips) * (before + after)
    if isinstance(params, FaceAblation):
        return clips * 3
    if isinstance(params, FusionAnalysis):
        return clips * (use.key.partition(".")[2] in params.co_judges)
    if isinstance(params, Baselines):
        extractor = use.key.partition(".")[2] in params.extractors
        return clips * (len(params.chosen()) if extractor else 1)
    return clips


def _disk(used: list[Use]) -> float:
    found: dict[str, int] = {}
    for use in used:
        if use.asset is not None and use.required:
            for asset in (*assets.sources_of(use.asset), use.asset):
                found[asset.name] = asset.bytes or 0
    return sum(found.values()) / 1e9


if __name__ == "__main__":
    weights = [name for name, asset in assets.assets().items() if asset.kind == "weights"]
    sizes = {name: asdict(size) for name in weights if (size := measure(name)) is not None}
    write_json(FILE, sizes)
