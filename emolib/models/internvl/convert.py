"""A published InternVL-Chat folder to a native one, a tensor at a time."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib import __version__
from emolib.errors import DataError
from emolib.files import read_json, write_json
from emolib.hashing import sha_file
from emolib.models.internvl import mapping, prompting, settings, shards, tokenizer

REPORT = "conversion.json"
_STATE = ".conversion.partial.json"
_FILES = (
    _STATE, "args.json", "chat_template.jinja", "config.json", "generation_config.json",
    "model.safetensors.index.json", "processor_config.json", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
_TOOL = f"emolib {__version__}"
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
    with the shards that are missing and gives the same bytes.

    Args:
        source: Published folder: ``config.json``, weights, ``tokenizer.model``.
        out: New folder, or one that an interrupted conversion of the same source left.
        chat: Chat format; "" = found in the source, see :func:`prompting.dialect_of`.
        progress: Called as ``progress(done, total, shard)`` after every shard.

    Raises:
        DataError: the source is not convertible or not complete, or ``out`` holds something
            else. ``out`` never looks finished then: ``conversion.json`` is written last.
    """
    source, out = Path(source), Path(out)
    if not (source / "config.json").is_file():
        raise DataError(f"{source} has no config.json: not a model folder")
    config = read_json(source / "config.json")
    settings.check(config)
    dialect = prompting.dialect_of(config, source, chat)
    files = shards.list_shards(source)
    request = {"chat": prompting.to_config(dialect), "source": _fingerprint(source, files)}
    state = _claim(out, request, [(source / f).stat().st_mtime_ns for f in files])
    if (out / REPORT).is_file():
        return _finished(out, len(files))

    words = tokenizer.build(source)
    native = settings.native(config, words.context_image_token_id)
    if len(words) > native["text_config"]["vocab_size"]:
        raise DataError(f"{len(words)} tokens, but {source} has fewer embeddings")
    targets = mapping.expected_targets(native)
    moves = _plan(source, files, targets, settings.heads(config))
    _check_space(out, source, files)
    resumed = 0
    for number, file in enumerate(files, 1):
        name = _target_file(number, len(files))
        if state["shards"].get(file, {}).get("to") == name and (out / name).is_file():
            resumed += 1
        else:
            digest = _convert_shard(source / file, out / name, moves)
            state["shards"][file] = {"to": name, "sha256": digest}
            write_json(out / _STATE, state)
        if progress is not None:
            progress(number, len(files), name)
    _write_index(out, len(files))
    _write_rest(out, config, native, dialect, words)
    report = _report(source, moves, targets, state)
    write_json(out / REPORT, report)
    for path in [p for p in out.iterdir() if p.name == _STATE or _is_draft(p)]:
        path.unlink()
    ignored = {k: m.ignored for k, m in moves.items() if m.ignored}
    return Conversion(out, len(moves) - len(ignored), len(targets), ignored, resumed, dialect)


def _fingerprint(source: Path, files: Mapping[str, object]) -> dict[str, Any]:
    """What tells two sources apart without reading the weights."""
    rows: dict[str, Any] = {file: (source / file).stat().st_size for file in files}
    for name in ("config.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
        if (source / name).is_file():
            rows[name] = sha_file(source / name)
    return rows


def _claim(out: Path, request: dict[str, Any], times: list[int]) -> dict[str, Any]:
    """State of an earlier conversion of the same source into ``out``, or a fresh one."""
    fresh: dict[str, Any] = {"request": request, "times": times, "tool": _TOOL, "shards": {}}
    if (out / REPORT).is_file():
        if read_json(out / REPORT).get("request") != request:
            raise DataError(f"{out} holds another conversion: name a new folder")
        return fresh
    if (out / _STATE).is_file():
        state: dict[str, Any] = read_json(out / _STATE)
        if all(state.get(key) == fresh[key] for key in ("request", "times", "tool")):
            return state
        _remove_ours(out)  # a part of another conversion
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and not a conversion: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _STATE, fresh)
    return fresh


def _remove_ours(out: Path) -> None:
    """Remove what a conversion writes, and nothing else."""
    for path in out.iterdir():
        if path.name in _FILES or path.match("model*.safetensors") or _is_draft(path):
            path.unlink()


def _is_draft(path: Path) -> bool:
    return path.name.startswith(".") and path.suffix in (".tmp", ".part")


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
            for target, shape in zip(move.targets, move.shapes(entry.shape), strict=True):
                if target not in targets:
                    raise DataError(f"{name}: the native model has no {target}")
                if target in filled:
                    raise DataError(f"{name} and {filled[target]} both fill {target}")
                if shape != targets[target]:
                    raise DataError(f"{name}: shape {shape}, {target} has {targets[target]}")
                filled[target] = name
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
        for target, shape in zip(move.targets, move.shapes(entry.shape), strict=True):
            entries[target] = (entry.dtype, shape)
    writer = shards.SafeWriter(path, entries)
    digest = hashlib.sha256()
    try:
        for name, tensor in shard.tensors(digest):
            for target, part in zip(moves[name].targets, moves[name].parts(tensor), strict=True):
                writer.add(target, part)
        writer.close()
    except BaseException as error:
        writer.abandon()
        if isinstance(error, OSError):
            raise DataError(f"{source} to {path}: {error.strerror or error}") from error
        raise
    return digest.hexdigest()


def _check_space(out: Path, source: Path, files: Mapping[str, object]) -> None:
    """Refuse to begin what the disk cannot hold."""
    needed = sum((source / file).stat().st_size for file in files)
    here = sum(path.stat().st_size for path in out.glob("model*.safetensors"))
    free = shutil.disk_usage(out).free
    if needed - here > free:
        raise DataError(
            f"{out}: {(needed - here) / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free"
        )


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
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(**images),
        tokenizer=words,
        video_processor=InternVLVideoProcessor(**frames),
        image_seq_length=native["image_seq_length"],
        chat_template=prompting.chat_template(dialect),
    ).save_pretrained(out)
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
        "tool": _TOOL,
        "folder": source.resolve().name,
        "request": state["request"],
        "shards": state["shards"],
        "used": {k: list(m.targets) for k, m in sorted(moves.items()) if not m.ignored},
        "ignored": {k: m.ignored for k, m in sorted(moves.items()) if m.ignored},
        "filled": {name: list(shape) for name, shape in sorted(targets.items())},
        "unfilled": [],
    }
