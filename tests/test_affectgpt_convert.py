"""Conversion of the published files: full-size coverage, and everything that can be wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoProcessor  # noqa: E402

from emolib.__main__ import main  # noqa: E402
from emolib.errors import DataError, MissingModelError  # noqa: E402
from emolib.models.affectgpt import (  # noqa: E402
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
)
from emolib.models.affectgpt.convert import Source, convert_affectgpt, plan  # noqa: E402
from emolib.models.affectgpt.keys import recognise  # noqa: E402
from emolib.rehearsal.affectgpt_files import imagebind_layout, layouts  # noqa: E402
from tests.affectgpt_tiny import tiny_config, tiny_model, tiny_tokenizer  # noqa: E402
from tests.paths import searched_first  # noqa: E402

REPO = Path(__file__).parents[1]


def test_full_size_names_and_shapes(tmp_path):
    config = AffectGPTConfig()
    files = layouts(config, blocks=40)
    numbers = {
        kind: sum(torch.Size(shape).numel() for shape in shapes.values())
        for kind, shapes in files.items()
    }
    assert len(imagebind_layout(config)) == 177 + 1
    assert numbers["video"] - 512 + numbers["audio"] - 512 == 44_959_744
    with torch.device("meta"):
        llm = AffectGPTForConditionalGeneration(config).language_model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in llm.items()}
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    shapes |= {key: (32_000, 4096) for key in rows}  # placeholders get rows of their own
    shapes |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": (64,) for i in range(32)}
    sources = [
        *(Source(tmp_path / kind, recognise(keys, kind), keys) for kind, keys in files.items()),
        Source(tmp_path / "llm", "llm", shapes),
    ]
    assert [source.kind for source in sources] == [*files, "llm"]
    winners, model = plan(sources, config)
    assert winners.keys() == model.state_dict().keys()
    by_kind = {source.kind: source for source in sources}
    assert len(by_kind["video"].used) + len(by_kind["audio"].used) == 116
    assert len(by_kind["imagebind"].used) == 176
    assert {key.split(".")[1] for key in by_kind["eva"].ignored} == {"39"}
    used = sum(torch.Size(by_kind["eva"].shapes[k]).numel() for k in by_kind["eva"].used)
    assert used == 985_894_528


# The same with real small files ---------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    """Small random files in the published layout, and their language model with tokenizer."""
    generator = torch.Generator().manual_seed(0)
    return write_published(
        tmp_path / "published",
        tiny_config(),
        tiny_model().language_model,
        lambda shape: torch.randn(shape, generator=generator),
    )


def write_published(folder, config, llm, fill, shard="5GB"):
    folder.mkdir()
    blocks = config.vision_config.num_hidden_layers + 1
    for kind, shapes in layouts(config, blocks).items():
        state = {key: fill(shape) for key, shape in shapes.items()}
        if kind == "imagebind":
            state["modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(20.0).log()
        bare = kind in {"eva", "imagebind"}
        torch.save(state if bare else {"model": state, "epoch": 3}, folder / f"{kind}.pth")
    llm.resize_token_embeddings(len(tiny_tokenizer()))
    llm.save_pretrained(folder / "llm", max_shard_size=shard)
    tiny_tokenizer().save_pretrained(folder / "llm")
    config.save_pretrained(folder / "sizes")
    return folder


def files_of(folder):
    return sorted(folder.glob("*.pth"))


def convert(folder, dst, **kwargs):
    files = kwargs.pop("files", files_of(folder))
    config = kwargs.pop("config", AffectGPTConfig.from_pretrained(folder / "sizes"))
    return convert_affectgpt(files, folder / "llm", dst, config=config, **kwargs)


def test_converted_folder_answers(published, tmp_path, capsys):
    files = [str(path) for path in files_of(published)]
    code = main(
        [
            *("convert", "affectgpt", "--llm", str(published / "llm")),
            *("--config", str(published / "sizes" / "config.json")),
            *("--files", *files, str(tmp_path / "out")),
        ]
    )
    assert code == 0
    assert "video-llama" in capsys.readouterr().out
    model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    rows = len(tiny_tokenizer())
    assert (processor.video_token_id, processor.audio_token_id) == (rows, rows + 1)
    assert model.config.suppressed_token_ids == [rows, rows + 1]
    bias = model.vision_tower.encoder.layers[0].self_attn.qkv.bias
    assert torch.count_nonzero(bias[16:32]) == 0
    source = torch.load(published / "eva.pth", weights_only=True)
    assert torch.equal(bias[32:], source["blocks.0.attn.v_bias"])
    batch = processor([processor.prompt(video=False, audio=False, subtitle="Hi")])
    assert model.generate(**batch, max_new_tokens=3).shape[1] == batch["input_ids"].shape[1] + 3
    assert not list(tmp_path.glob(".out*"))


def save_sentencepiece(folder):
    """The tiny tokenizer as the ``tokenizer.model`` that LLaMA folders have."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    vocabulary = sorted(tiny_tokenizer().get_vocab().items(), key=lambda item: item[1])
    for token, number in vocabulary:
        kind = (2, 3, 3)[number] if number < 3 else 6 if token.startswith("<0x") else 1
        model.pieces.add(piece=token, score=-number, type=kind)
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(vocabulary)
    model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


def test_published_behaviour_is_written_into_the_processor(published, tmp_path):
    command = ["convert", "affectgpt", "--llm", str(published / "llm"), "--reference-compat"]
    command += ["--config", str(published / "sizes" / "config.json")]
    command += ["--files", *map(str, files_of(published)), str(tmp_path / "out")]
    with pytest.raises(MissingModelError, match="needs the SentencePiece file"):
        convert(published, tmp_path / "out", reference_compat=True)
    with pytest.raises(DataError, match="needs a tokenizer"):
        convert(published, tmp_path / "out", reference_compat=True, tokenizer=False)
    save_sentencepiece(published / "llm")
    assert main(command) == 0
    convert(published, tmp_path / "plain")
    for name, compat in (("out", True), ("plain", False)):
        processor = AutoProcessor.from_pretrained(tmp_path / name)
        assert processor.reference_compat is compat
        assert processor.feature_extractor.reference_compat is compat
        prompt = processor.prompt("infer-2024", subtitle="Hi")
        assert ("   " in prompt) is compat
        assert processor.encode([(prompt, None)])[0]


def test_shards_stay_small(published, tmp_path):
    convert(published, tmp_path / "out", shard_bytes=20_000)
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert {path.name for path in shards} == set(index["weight_map"].values())
    largest = max(tensor.nbytes for tensor in tiny_model().state_dict().values())
    assert max(path.stat().st_size for path in shards) < 20_000 + largest + 20_000


_CHILD = """
import resource, sys
from pathlib import Path
from emolib.models.affectgpt import AffectGPTConfig
from emolib.models.affectgpt.convert import convert_affectgpt
def convert(source, out):
    files = sorted(source.glob("*.pth"))
    config = AffectGPTConfig.from_pretrained(source / "sizes")
    convert_affectgpt(files, source / "llm", out, config=config, shard_bytes=10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
small, large, out = map(Path, sys.argv[1:])
before = convert(small, out / "small")
print(convert(large, out / "large") - before)
"""


def test_memory_is_a_file_and_a_shard_not_their_sum(published, tmp_path):
    """300 MB in eight files; mapped pages of the file being read count as memory, too."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8}
    reader = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
    settings = tiny_config(**sizes, num_key_value_heads=8, num_hidden_layers=6).to_dict()
    settings["vision_config"] |= sizes | {"num_hidden_layers": 4}
    settings["audio_config"] |= sizes | {"num_hidden_layers": 4}
    settings["image_qformer_config"] |= reader | {"encoder_hidden_size": 512}
    settings["image_qformer_config"] |= {"num_hidden_layers": 6}
    settings["video_qformer_config"] |= reader | {"encoder_hidden_size": 384}
    settings["audio_qformer_config"] |= reader
    config = AffectGPTConfig.from_dict(settings)
    llm = AutoModelForCausalLM.from_config(config.text_config)
    large = write_published(tmp_path / "large", config, llm, torch.zeros, shard="40MB")
    files = [*files_of(large), *(large / "llm").glob("*.safetensors")]
    total = sum(path.stat().st_size for path in files)
    largest = max(path.stat().st_size for path in files)
    assert total > 4 * largest > 200e6

    environ = os.environ | {"PYTHONPATH": searched_first(REPO)}
    command = [sys.executable, "-c", _CHILD, str(published), str(large), str(tmp_path / "out")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    extra = int(done.stdout.splitlines()[-1])
    # a shard is collected and then serialised
    assert extra < largest + 30e6 < total / 2, f"{extra / 1e6:.0f} of {total / 1e6:.0f} MB"


def test_a_pad_row_shifts_the_placeholders(published, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(published / "llm")  # the weights have no row for it
    rows = len(tokenizer)
    report = convert(published, tmp_path / "out")
    assert report["placeholder_ids"] == {"video": rows, "audio": rows + 1}
    assert report["suppressed_token_ids"] == [rows - 1, rows, rows + 1]


def broken(folder, name, change):
    path = folder / name
    state = torch.load(path, weights_only=True)
    change(state.get("model", state))
    torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("eva.pth", lambda s: s.pop("pos_embed"), "1 parameters are in none.*position_embedding"),
        ("eva.pth", lambda s: s.pop("blocks.1.attn.q_bias"), "lacks its q or v half"),
        ("audio.pth", lambda s: s.pop("audio_llama_proj.bias"), "audio_branch.projection.bias"),
        (
            "blip2.pth",
            lambda s: s.update({"surprise": torch.zeros(1)}),
            "1 tensors of unknown purpose, first .'surprise'",
        ),
        (
            "video.pth",
            lambda s: s.update({"llama_proj.weight": torch.zeros(2, 2)}),
            r"llama_proj.weight has shape \[2, 2\], the model needs \[32, 16\]",
        ),
        (
            "imagebind.pth",
            lambda s: s["modality_postprocessors.audio.1.log_logit_scale"].fill_(1.0),
            "scaled by 2.7183, the configuration says 20",
        ),
        (
            "video.pth",
            lambda s: s.update({"multi_llama_proj.weight": torch.zeros(1)}),
            "AffectGPT checkpoint of 2025",
        ),
        (
            "video.pth",
            lambda s: s.update({"llama_model.x.lora_A.default.weight": torch.zeros(1)}),
            "holds LoRA weights",
        ),
        ("eva.pth", lambda s: s.clear(), "not one of the files this conversion knows"),
    ],
)
def test_wrong_content_stops_and_leaves_nothing(published, tmp_path, name, change, message):
    broken(published, name, change)
    with pytest.raises(DataError, match=message):
        convert(published, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["published"]


def test_missing_and_double_files(published, tmp_path):
    files = files_of(published)
    without = [path for path in files if path.name not in {"eva.pth", "audio.pth"}]
    with pytest.raises(DataError, match="missing: EVA-ViT-g.*; Video-LLaMA audio branch"):
        convert(published, tmp_path / "out", files=without)
    with pytest.raises(DataError, match="2 files are the EVA-ViT-g image tower"):
        convert(published, tmp_path / "out", files=[*files, published / "eva.pth"])
    with pytest.raises(DataError, match=r"nothing.pth: no such file"):
        convert(published, tmp_path / "out", files=[published / "nothing.pth"])


def test_a_file_with_code_in_it_is_refused(published, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"model": Evil()}, published / "video.pth")
    with pytest.raises(DataError, match=r"video.pth: refused: .* wants to run \S*print"):
        convert(published, tmp_path / "out")
    (published / "video.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"video\.pth: cannot be read"):
        convert(published, tmp_path / "out")


def test_language_model_without_tokenizer_or_weights(published, tmp_path):
    for path in (published / "llm").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(MissingModelError, match=re.escape("--no-tokenizer")):
        convert(published, tmp_path / "out")
    convert(published, tmp_path / "out", tokenizer=False)
    (published / "llm" / "model.safetensors").unlink()
    with pytest.raises(MissingModelError, match="neither safetensors nor"):
        convert(published, tmp_path / "other", tokenizer=False)


def test_language_model_in_several_bin_files(published, tmp_path):
    llm = published / "llm"
    state = dict(load_file(llm / "model.safetensors"))
    (llm / "model.safetensors").unlink()
    keys = sorted(state)
    names = {key: f"pytorch_model-0000{1 + (i % 2)}-of-00002.bin" for i, key in enumerate(keys)}
    for name in set(names.values()):
        torch.save({key: state[key] for key in keys if names[key] == name}, llm / name)
    index = llm / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    convert(published, tmp_path / "out")
    model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path / "out")
    key = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(model.language_model.state_dict()[key], state[key])
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "../elsewhere.bin")}))
    with pytest.raises(DataError, match="names files outside its folder"):
        convert(published, tmp_path / "other")


def test_an_existing_folder_is_never_overwritten(published, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(DataError, match="exists and is not an empty folder"):
        convert(published, tmp_path / "out")


def test_older_file_format_is_read(published, tmp_path):
    state = torch.load(published / "eva.pth", weights_only=True)
    torch.save(state, published / "eva.pth", _use_new_zipfile_serialization=False)
    assert convert(published, tmp_path / "out")["targets_filled"] > 0
