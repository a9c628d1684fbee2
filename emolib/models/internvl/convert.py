"""A published InternVL-Chat folder to a native one, a tensor at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib.errors import DataError
from emolib.files import read_json, write_json
from emolib.models.internvl import mapping, prompting, settings, shards, target, tokenizer
from emolib.models.internvl.target import REPORT

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What a conversion did.

    Attributes:
        folder: The native folder.
        tensors: Source tensors used.
        targets: Native tensors written.
        ignored: Source tensors left out -> reason.
        resumed: Shards that an earlier, interrupted conversion had already written.
        chat: Chat format of the converted folder.
    """

    folder: Path
    tensors: int
    targets: int
    ignored: dict[str, str]
    resumed: int
    chat: prompting.Dialect


def convert(
    source: Path, out: Path, chat: str = "", progress: Progress | None = None
) -> Conversion:
    """Convert a published ``internvl_chat`` folder with InternLM2 to a native one.

    The result loads with ``InternVLForConditionalGeneration`` and ``AutoProcessor``, without
    remote code, in the stored dtype. One source shard becomes one native shard; memory is
    about twice the largest tensor (1.1 GB each in the 26B model), time is reading,
    hashing and writing the weights once. An interrupted conversion goes on
    with the shards that are missing and gives the same bytes; so does a finished one that has
    lost files since.

    Args:
        source: Published folder: ``config.json``, weights, ``tokenizer.model``.
        out: New folder, or one that an interrupted conversion of the same source left.
        chat: Chat format; "" = found in the source, see :func:`prompting.dialect_of`.
        progress: Called as ``progress(done, total, shard)`` after every shard.

    Raises:
        DataError: the source is not convertible or not complete, or ``out`` holds something
            else, is being written by another process, or cannot be written. ``out`` never
            looks finished then: ``conversion.json`` is written last.
        MissingDependencyError: sentencepiece or protobuf is not installed.
    """
    source, out = Path(source), Path(out)
    try:
        return _convert(source, out, chat, progress)
    except BrokenPipeError:
        raise  # the reader of what ``progress`` prints has left
    except OSError as error:
        raise DataError(f"{source} to {out}: {error.strerror or error}") from error


def _convert(source: Path, out: Path, chat: str, progress: Progress | None) -> Conversion:
    if not (source / "config.json").is_file():
        raise DataError(f"{source} has no config.json: not a model folder")
    config = read_json(source / "config.json")
    settings.check(config)
    dialect = prompting.dialect_of(config, source, chat)
    files = shards.list_shards(source)
    request = {"chat": prompting.to_config(dialect), "source": target.fingerprint(source, files)}
    times = [(source / file).stat().st_mtime_ns for file in files]
    with target.claimed(out, request, times) as state:
        if state is None:
            return _finished(out, len(files))
        return _fill(source, out, config, dialect, files, state, progress)


def _fill(
    source: Path,
    out: Path,
    config: dict[str, Any],
    dialect: prompting.Dialect,
    files: Mapping[str, set[str] | None],
    state: dict[str, Any],
    progress: Progress | None,
) -> Conversion:
    """Write what ``out`` lacks."""
    words = tokenizer.build(source)
    native = settings.native(config, words.context_image_token_id)
    if len(words) > native["text_config"]["vocab_size"]:
        raise DataError(f"{len(words)} tokens, but {source} has fewer embeddings")
    targets = mapping.expected_targets(native)
    moves = _plan(source, files, targets, settings.heads(config))
    target.check_space(out, sum((source / file).stat().st_size for file in files))
    resumed = 0
    for number, file in enumerate(files, 1):
        name = _target_file(number, len(files))
        if target.holds(out, row := state["shards"].get(file, {})) and row["to"] == name:
            resumed += 1
        else:
            digest = _convert_shard(source / file, out / name, moves)
            row = {"to": name, "sha256": digest, "bytes": (out / name).stat().st_size}
            state["shards"][file] = row
            write_json(out / target.STATE, state)
        if progress is not None:
            progress(number, len(files), name)
    _write_index(out, len(files))
    _write_rest(out, config, native, dialect, words)
    report = _report(source, moves, targets, state)
    write_json(out / REPORT, report)
    target.tidy(out)
    ignored = {k: m.ignored for k, m in moves.items() if m.ignored}
    return Conversion(out, len(moves) - len(ignored), len(targets), ignored, resumed, dialect)


def _finished(out: Path, files: int) -> Conversion:
    report = read_json(out / REPORT)
    return Conversion(
        out, len(report["used"]), len(report["filled"]), report["ignored"], files,
        prompting.Dialect(**report["request"]["chat"]),
    )  # fmt: skip


def _plan(
    source: Path,
    files: Mapping[str, set[str] | None],
    targets: Mapping[str, tuple[int, ...]],
    heads: mapping.Heads,
) -> dict[str, mapping.Move]:
    """Move of every source tensor, checked against the native model before any writing."""
    moves: dict[str, mapping.Move] = {}
    filled: dict[str, str] = {}
    for file, promised in files.items():
        entries = shards.open_shard(source / file).entries
        if promised is not None and set(entries) != promised:
            odd = sorted(set(entries) ^ promised)[0]
            raise DataError(f"{source / file}: {odd} is in the file or the index, but not in both")
        for name, entry in entries.items():
            if name in moves:
                raise DataError(f"{source}: {name} is in two weight files")
            moves[name] = move = mapping.plan(name, heads)
            if move.targets and entry.dtype not in shards.FLOATS:
                raise DataError(f"{name} is {entry.dtype}; only float weights convert")
            for place, shape in zip(move.targets, move.shapes(entry.shape), strict=True):
                if place not in targets:
                    raise DataError(f"{name}: the native model has no {place}")
                if place in filled:
                    raise DataError(f"{name} and {filled[place]} both fill {place}")
                if shape != targets[place]:
                    raise DataError(f"{name}: shape {shape}, {place} has {targets[place]}")
                filled[place] = name
    if empty := sorted(set(targets) - set(filled)):
        raise DataError(f"{source}: nothing fills {len(empty)} native tensors, e.g. {empty[0]}")
    return moves


def _target_file(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _convert_shard(source: Path, path: Path, moves: Mapping[str, mapping.Move]) -> str:
    """Write one native shard.

    Returns:
        SHA-256 of the source file.
    """
    shard = shards.open_shard(source)
    entries: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, entry in shard.entries.items():
        move = moves[name]
        for place, shape in zip(move.targets, move.shapes(entry.shape), strict=True):
            entries[place] = (entry.dtype, shape)
    writer = shards.SafeWriter(path, entries)
    digest = hashlib.sha256()
    try:
        for name, tensor in shard.tensors(digest):
            for place, part in zip(moves[name].targets, moves[name].parts(tensor), strict=True):
                writer.add(place, part)
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    return digest.hexdigest()


def _write_index(out: Path, count: int) -> None:
    if count == 1:
        return
    weight_map: dict[str, str] = {}
    total = 0
    for number in range(1, count + 1):
        file = _target_file(number, count)
        for name, entry in shards.SafeFile(out / file).entries.items():
            weight_map[name] = file
            total += entry.end - entry.begin
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(out / "model.safetensors.index.json", index)


def _write_rest(
    out: Path,
    config: Mapping[str, Any],
    native: dict[str, Any],
    dialect: prompting.Dialect,
    words: Any,
) -> None:
    from transformers import (
        GenerationConfig,
        GotOcr2ImageProcessorPil,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    images = settings.image_processor(config)
    frames = {k: v for k, v in images.items() if k in ("size", "image_mean", "image_std")}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(**images),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(**frames),
        image_seq_length=native["image_seq_length"],
        chat_template=prompting.chat_template(dialect),
    )
    try:
        processor.save_pretrained(out)
    except Exception as error:  # the tokenizer's library says a full disk by a bare Exception
        raise DataError(f"{out}: cannot be written: {error}") from error
    GenerationConfig(
        bos_token_id=words.bos_token_id,
        eos_token_id=words.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=words.pad_token_id,
        do_sample=False,
    ).save_pretrained(out)
    # ms-swift reads model type and template from here, see swift_plugin.
    write_json(out / "args.json", {"model_type": prompting.MODEL_TYPE, "swift_version": "4.6.0"})
    write_json(out / "config.json", native | {"chat": prompting.to_config(dialect)})


def _report(
    source: Path,
    moves: Mapping[str, mapping.Move],
    targets: Mapping[str, tuple[int, ...]],
    state: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "tool": target.TOOL,
        "folder": source.resolve().name,
        "request": state["request"],
        "shards": state["shards"],
        "used": {k: list(m.targets) for k, m in sorted(moves.items()) if not m.ignored},
        "ignored": {k: m.ignored for k, m in sorted(moves.items()) if m.ignored},
        "filled": {name: list(shape) for name, shape in sorted(targets.items())},
        "unfilled": [],
    }
