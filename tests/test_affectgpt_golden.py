"""AffectGPT against the numbers of the published code, on tiny random weights.

The whole model needs ../shared/golden/affectgpt; the parts written here (audio tower, branch)
are also checked from tests/data/affectgpt. Tolerances are those of the goldens' README:
stages atol 1e-5 + rtol 5e-5, logits 5e-5 + 1e-4, loss 1e-5, gradient norms 1e-3 + 1e-6.
"""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from emolib.models.affectgpt import AffectGPTForConditionalGeneration  # noqa: E402
from emolib.models.affectgpt.audio import ImageBindAudioModel  # noqa: E402
from emolib.models.affectgpt.branch import AffectGPTBranch  # noqa: E402
from emolib.models.affectgpt.convert import convert_affectgpt  # noqa: E402
from emolib.models.affectgpt.keys import route  # noqa: E402
from tests.affectgpt_tiny import DATA, golden_config  # noqa: E402
from tests.shared import shared  # noqa: E402

FILES = (
    "ckpt_audio.pth",
    "affectgpt_stage3.pth",
    "imagebind.pth",
    "eva_vit_g.pth",
    "ckpt_video.pth",
    "blip2_pretrained.pth",
)
STAGE = {"atol": 1e-5, "rtol": 5e-5}
LOGITS = {"atol": 5e-5, "rtol": 1e-4}
MODULES = {
    "vision": "vision_tower",
    "qformer": "image_qformer",
    "video_qformer": "video_branch.qformer",
    "video_proj": "video_branch.projection",
    "audio_embeds": "audio_tower",
    "audio_qformer": "audio_branch.qformer",
    "audio_proj": "audio_branch.projection",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    golden = shared("golden/affectgpt")
    dst = tmp_path_factory.mktemp("affectgpt") / "all"
    convert_affectgpt(
        [golden / name for name in FILES],
        golden / "llama",
        dst,
        config=golden_config(),
        tokenizer=False,
        shard_bytes=200_000,
    )
    return dst


def loaded(folder, attention="sdpa"):
    model = AffectGPTForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    ).eval()
    model.freeze_towers()
    return model


def inputs_of(golden, case):
    given = {k.split(".")[-1]: v for k, v in golden.items() if k.startswith(f"{case}.inputs.")}
    inputs = {k: given[k].long() for k in ("input_ids", "attention_mask", "labels")}
    inputs["pixel_values_videos"] = given["pixel_values"].float().transpose(1, 2)
    if "audio_values" in given:
        inputs["input_features"] = given["audio_values"].float()
    return inputs


def run_with_stages(model, inputs):
    stages = {}

    def keep(name):
        def hook(module, args, output):
            stages[name] = getattr(output, "last_hidden_state", output)

        return hook

    def keep_embeds(module, args, kwargs):
        stages["inputs_embeds"] = kwargs["inputs_embeds"]

    hooks = [model.get_submodule(m).register_forward_hook(keep(n)) for n, m in MODULES.items()]
    hooks.append(
        model.language_model.register_forward_pre_hook(keep_embeds, with_kwargs=True),
    )
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    return output, stages


@pytest.mark.shared
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", ["avt", "image", "vt"])
def test_every_stage_logits_and_loss(folder, case, attention):
    golden = load_file(shared("golden/affectgpt/golden.safetensors"))
    inputs = inputs_of(golden, case)
    output, stages = run_with_stages(loaded(folder, attention), inputs)
    wanted = {k.split(".")[-1]: v for k, v in golden.items() if k.startswith(f"{case}.outputs.")}
    for name in wanted.keys() - {"logits", "loss"}:
        got = stages[name].reshape(wanted[name].shape)
        torch.testing.assert_close(got, wanted[name], **STAGE, msg=lambda m, n=name: f"{n}: {m}")
    there = inputs["attention_mask"].bool()
    words = wanted["logits"].shape[-1]  # two rows more here, never to be chosen
    torch.testing.assert_close(output.logits[there][:, :words], wanted["logits"][there], **LOGITS)
    assert (output.logits[..., words:] == torch.finfo(torch.float32).min).all()
    assert output.loss.item() == pytest.approx(wanted["loss"].item(), abs=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize("case", ["avt", "image", "vt"])
def test_gradients(folder, case):
    golden = load_file(shared("golden/affectgpt/golden.safetensors"))
    norms = json.loads(shared("golden/affectgpt/golden.json").read_text())["cases"][case]["grad_l2"]
    model = loaded(folder)
    model(**inputs_of(golden, case)).loss.backward()
    ours = dict(model.named_parameters())
    for key, norm in norms.items():
        gradient = ours[route("affectgpt", key, 3).target].grad
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), key
    for key, value in golden.items():
        if key.startswith(f"{case}.grads."):
            target = route("affectgpt", key.removeprefix(f"{case}.grads."), 3).target
            torch.testing.assert_close(ours[target].grad, value, atol=1e-6, rtol=1e-3)
    with_gradient = [name for name, p in ours.items() if p.grad is not None]
    assert len(with_gradient) == len(norms)


@pytest.mark.shared
def test_the_two_branch_files_alone_are_video_llama(tmp_path):
    golden = shared("golden/affectgpt")
    report = convert_affectgpt(
        [golden / name for name in FILES if "stage3" not in name],
        golden / "llama",
        tmp_path / "video-llama",
        config=golden_config(),
        tokenizer=False,
    )
    assert report["model"] == "video-llama"
    tensors = load_file(golden / "golden.safetensors")
    output, stages = run_with_stages(loaded(tmp_path / "video-llama"), inputs_of(tensors, "avt"))
    for key, value in tensors.items():
        if key.startswith("avt.branch_ckpt_outputs."):
            name = key.split(".")[-1]
            if name == "loss":
                assert output.loss.item() == pytest.approx(value.item(), abs=1e-5)
            elif name in stages:
                torch.testing.assert_close(stages[name].reshape(value.shape), value, **STAGE)


@pytest.mark.shared
def test_the_report_accounts_for_every_tensor(folder):
    report = json.loads((folder / "conversion.json").read_text())
    truth = json.loads(shared("golden/affectgpt/golden.json").read_text())["load"]
    by_name = {entry["file"]: entry for entry in report["files"]}
    assert report["model"] == "affectgpt-2024"
    assert by_name["affectgpt_stage3.pth"]["used"] == truth["num_trainable_tensors"] == 116
    for name in ("ckpt_video.pth", "ckpt_audio.pth"):
        assert by_name[name]["used"] == 0
        assert len(by_name[name]["ignored"]["overridden by affectgpt_stage3.pth"]) == 58
    for name, keys in {**truth["ignored"], **truth["stray_buffers"]}.items():
        ignored = {key for group in by_name[name]["ignored"].values() for key in group}
        assert set(keys) <= ignored
    others = by_name["imagebind.pth"]["ignored"]["another modality"]
    assert set(others) == set(truth["imagebind_non_audio_keys"])


def test_audio_tower_from_the_small_goldens():
    tower = ImageBindAudioModel(golden_config().audio_config).eval()
    source = load_file(DATA / "imagebind_audio.safetensors")
    places = {key: route("imagebind", key, 0) for key in source}
    tower.load_state_dict(
        {
            place.target.removeprefix("audio_tower."): source[key]
            for key, place in places.items()
            if place.target
        }
    )
    stages = load_file(DATA / "audio_stages.safetensors")
    with torch.no_grad():
        got = tower(stages["mel"].float()[None])
    torch.testing.assert_close(got[0], stages["embedding"], **STAGE)


def test_audio_branch_from_the_small_goldens():
    config = golden_config()
    branch = AffectGPTBranch(config.audio_qformer_config, config.max_clips, 56).eval()
    source = load_file(DATA / "audio_branch.safetensors")
    branch.load_state_dict(
        {
            route("affectgpt", key, 0).target.removeprefix("audio_branch."): value
            for key, value in source.items()
        }
    )
    stages = load_file(DATA / "audio_stages.safetensors")
    with torch.no_grad():
        got = branch(stages["audio_embeds"][:, :, None])
    torch.testing.assert_close(got, stages["audio_proj"], **STAGE)
