"""Folders of an image tower, an audio tower and a language model -> one AffectGPT, untrained.

The design of 2025 starts from public models that were never trained together: its branches begin
at random and are learned, with LoRA in the language model (:mod:`emolib.sft`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from emolib.errors import DataError, MissingModelError
from emolib.files import write_json
from emolib.hashing import sha_file
from emolib.models.affectgpt.auto import (
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
    AffectGPTProcessor,
    AffectGPTVideoProcessor,
)
from emolib.models.affectgpt.configuration import POOLED_TOWERS, WAVE_TOWERS
from emolib.models.affectgpt.fusion import build_branch
from emolib.models.affectgpt.modeling import TRAINED
from emolib.models.affectgpt.output import Shards, check_new, generation_config, new_folder
from emolib.models.affectgpt.tokenizing import (
    load_tokenizer,
    multi_placeholder_id,
    placeholder_ids,
)
from emolib.models.affectgpt.towers import AUDIO_TOWERS, VISION_TOWERS
from emolib.models.affectgpt.weights import llm_files, shapes_of, tensors_of

_SETTINGS = "preprocessor_config.json"
# Parameters that published folders may lack because only pre-training uses them.
_UNUSED = {"masked_spec_embed", "vision_model.embeddings.mask_token", "embeddings.mask_token"}


def assemble(
    vision: Path,
    audio: Path,
    llm: Path,
    dst: Path,
    *,
    fusion: str = "attention",
    pre_fusion: str = "attention",
    pre_fusion_size: int = 1024,
    audio_layers: int = 4,
    seed: int = 0,
    shard_bytes: int = 2_000_000_000,
) -> dict[str, Any]:
    """Put three folders together into one for ``from_pretrained``.

    Args:
        vision: CLIP (published: ViT-L/14), SigLIP or DINOv2, with its preprocessor_config.json.
        audio: HuBERT (published: chinese-hubert-large), wav2vec 2.0 or WavLM, with its
            preprocessor_config.json.
        llm: Any causal language model (published: Qwen2.5-7B-Instruct), with its tokenizer.
        dst: Folder to make; must not exist or be empty.
        fusion: How frames and clips become tokens: "attention" or "mean" (one token each), or
            "qformer".
        pre_fusion: "attention", "qformer" or "none".
        pre_fusion_size: Width of pre-fusion.
        audio_layers: Last hidden layers of the audio tower that are averaged.
        seed: Of the branches' first weights.
        shard_bytes: Largest output file, and about the memory needed besides the towers.

    Returns:
        The report, also written to ``dst/conversion.json``.

    Raises:
        DataError: a folder holds another kind of model, or weights are missing or misshapen;
            nothing is left in ``dst`` then.
        MissingModelError: a folder lacks configuration, weights or preprocessing settings.
    """
    check_new(dst)
    words = load_tokenizer(llm)
    config = _configured(
        _tower_config(vision, POOLED_TOWERS),
        _tower_config(audio, WAVE_TOWERS),
        AutoConfig.from_pretrained(_there(llm), local_files_only=True),
        words,
        {
            "fusion": fusion,
            "pre_fusion": pre_fusion,
            "pre_fusion_size": pre_fusion_size,
            "audio_layers": audio_layers,
        },
    )
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(config)
    files = llm_files(llm)
    _check_llm(files, model)
    processor = AffectGPTProcessor.for_config(
        config,
        words,
        video_processor=_frames(vision, config),
        waveforms=_waveforms(audio),
        preset="labels-2025" if pre_fusion == "none" else "fused-2025",
    )
    towers = {
        "vision_tower": (vision, VISION_TOWERS[config.vision_config.model_type]),
        "audio_tower": (audio, AUDIO_TOWERS[config.audio_config.model_type]),
    }
    with new_folder(dst) as work:
        shards = Shards(work, shard_bytes)
        parts: dict[str, Any] = {}
        for name, (folder, kind) in towers.items():
            tower = _loaded(folder, kind, getattr(config, f"{name.split('_')[0]}_config"))
            parts[name] = _described(folder, tower)
            for key, tensor in tower.state_dict().items():
                shards.add(f"{name}.{key}", tensor.contiguous())
        for key, tensor in _branches(config, model, seed).items():
            shards.add(key, tensor)
        shards.flush()
        _write_llm(files, model, shards)
        shards.finish()
        config.architectures = [type(model).__name__]
        config.save_pretrained(work)
        generation_config(config, words).save_pretrained(work)
        processor.save_pretrained(work)
        parts["language_model"] = {
            "folder": llm.resolve().name,
            "class": type(model.language_model).__name__,
            "parameters": sum(p.numel() for p in model.language_model.parameters()),
            "sha256": {file.name: sha_file(file) for file in files},
        }
        report = {
            "model": "affectgpt-2025",
            "parts": parts,
            "untrained": {
                name: sum(p.numel() for p in part.parameters())
                for name, part in model.named_children()
                if name in TRAINED
            },
            "seed": seed,
            "fusion": fusion,
            "pre_fusion": pre_fusion,
            "suppressed_token_ids": config.suppressed_token_ids,
        }
        write_json(work / "conversion.json", report)
    return report


def _there(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise MissingModelError(f"{folder}: no config.json; give a model folder")
    return folder


def _tower_config(folder: Path, kinds: tuple[str, ...]) -> PreTrainedConfig:
    whole = AutoConfig.from_pretrained(_there(folder), local_files_only=True)
    part = getattr(whole, "vision_config", None) or whole
    if part.model_type not in kinds:
        raise DataError(f"{folder}: holds {part.model_type!r}; choose one of {', '.join(kinds)}")
    if part is not whole and hasattr(whole, "projection_dim"):
        part.projection_dim = whole.projection_dim
    return part


def _configured(
    vision: PreTrainedConfig,
    audio: PreTrainedConfig,
    text: PreTrainedConfig,
    words: PreTrainedTokenizerBase,
    design: dict[str, Any],
) -> AffectGPTConfig:
    rows = text.vocab_size
    ids = list(placeholder_ids(words))
    if design["pre_fusion"] != "none":
        ids.append(multi_placeholder_id(words))
    # Qwen's tables have spare rows after the tokenizer's; others grow.
    text.vocab_size = max(rows, *(token + 1 for token in ids))
    config = AffectGPTConfig(
        vision_config=vision,
        audio_config=audio,
        text_config=text,
        video_token_id=ids[0],
        audio_token_id=ids[1],
        multi_token_id=ids[2] if len(ids) > 2 else None,
        suppressed_token_ids=sorted({*ids, *range(rows, text.vocab_size)}),
        tie_word_embeddings=False,
        **design,
    )
    config.dtype = text.dtype
    for part in (config.vision_config, config.audio_config, config.text_config):
        part._name_or_path = ""  # a path on this machine
    return config


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / _SETTINGS).is_file():
        raise MissingModelError(
            f"{folder}: no {_SETTINGS}; how this model's input must be prepared is not known"
        )
    return json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))


def _frames(folder: Path, config: AffectGPTConfig) -> AffectGPTVideoProcessor:
    """Frames as the image tower was trained to see them."""
    given = _settings(folder)
    cut = bool(given.get("do_center_crop"))
    size = given.get("crop_size" if cut else "size") or config.vision_config.image_size
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    options = {key: given[key] for key in ("image_mean", "image_std") if key in given}
    return AffectGPTVideoProcessor(
        size={"height": size, "width": size}, do_center_crop=cut, **options
    )


def _waveforms(folder: Path) -> dict[str, Any]:
    given = _settings(folder)
    if (rate := given.get("sampling_rate", 16_000)) != 16_000:
        raise DataError(f"{folder}: was trained on sound at {rate} Hz, not 16,000")
    return {"do_normalize": bool(given.get("do_normalize", True))}


def _loaded(folder: Path, kind: Any, config: PreTrainedConfig) -> Any:
    try:
        tower, info = kind.from_pretrained(
            folder, config=config, dtype="auto", local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingModelError(f"{folder}: no weights can be loaded: {reason}") from None
    missing = sorted(set(info["missing_keys"]) - _UNUSED)
    if missing or info["mismatched_keys"]:
        odd = missing or sorted(str(key) for key in info["mismatched_keys"])
        raise DataError(
            f"{folder}: {len(odd)} parameters of {kind.__name__} are missing or misshapen, e.g. "
            f"{odd[:4]}"
        )
    return tower


def _described(folder: Path, tower: Any) -> dict[str, Any]:
    return {
        "folder": folder.resolve().name,
        "class": type(tower).__name__,
        "parameters": sum(p.numel() for p in tower.parameters()),
        "sha256": {file.name: sha_file(file) for file in llm_files(folder)},
    }


def _branches(
    config: AffectGPTConfig, model: AffectGPTForConditionalGeneration, seed: int
) -> dict[str, torch.Tensor]:
    """Fresh branches in fp32."""
    found: dict[str, torch.Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in TRAINED:
            if hasattr(model, name):
                part = build_branch(config, name).float()
                part.apply(model._init_weights)
                found |= {f"{name}.{key}": t for key, t in part.state_dict().items()}
    return found


def _check_llm(files: list[Path], model: AffectGPTForConditionalGeneration) -> None:
    language = model.language_model
    expected = {name: tuple(tensor.shape) for name, tensor in language.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        found |= {k: v for k, v in shapes_of(file).items() if not k.endswith("inv_freq")}
    where = files[0].parent
    if missing := sorted(expected.keys() - found.keys() - set(language.all_tied_weights_keys)):
        raise DataError(f"{where}: {len(missing)} weights are missing: {missing[:4]}")
    if surplus := sorted(found.keys() - expected.keys()):
        raise DataError(f"{where}: {len(surplus)} weights of unknown purpose: {surplus[:4]}")
    for name, shape in found.items():
        want = expected[name]
        grown = name in _tables(model) and shape[1:] == want[1:] and shape[0] <= want[0]
        if shape != want and not grown:
            raise DataError(f"{where}: {name} has shape {list(shape)}, not {list(want)}")


def _tables(model: AffectGPTForConditionalGeneration) -> set[str]:
    """Parameters whose rows are the vocabulary."""
    tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    own = model.language_model.named_parameters(remove_duplicate=False)
    return {name for name, p in own if any(p is table for table in tables)}


def _write_llm(files: list[Path], model: AffectGPTForConditionalGeneration, shards: Shards) -> None:
    expected, tables = model.language_model.state_dict(), _tables(model)
    for file in files:
        for key, tensor in tensors_of(file):
            if key not in expected:
                continue
            rows = expected[key].shape[0] if key in tables else len(tensor)
            if rows > len(tensor):
                tensor = torch.cat(
                    [tensor, tensor.new_zeros(rows - len(tensor), *tensor.shape[1:])]
                )
            shards.add(f"language_model.{key}", tensor.clone().contiguous())
        shards.flush()
