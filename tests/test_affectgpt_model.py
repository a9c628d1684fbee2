"""The AffectGPT model's promises: batching, missing modalities, freezing, training, files."""

from __future__ import annotations

import json
import socket

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as mp  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoProcessor  # noqa: E402

from emolib.models.affectgpt import (  # noqa: E402
    AffectGPTConfig,
    AffectGPTForConditionalGeneration,
)
from emolib.models.affectgpt.modeling import FROZEN, TRAINED  # noqa: E402
from emolib.models.affectgpt.prompts import AUDIO, VIDEO  # noqa: E402
from tests.affectgpt_tiny import clip, sound, tiny_config, tiny_model, tiny_processor  # noqa: E402

# A still, two videos, audio only, text only: every kind of sample in one batch.
SAMPLES = (
    {"video": clip(1), "audio": sound(1), "subtitle": "Go away."},
    {"video": None, "audio": sound(2), "subtitle": None},
    {"video": clip(3)[0], "audio": None, "subtitle": ""},
    {"video": None, "audio": None, "subtitle": "I see."},
    {"video": clip(5, 12), "audio": None, "subtitle": None},
)
ANSWERS = ("anger", "calm, sad", "joy", "doubt and more", "fear")


def batch_of(processor, samples, answers=None, **kwargs):
    texts = [
        processor.prompt(
            "train-2024",
            video=sample["video"] is not None,
            audio=sample["audio"] is not None,
            subtitle=sample["subtitle"],
            question="Why?",
        )
        for sample in samples
    ]
    return processor(
        texts,
        videos=[sample["video"] for sample in samples],
        audio=[sample["audio"] for sample in samples],
        answers=answers,
        **kwargs,
    )


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_config())


def test_full_size_parameters_and_the_papers_trainable_set():
    with torch.device("meta"):
        model = AffectGPTForConditionalGeneration(AffectGPTConfig())
    trained = model.freeze_towers()
    sizes = {n: sum(p.numel() for p in c.parameters()) for n, c in model.named_children()}
    assert len(trained) == 116
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 44_959_744
    assert sizes["audio_tower"] == 86_235_648
    # The library keeps one bias for query, key and value; the published file has no key third.
    assert sizes["vision_tower"] == 985_894_528 + 39 * 1408 + 2 * 1408
    assert sizes["image_qformer"] == 105_137_664 + 32 * 768


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_mixed_batch_equals_its_samples(processor, side):
    model = tiny_model()
    batch = batch_of(processor, SAMPLES, ANSWERS, padding_side=side)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        together = model(**batch, position_ids=positions).logits
        for row, (sample, answer) in enumerate(zip(SAMPLES, ANSWERS, strict=True)):
            alone = model(**batch_of(processor, [sample], [answer])).logits[0]
            there = batch["attention_mask"][row].bool()
            torch.testing.assert_close(together[row][there], alone, atol=2e-5, rtol=1e-4)


def test_the_batch_loss_is_the_mean_over_its_tokens(processor):
    model = tiny_model()
    with torch.no_grad():
        together = model(**batch_of(processor, SAMPLES, ANSWERS)).loss
        losses, tokens = [], []
        for sample, answer in zip(SAMPLES, ANSWERS, strict=True):
            one = batch_of(processor, [sample], [answer])
            losses.append(model(**one).loss)
            tokens.append((one["labels"] != -100).sum())
    weights = torch.stack(tokens).double()
    expected = (torch.stack(losses) * weights).sum() / weights.sum()
    assert together.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}])
def test_generating_a_batch_equals_generating_one_by_one(processor, how):
    model = tiny_model(std=0.4)
    batch = batch_of(processor, SAMPLES)
    assert batch["attention_mask"][1, 0] == 0, "prompts are padded on the left"
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None} | how
    length = batch["input_ids"].shape[1]
    together = model.generate(**batch, **settings)[:, length:]
    for row, sample in enumerate(SAMPLES):
        one = batch_of(processor, [sample])
        alone = model.generate(**one, **settings)[0, one["input_ids"].shape[1] :]
        assert together[row].tolist() == alone.tolist()
    uncached = model.generate(**batch, **settings, use_cache=False)[:, length:]
    assert uncached.tolist() == together.tolist()


def test_every_modality_matters(processor):
    model = tiny_model()
    base = {"video": clip(1), "audio": sound(1), "subtitle": "Go."}
    with torch.no_grad():
        first = model(**batch_of(processor, [base])).logits[0, -1]
        for change in ({"video": clip(2)}, {"audio": sound(2)}, {"subtitle": "Ga."}):
            other = model(**batch_of(processor, [base | change])).logits[0, -1]
            assert (first - other).abs().max() > 1e-4, change


def test_stop_string_ends_every_row(processor):
    model = tiny_model()
    stop = processor.tokenizer.convert_tokens_to_ids("#")
    # Every final state is made the same, and only "#" answers to it.
    with torch.no_grad():
        model.language_model.model.norm.weight.zero_()
    head = model.get_output_embeddings()

    def only_stop(module, args, output):
        output[..., stop] = 10.0
        return output

    head.register_forward_hook(only_stop)
    batch = batch_of(processor, SAMPLES[:2])
    length = batch["input_ids"].shape[1]
    out = model.generate(**batch, max_new_tokens=50, **processor.stopping())
    assert out.shape[1] - length == 3
    assert processor.decode_answers(out, length) == ["", ""]


def test_placeholders_are_never_generated(processor):
    model = tiny_model()
    with torch.no_grad():
        logits = model(**batch_of(processor, SAMPLES[:1])).logits
    for token in (model.config.video_token_id, model.config.audio_token_id):
        assert logits[..., token].softmax(-1).isfinite().all()
        assert (logits.softmax(-1)[..., token] == 0).all()


def test_media_and_placeholders_must_match(processor):
    model = tiny_model()
    batch = batch_of(processor, SAMPLES)
    without = {k: v for k, v in batch.items() if k != "input_features"}
    with pytest.raises(ValueError, match=r"0 audio inputs need 0 runs.*hold 4 in 2 runs"):
        model(**without)
    ids = batch["input_ids"].clone()
    ids[ids == model.config.video_token_id] = 5
    with pytest.raises(ValueError, match="3 video inputs"):
        model(**{**batch, "input_ids": ids})
    with pytest.raises(ValueError, match="exactly one"):
        model()


def test_too_many_frames_are_refused(processor):
    model = tiny_model()
    pixels = torch.zeros(1, model.config.max_frames + 1, 3, 28, 28)
    with pytest.raises(ValueError, match="at most 32 have a position"):
        model.get_video_features(pixels)


def test_frozen_parts_never_change_nor_leave_evaluation_mode(processor):
    torch.manual_seed(0)
    model = tiny_model()
    model.freeze_towers()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.train()
    for name in FROZEN:
        assert not any(module.training for module in model.get_submodule(name).modules())
    assert all(model.get_submodule(name).training for name in TRAINED if hasattr(model, name))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model(**batch_of(processor, SAMPLES, ANSWERS)).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name])
        # Key biases of the Q-Formers cancel in the softmax: weight decay alone moves zeros not.
        assert same is not name.startswith(TRAINED) or "key.bias" in name, name


def test_frozen_towers_keep_no_graph(processor):
    model = tiny_model()
    model.freeze_towers()
    model.train()
    batch = batch_of(processor, SAMPLES)
    assert not model.encode_frames(batch["pixel_values_videos"], batch["video_mask"]).requires_grad
    assert not model.encode_clips(batch["input_features"]).requires_grad


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(processor, reentrant):
    model = tiny_model()
    for module in model.modules():  # so that both passes see the same
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("video", "audio"):
        getattr(model.config, f"{name}_qformer_config").attention_probs_dropout_prob = 0.0
        for module in model.get_submodule(f"{name}_branch").modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
    model.freeze_towers()
    batch = batch_of(processor, SAMPLES, ANSWERS)

    def gradients():
        model.zero_grad()
        model(**batch).loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    model.train()
    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    layer = model.language_model.model.layers[0]
    calls = []
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    recomputed = gradients()
    assert len(calls) == 2, "the language model's blocks are computed again in the backward pass"
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-6, rtol=1e-4)
    assert not layer.self_attn.training


def test_an_absent_modality_gives_zero_gradients_in_training_only(processor):
    model = tiny_model()
    model.freeze_towers()
    text_only = batch_of(processor, [SAMPLES[3]], [ANSWERS[3]])
    evaluated = model(**text_only).loss
    assert not evaluated.requires_grad
    model.train()
    loss = model(**text_only).loss
    assert loss.item() == pytest.approx(evaluated.item(), abs=1e-6)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() == 0


def test_overfits_eight_samples():
    model = tiny_model(hidden_size=128, intermediate_size=256)
    processor = tiny_processor(model.config)
    model.freeze_towers()
    words = list("abcdefgh")
    media = {
        "text": [VIDEO + AUDIO if i % 2 else VIDEO for i in range(8)],
        "videos": [clip(i) for i in range(8)],
        "audio": [sound(i) if i % 2 else None for i in range(8)],
    }
    batch = processor(**media, answers=words)
    frames = model.encode_frames(batch.pop("pixel_values_videos"))
    clips = model.encode_clips(batch.pop("input_features"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=4e-3)
    for _ in range(400):  # in evaluation mode: no dropout
        optimizer.zero_grad()
        loss = model(**batch, frame_features=frames, clip_features=clips).loss
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05
    asked = processor(**media)
    out = model.generate(**asked, max_new_tokens=10, **processor.stopping())
    assert processor.decode_answers(out, asked["input_ids"].shape[1]) == words


def test_features_of_frozen_towers_can_be_given_instead_of_media(processor):
    model = tiny_model()
    batch = batch_of(processor, SAMPLES, ANSWERS)
    with torch.no_grad():
        direct = model(**batch)
        frames = model.encode_frames(batch.pop("pixel_values_videos"), batch["video_mask"])
        clips = model.encode_clips(batch.pop("input_features"))
        cached = model(**batch, frame_features=frames, clip_features=clips)
    assert torch.equal(direct.logits, cached.logits)


def test_saved_folder_loads_by_the_auto_classes(processor, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert isinstance(again, AffectGPTForConditionalGeneration)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.audio_qformer_config.num_query_tokens == 2
    assert config.suppressed_token_ids == model.config.suppressed_token_ids
    batch = batch_of(AutoProcessor.from_pretrained(tmp_path), SAMPLES, ANSWERS)
    with torch.no_grad():
        wanted = model(**batch_of(processor, SAMPLES, ANSWERS)).logits
        assert torch.equal(again(**batch).logits, wanted)
    dumped = json.loads((tmp_path / "processor_config.json").read_text())
    assert dumped["video_tokens"] == 4


def test_half_precision_keeps_the_trained_parts_in_full(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = AffectGPTForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    types = {name: {p.dtype for p in c.parameters()} for name, c in model.named_children()}
    for name in ("image_qformer", *TRAINED[:2]):
        assert types[name] == {torch.float32}
    for name in ("vision_tower", "audio_tower", "language_model"):
        assert types[name] == {torch.bfloat16}
    processor = tiny_processor(model.config)
    model.freeze_towers()
    model(**batch_of(processor, SAMPLES, ANSWERS)).loss.backward()


@pytest.mark.parametrize("offloaded", [["language_model"], ["image_qformer", *TRAINED[:2]], None])
def test_device_map_with_offloading(processor, tmp_path, offloaded):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model", max_shard_size="100KB")
    names = ("vision_tower", "audio_tower", "image_qformer", *TRAINED[:2], "language_model")
    where = {"device_map": "auto", "max_memory": {"cpu": 250_000}}  # the rest goes to the disk
    if offloaded is not None:
        where = {"device_map": {n: "disk" if n in offloaded else "cpu" for n in names}}
    spread = AffectGPTForConditionalGeneration.from_pretrained(
        tmp_path / "model", dtype=torch.float32, offload_folder=tmp_path / "offload", **where
    ).eval()
    assert "disk" in spread.hf_device_map.values()
    batch = batch_of(processor, SAMPLES)
    with torch.no_grad():
        torch.testing.assert_close(spread(**batch).logits, model(**batch).logits)


def test_any_language_model_also_with_tied_embeddings(processor, tmp_path):
    model = tiny_model(model_type="qwen2", tie_word_embeddings=True)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embedding.weight is head.weight
    model.save_pretrained(tmp_path)
    again = AffectGPTForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
    batch = batch_of(processor, SAMPLES)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_flash_attention_is_asked_of_the_parts_that_have_it():
    model = tiny_model()
    assert model.image_qformer.get_correct_attn_implementation("flash_attention_2") == "sdpa"
    config = tiny_config()
    for name in ("image", "video", "audio"):
        getattr(config, f"{name}_qformer_config")._attn_implementation = "flash_attention_2"
    again = AffectGPTForConditionalGeneration(config)
    assert again.video_branch.qformer.config._attn_implementation == "sdpa"


def test_flash_attention_is_called_by_towers_and_language_model_alone(
    processor, tmp_path, monkeypatch
):
    """No GPU and no flash-attn: what stands in its place notes who asks, and computes by SDPA."""
    from transformers import modeling_utils

    asked = []

    def recorder(module, query, key, value, attention_mask, **kwargs):
        asked.append(module)
        assert attention_mask is None  # nothing is padded
        return modeling_utils.ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, **kwargs
        )

    def can_dispatch(self, **_):
        assert self._supports_flash_attn, f"flash attention asked of {type(self).__name__}"

    monkeypatch.setattr(modeling_utils.PreTrainedModel, "_flash_attn_can_dispatch", can_dispatch)
    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", lambda *_, **__: None)
    monkeypatch.setattr(modeling_utils, "is_kernels_available", lambda: False)
    monkeypatch.setitem(modeling_utils.ALL_ATTENTION_FUNCTIONS, "flash_attention_2", recorder)
    tiny_model().save_pretrained(tmp_path)
    load = AffectGPTForConditionalGeneration.from_pretrained
    plain = load(tmp_path, dtype=torch.float32).eval()
    flash = load(tmp_path, dtype=torch.float32, attn_implementation="flash_attention_2").eval()
    batch = batch_of(processor, SAMPLES[:1])
    with torch.no_grad():
        wanted = plain(**batch).logits
        assert not asked
        torch.testing.assert_close(flash(**batch).logits, wanted)
    names = {module: name for name, module in flash.named_modules()}
    assert {names[module].split(".")[0] for module in asked} == {
        "vision_tower",
        "audio_tower",
        "language_model",
    }
    kinds = {type(module) for module in asked}
    assert {module for module in flash.modules() if type(module) in kinds} == set(asked)


def test_towers_must_fit_each_other():
    settings = tiny_config().to_dict()
    settings["audio_config"]["output_size"] = 13
    with pytest.raises(ValueError, match=r"audio_qformer_config.encoder_hidden_size is 12"):
        AffectGPTConfig.from_dict(settings)


def _rank(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = tiny_model()
    model.freeze_towers()
    model.train()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    processor = tiny_processor(model.config)
    # Rank 1 never has audio, and in its second step no video either.
    steps = [[0, 1], [0, 1]] if rank == 0 else [[2, 4], [3, 3]]
    for rows in steps:
        optimizer.zero_grad()
        batch = batch_of(processor, [SAMPLES[i] for i in rows], [ANSWERS[i] for i in rows])
        parallel(**batch).loss.backward()
        optimizer.step()
    torch.save({n: p.detach() for n, p in model.named_parameters()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_of_which_one_lacks_audio(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, args=(port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    start = dict(tiny_model().named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in first)
    changed = [name for name in first if not torch.equal(first[name], start[name])]
    assert any(name.startswith("audio_branch") for name in changed)
    assert all(name.startswith(TRAINED) for name in changed)
