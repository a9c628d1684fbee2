"""Conversion: complete, exact, resumable, small in memory, and loud about bad sources."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLProcessor

from emolib.cli import convert as command
from emolib.errors import DataError
from emolib.models.internvl import shards, target
from emolib.models.internvl.convert import convert
from emolib.rehearsal.internvl_files import TINY, TINY_300M, published_shapes, write_source

MB = 1 << 20
# Matrices of some 10 MB; two layers and the embeddings make about 200 MB.
MIDDLE = {
    "vision": TINY["vision"] | {"hidden_size": 512, "intermediate_size": 2048},
    "llm": TINY["llm"]
    | {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 4,
       "intermediate_size": 5120, "vocab_size": 1024},
}  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for p in folder.glob("*.safetensors") for k, v in load_file(p).items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def native(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("native") / "out"
    convert(source, out)
    return out


@pytest.mark.parametrize("size", [TINY, TINY_300M], ids=["6b", "300m"])
def test_the_native_class_loads_everything(size, tmp_path):
    from transformers import AutoProcessor, InternVLForConditionalGeneration

    source = write_source(tmp_path / "source", size)
    done = convert(source, tmp_path / "out")
    model, info = InternVLForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values())
    assert done.targets == len(model.state_dict())
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    assert model.generation_config.eos_token_id == 510
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_seq_length == 4
    assert processor.image_processor.max_patches == 12


def test_every_value_arrives(source, native):
    """Bytes before and after are the same multiset, tensor by tensor."""
    before, after = weights(source), weights(native)
    report = json.loads((native / "conversion.json").read_text())
    assert set(report["used"]) == set(before)
    assert sorted(t for ts in report["used"].values() for t in ts) == sorted(after)
    for name, targets in report["used"].items():
        whole = torch.cat([after[t].flatten() for t in targets])
        assert torch.equal(whole.sort().values, before[name].flatten().sort().values), name


def test_the_report_names_sources_and_reasons(tmp_path):
    source = write_source(tmp_path / "source")
    file = source / "model-00001-of-00003.safetensors"
    tensors = load_file(file)
    buffer = "language_model.model.layers.0.attention.rotary_emb.inv_freq"
    places = "vision_model.embeddings.position_ids"  # integers, as some exports carry them
    save_file(tensors | {buffer: torch.ones(4), places: torch.arange(5)}, file)
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"] |= {buffer: file.name, places: file.name}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    done = convert(source, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert (
        report["ignored"]
        == done.ignored
        == dict.fromkeys((buffer, places), "computed from the config")
    )
    assert report["unfilled"] == []
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    assert report["shards"][file.name]["sha256"] == sha
    assert str(tmp_path) not in json.dumps(report)


def test_shards_and_bin_files_give_the_same_weights(source, native, tmp_path):
    one = write_source(tmp_path / "one", shards=1)
    tensors, names = weights(source), {}
    save_file(tensors, one / "model.safetensors")
    convert(one, tmp_path / "out-one")
    (one / "model.safetensors").unlink()
    torch.save(tensors, one / "pytorch_model.bin")
    convert(one, tmp_path / "out-bin")
    (one / "pytorch_model.bin").unlink()
    for n in (1, 2):  # as older uploads are cut
        part = {k: t for k, t in tensors.items() if len(k) % 2 == n - 1}
        torch.save(part, one / f"pytorch_model-0000{n}-of-00002.bin")
        names |= dict.fromkeys(part, f"pytorch_model-0000{n}-of-00002.bin")
    (one / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    convert(one, tmp_path / "out-bins")
    want = weights(native)
    for out in ("out-one", "out-bin", "out-bins"):
        got = weights(tmp_path / out)
        assert got.keys() == want.keys()
        assert all(torch.equal(got[k], want[k]) for k in want)


def test_bin_files_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    source = write_source(tmp_path / "source", shards=1)
    (source / "model.safetensors").unlink()
    torch.save({"x": Evil()}, source / "pytorch_model.bin")
    with pytest.raises(
        DataError,
        match=r"pytorch_model.bin: refused: the pickle in it wants to run ",
    ):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_a_finished_conversion_is_not_repeated(source, native):
    before = {p: p.stat().st_mtime_ns for p in native.iterdir()}
    done = convert(source, native)
    assert done.resumed == 3
    assert done.tensors == len(weights(source))
    assert {p: p.stat().st_mtime_ns for p in native.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "lose"),
    [
        ("model-00002-of-00003.safetensors", Path.unlink),
        ("model-00002-of-00003.safetensors", lambda path: os.truncate(path, 1000)),
        ("tokenizer.json", Path.unlink),
        ("model.safetensors.index.json", Path.unlink),
    ],
    ids=["shard", "cut", "tokenizer", "index"],
)
def test_a_finished_folder_that_lost_something_is_mended(name, lose, source, native, tmp_path):
    out = Path(shutil.copytree(native, tmp_path / "out"))
    lose(out / name)
    done = convert(source, out)
    assert done.resumed == (2 if name.endswith(".safetensors") else 3)
    assert contents(out) == contents(native)


def test_two_processes_do_not_write_into_one_folder(source, tmp_path):
    with target.claimed(tmp_path / "out", {}, []), pytest.raises(DataError, match="another proc"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_places_that_cannot_be_written_are_named(place, source, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=re.escape(place)):
        convert(source, tmp_path / place)
    assert (tmp_path / "file").read_text() == "mine"


def test_another_source_does_not_go_into_a_finished_folder(native, tmp_path):
    other = write_source(tmp_path / "other", TINY_300M)
    with pytest.raises(DataError, match="another"):
        convert(other, native)


def test_foreign_folders_are_left_alone(source, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="not empty"):
        convert(source, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


_CHILD = """
import json, resource, sys
from pathlib import Path
from emolib.models.internvl.convert import convert
small, source, out = map(Path, sys.argv[1:])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
convert(small, out / "small")
before = peak()
convert(source, out / "large", progress=lambda done, total, name: print(done, flush=True))
print(json.dumps(peak() - before))
"""


def test_memory_is_tensors_and_a_kill_loses_nothing(source, tmp_path):
    """200 MB in three shards: bounded by tensors, not by shards; kill -9 after the first."""
    large = write_source(tmp_path / "large", MIDDLE, shards=3)
    biggest = max(
        2 * torch.Size(s).numel()
        for s in published_shapes(json.loads((large / "config.json").read_text())).values()
    )
    shard = min(p.stat().st_size for p in large.glob("*.safetensors"))
    assert shard > 3 * biggest
    assert sum(p.stat().st_size for p in large.glob("*.safetensors")) > 190 * MB

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _CHILD, str(source), str(large), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    killed = start(tmp_path / "killed")
    assert killed.stdout is not None
    assert killed.stdout.readline() == "1\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    out, _ = whole.communicate()
    extra = int(out.splitlines()[-1])
    assert extra < 3 * biggest, f"{extra / MB:.0f} MB for tensors of {biggest / MB:.0f} MB"

    half = tmp_path / "killed" / "large"
    assert not (half / "conversion.json").exists()
    assert convert(large, half).resumed >= 1
    assert contents(half) == contents(tmp_path / "whole" / "large")


def test_a_half_converted_folder_of_another_source_is_begun_anew(source, native, tmp_path):
    other = write_source(tmp_path / "other", TINY_300M)
    out = tmp_path / "out"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(other, out, progress=stop)
    assert (out / "model-00001-of-00003.safetensors").is_file()
    (out / "notes.txt").write_text("not ours")
    with pytest.raises(DataError, match="not empty"):
        convert(source, out)
    (out / "notes.txt").unlink()
    with pytest.raises(KeyboardInterrupt):
        convert(other, out, progress=stop)
    (out / ".model-00002-of-00003.safetensors.part").write_bytes(b"cut")
    assert convert(source, out).resumed == 0
    assert contents(out) == contents(native)


def test_a_full_disk_is_found_before_and_while_writing(source, tmp_path, monkeypatch):
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage(10, 9, 1))
        with pytest.raises(DataError, match="GB are needed"):
            convert(source, tmp_path / "out")
    with monkeypatch.context() as patch:
        full = OSError(28, "No space left on device")
        patch.setattr(shards.SafeWriter, "add", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(DataError, match="No space left"):
            convert(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*model*"))
    with monkeypatch.context() as patch:
        full = Exception("No space left on device (os error 28)")  # as tokenizers says it
        patch.setattr(InternVLProcessor, "save_pretrained", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(DataError, match="No space left"):
            convert(source, tmp_path / "out")
    assert not (tmp_path / "out" / "conversion.json").exists()
    assert convert(source, tmp_path / "out").resumed == 3


def rewrite(source: Path, number: int, change) -> None:
    file = source / f"model-0000{number}-of-00003.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] = {k: f for k, f in index["weight_map"].items() if f != file.name}
    index["weight_map"] |= dict.fromkeys(tensors, file.name)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(sorted(t)[0]), "nothing fills"),
        (lambda t: t.update({"lora_A": torch.ones(1)}), "unknown tensor 'lora_A'"),
        (lambda t: t.update({"mlp1.0.weight": torch.ones(3)}), "shape"),
        (lambda t: t.update({sorted(t)[0]: torch.ones(3, dtype=torch.int64)}), "only float"),
        (lambda t: t.update({sorted(t)[0]: torch.ones(3)}), "shape|rows"),
    ],
    ids=["missing", "unknown", "twice", "integer", "shape"],
)
def test_incomplete_sources_are_refused_before_writing(change, message, tmp_path):
    source = write_source(tmp_path / "source")
    rewrite(source, 2, change)
    with pytest.raises(DataError, match=message):
        convert(source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("model*"))


def test_cut_files_are_refused(tmp_path):
    source = write_source(tmp_path / "source")
    file = source / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut or corrupt"):
        convert(source, tmp_path / "out")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match="not a safetensors file"):
        convert(source, tmp_path / "out")
    file.unlink()
    with pytest.raises(DataError, match="not in the folder"):
        convert(source, tmp_path / "out")
    index = source / "model.safetensors.index.json"
    index.write_text("[]")
    with pytest.raises(DataError, match="no weight_map"):
        convert(source, tmp_path / "out")
    index.unlink()
    with pytest.raises(DataError, match="model-00001-of-00003.safetensors is there, its index is"):
        convert(source, tmp_path / "out")


ROW = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "not a safetensors file"),
        ({"a": {"shape": [2]}}, "not a safetensors file"),
        ({"a": ROW | {"data_offsets": [0]}}, "not a safetensors file"),
        ({"a": ROW | {"shape": [-1, -2]}}, "shape"),
        ({"a": ROW | {"shape": [3]}}, "other bytes than its shape"),
        ({"a": ROW | {"dtype": "F8_E4M3"}}, "F8_E4M3"),
        ({"a": ROW, "b": ROW}, "does not lie"),
        ({"a": ROW | {"data_offsets": [0, 4]}}, "other bytes"),
    ],
)
def test_headers_that_lie_are_refused(header, message, tmp_path):
    raw = json.dumps(header).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(DataError, match=message):
        shards.open_shard(file)


@pytest.mark.parametrize("kept", [[torch.ones(2)], {"state_dict": {"a": torch.ones(2)}}])
def test_bin_files_of_other_things_are_refused(kept, tmp_path):
    torch.save(kept, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="not a plain table"):
        shards.open_shard(tmp_path / "pytorch_model.bin")


def test_the_command_line(source, native, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["convert", "internvl", str(source), str(tmp_path / "out")])
    assert args.handler(args) == 0
    assert "[3/3] model-00003-of-00003.safetensors" in (text := capsys.readouterr().out)
    assert "chat format v1.5" in text
    assert "not written again" not in text
    assert args.handler(args) == 0
    assert "3 shards were there, whole" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(native)
