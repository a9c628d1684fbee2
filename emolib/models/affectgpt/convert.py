"""The published weight files of AffectGPT or Video-LLaMA -> one folder that loads anywhere.

Every tensor is accounted for: used, left out with a reason, or the conversion stops. Files
are memory-mapped and copied a shard at a time, so memory stays near ``shard_bytes``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from emolib.errors import DataError
from emolib.files import write_json
from emolib.hashing import sha_file
from emolib.models.affectgpt.configuration import AffectGPTConfig
from emolib.models.affectgpt.keys import KINDS, ORDER, recognise, route
from emolib.models.affectgpt.modeling import AffectGPTForConditionalGeneration
from emolib.models.affectgpt.output import Shards, check_new, generation_config, new_folder
from emolib.models.affectgpt.processing import AffectGPTProcessor
from emolib.models.affectgpt.tokenizing import load_tokenizer, placeholder_ids, sentencepiece_of
from emolib.models.affectgpt.weights import llm_files, shapes_of, tensors_of

_REQUIRED = ("eva", "blip2", "imagebind")


@dataclass
class Source:
    """One weight file and what its tensors become.

    Attributes:
        path: The file.
        kind: A key of :data:`emolib.models.affectgpt.keys.KINDS`.
        shapes: Key -> shape of every tensor in it.
        used: Key -> target parameter.
        ignored: Key -> reason.
    """

    path: Path
    kind: str
    shapes: dict[str, tuple[int, ...]]
    used: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def convert_affectgpt(
    files: Sequence[Path],
    llm: Path,
    dst: Path,
    *,
    config: AffectGPTConfig | None = None,
    tokenizer: bool = True,
    reference_compat: bool = False,
    shard_bytes: int = 2_000_000_000,
) -> dict[str, Any]:
    """Convert published files into one folder for ``from_pretrained``.

    Args:
        files: The ``.pth`` files in any order: image tower, Q-Former, ImageBind, and the
            branches (both Video-LLaMA files, an AffectGPT training checkpoint, or all
            three; the checkpoint wins). Recognised by content.
        llm: Folder of the language model (config, weights, tokenizer).
        dst: Folder to make; must not exist or be empty.
        config: Sizes other than the published ones. Its text configuration and token ids
            are replaced by those of ``llm``.
        tokenizer: Also write processor and tokenizer. False for a folder without one:
            placeholders then get the two ids after the vocabulary.
        reference_compat: The written processor prepares sound and tokenises as the published code
            does; needs the ``tokenizer.model`` in ``llm``.
        shard_bytes: Largest output file, and about the memory needed.

    Returns:
        The report, also written to ``dst/conversion.json``.

    Raises:
        DataError: a file is unknown, given twice, broken, of other sizes, something is
            missing, or the tokenizer gives other ids than its SentencePiece file; nothing
            is left in ``dst`` then.
        MissingModelError: the language model or its tokenizer is not in ``llm``.
    """
    check_new(dst)
    words = load_tokenizer(llm) if tokenizer else None
    if reference_compat:
        if words is None:
            raise DataError("reference_compat is of the processor: it needs a tokenizer")
        sentencepiece_of(words)  # says what is missing
    sources = [_opened(path) for path in files] + [_opened(p, "llm") for p in llm_files(llm)]
    config = _configured(config, llm, words)
    winners, model = plan(sources, config)
    resized = _resizable(model)
    _check_logit_scale(sources, config)

    with new_folder(dst) as work:
        _write_weights(work, winners, model, resized, shard_bytes)
        config.architectures = [type(model).__name__]
        config.save_pretrained(work)
        generation_config(config, words).save_pretrained(work)
        if words is not None:
            AffectGPTProcessor.for_config(config, words, reference_compat).save_pretrained(work)
            if (llm / "tokenizer.model").is_file():  # the exact published segmentation
                shutil.copyfile(llm / "tokenizer.model", work / "tokenizer.model")
        report = _report(sources, winners, config)
        write_json(work / "conversion.json", report)
    return report


def _opened(path: Path, kind: str | None = None) -> Source:
    shapes = shapes_of(path)
    return Source(path, kind or recognise(shapes, str(path)), shapes)


# Planning --------------------------------------------------------------------------------


def _check_kinds(sources: Sequence[Source]) -> None:
    kinds = [source.kind for source in sources if source.kind != "llm"]
    for kind in set(kinds):
        if kinds.count(kind) > 1:
            names = [str(source.path) for source in sources if source.kind == kind]
            raise DataError(f"{len(names)} files are the {KINDS[kind]}: {', '.join(names)}")
    missing = [KINDS[kind] for kind in _REQUIRED if kind not in kinds]
    if "affectgpt" not in kinds:
        missing += [KINDS[kind] for kind in ("video", "audio") if kind not in kinds]
    if missing:
        raise DataError(f"missing: {'; '.join(missing)}. Files are recognised by their content")


def _configured(
    config: AffectGPTConfig | None,
    llm: Path,
    words: PreTrainedTokenizerBase | None,
) -> AffectGPTConfig:
    text = AutoConfig.from_pretrained(llm, local_files_only=True)
    rows = text.vocab_size
    video, audio = (rows, rows + 1) if words is None else placeholder_ids(words)
    text.vocab_size = max(rows, video + 1, audio + 1)
    settings = (config or AffectGPTConfig()).to_dict()
    text._name_or_path = ""  # a path on this machine
    settings |= {
        "text_config": text.to_dict(),
        "video_token_id": video,
        "audio_token_id": audio,
        "suppressed_token_ids": sorted({video, audio, *range(rows, text.vocab_size)}),
    }
    result = AffectGPTConfig.from_dict(settings)
    result.dtype = text.dtype
    return result


# target -> [(source, key, part)]
_Winners = dict[str, list[tuple[Source, str, str]]]


def plan(
    sources: Sequence[Source], config: AffectGPTConfig
) -> tuple[_Winners, AffectGPTForConditionalGeneration]:
    """Decide where every tensor goes, and check that nothing is missing or misshapen.

    Needs names and shapes only. Fills in ``used`` and ``ignored`` of the sources.

    Returns:
        Target -> its pieces, and the model without storage (meta device).

    Raises:
        DataError: an unknown, missing, surplus or misshapen tensor.
    """
    _check_kinds(sources)
    winners = _routed(sources, config)
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(config)
    _check_shapes(winners, model, _resizable(model))
    return winners, model


def _routed(sources: Sequence[Source], config: AffectGPTConfig) -> _Winners:
    winners: _Winners = {}
    for source in sorted(sources, key=lambda s: ORDER.index(s.kind)):
        mine: _Winners = {}
        unknown = []
        for key in source.shapes:
            place = route(source.kind, key, config.vision_config.num_hidden_layers)
            if place is None:
                unknown.append(key)
            elif place.reason:
                source.ignored[key] = place.reason
            else:
                mine.setdefault(place.target, []).append((source, key, place.part))
                source.used[key] = place.target
        if unknown:
            raise DataError(
                f"{source.path} (taken for the {KINDS[source.kind]}): {len(unknown)} tensors of "
                f"unknown purpose, first {unknown[:4]}. Converting would lose them silently"
            )
        for target in mine.keys() & winners.keys():
            for older, key, _ in winners[target]:
                del older.used[key]
                older.ignored[key] = f"overridden by {source.path.name}"
        winners |= mine
    return winners


def _resizable(model: AffectGPTForConditionalGeneration) -> set[str]:
    """Parameters whose rows are the vocabulary."""
    tables = [model.get_input_embeddings().weight]
    if model.get_output_embeddings() is not None:
        tables.append(model.get_output_embeddings().weight)
    return {name for name, p in model.named_parameters() if any(p is table for table in tables)}


def _check_shapes(
    winners: _Winners, model: AffectGPTForConditionalGeneration, resized: set[str]
) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    optional = set(model.all_tied_weights_keys)
    if missing := sorted(expected.keys() - winners.keys() - optional):
        raise DataError(f"{len(missing)} parameters are in none of the files: {missing[:6]}")
    if surplus := sorted(winners.keys() - expected.keys()):
        source, key, _ = winners[surplus[0]][0]
        raise DataError(
            f"{source.path}: {key} has no place in the model ({surplus[0]}); "
            f"{len(surplus)} such tensors. Is the configuration right?"
        )
    for target, pieces in winners.items():
        want = expected[target]
        if pieces[0][2]:
            if sorted(part for _, _, part in pieces) != ["q", "v"]:
                raise DataError(f"{pieces[0][0].path}: {pieces[0][1]} lacks its q or v half")
            want = (want[0] // 3,)
        for source, key, _ in pieces:
            got = source.shapes[key]
            fits = got[1:] == want[1:] and got[0] <= want[0] if target in resized else got == want
            if not fits:
                raise DataError(
                    f"{source.path}: {key} has shape {list(got)}, the model needs {list(want)} "
                    f"for {target}: other sizes need a configuration (--config)"
                )


def _check_logit_scale(sources: Sequence[Source], config: AffectGPTConfig) -> None:
    key = "modality_postprocessors.audio.1.log_logit_scale"
    for source in sources:
        if source.kind == "imagebind" and key in source.shapes:
            found = next(t for name, t in tensors_of(source.path) if name == key).exp().item()
            if abs(found - config.audio_config.logit_scale) > 1e-3:
                raise DataError(
                    f"{source.path}: audio embeddings are scaled by {found:.4f}, the "
                    f"configuration says {config.audio_config.logit_scale}"
                )


# Writing ---------------------------------------------------------------------------------


def _write_weights(
    folder: Path,
    winners: _Winners,
    model: AffectGPTForConditionalGeneration,
    resized: set[str],
    shard_bytes: int,
) -> None:
    """Write shards source by source."""
    expected = model.state_dict()
    shards = Shards(folder, shard_bytes)
    sources = {id(source): source for pieces in winners.values() for source, _, _ in pieces}
    for source in sources.values():
        wanted: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors_of(source.path):
            target = source.used.get(key)
            if target is None:
                continue
            part = next(p for s, k, p in winners[target] if s is source and k == key)
            wanted.setdefault(target, {})[part] = tensor
            if len(wanted[target]) < len(winners[target]):
                continue
            whole = _assembled(wanted.pop(target), expected[target].shape, target in resized)
            shards.add(target, whole)
        shards.flush()
    shards.finish()


def _assembled(parts: dict[str, torch.Tensor], shape: torch.Size, resize: bool) -> torch.Tensor:
    if "q" in parts:  # the keys have no bias
        whole = torch.cat([parts["q"], torch.zeros_like(parts["q"]), parts["v"]])
    else:
        whole = parts[""]
    if resize and whole.shape[0] < shape[0]:
        rows = whole.new_zeros(shape[0] - whole.shape[0], *shape[1:])
        whole = torch.cat([whole, rows])
    return whole.clone().contiguous()  # out of the mapped file


def _report(
    sources: Sequence[Source], winners: _Winners, config: AffectGPTConfig
) -> dict[str, Any]:
    files = []
    for source in sources:
        reasons: dict[str, list[str]] = {}
        for key, reason in source.ignored.items():
            reasons.setdefault(reason, []).append(key)
        files.append(
            {
                "file": source.path.name,
                "recognised_as": source.kind,
                "sha256": sha_file(source.path),
                "used": len(source.used),
                "ignored": {reason: sorted(keys) for reason, keys in sorted(reasons.items())},
            }
        )
    kinds = {source.kind for source in sources}
    return {
        "model": "affectgpt-2024" if "affectgpt" in kinds else "video-llama",
        "files": files,
        "targets_filled": len(winners),
        "placeholder_ids": {"video": config.video_token_id, "audio": config.audio_token_id},
        "suppressed_token_ids": config.suppressed_token_ids,
    }
