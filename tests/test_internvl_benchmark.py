"""The InternVL benchmark counts what torch counts, and would run at full size."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.paths import searched_first

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "benchmarks"))
internvl, internvl_model, phases, measuring = map(
    importlib.import_module, ("internvl", "internvl_model", "internvl_phases", "measuring")
)

FRAMES, WORDS = 2, 24


@pytest.fixture(scope="module")
def model():
    return internvl_model.build(internvl_model.config_of("tiny"), "cpu", torch.float32, "eager")


def counted(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("logits", [0, 1])
def test_a_forward_pass_is_counted_as_torch_counts_it(model, batch, logits):
    given = phases.sample(model, batch, FRAMES, WORDS)
    tokens = given["input_ids"].shape[1]
    ours = internvl_model.flops(model, batch, FRAMES, tokens, logits=logits, causal=False)
    with torch.inference_mode():
        theirs = counted(lambda: model(**given, logits_to_keep=logits))
    assert ours.forward == theirs


def test_a_lora_step_is_counted_as_torch_counts_it(model):
    from peft import LoraConfig, get_peft_model

    given = phases.sample(model, 2, FRAMES, WORDS)
    targets = r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    tuned = get_peft_model(model, LoraConfig(r=8, target_modules=targets)).train()
    # as with gradient checkpointing, the first layer passes its gradient on, too
    hook = tuned.get_input_embeddings().register_forward_hook(lambda *a: a[-1].requires_grad_())
    try:
        tokens = given["input_ids"].shape[1]
        ours = internvl_model.flops(tuned, 2, FRAMES, tokens, causal=False)
        step = tuned(**given, labels=given["input_ids"])
        forward = counted(lambda: tuned(**given, labels=given["input_ids"]))
        backward = counted(step.loss.backward)
    finally:
        hook.remove()
        tuned.unload()
    assert ours.lora > 0
    assert ours.forward == forward
    assert ours.lora_step == forward + backward


def test_a_causal_mask_leaves_half_of_attention(model):
    half, whole = (internvl_model.flops(model, 2, 2, 64, causal=c) for c in (True, False))
    assert half.attention * 2 == whole.attention
    assert half.linear == whole.linear


def test_full_size_is_counted_without_weights():
    """V1.5: 25.5e9 parameters; a row of 8,192 tokens costs some 2 x 20e9 operations a token."""
    config = internvl_model.config_of("26b")
    with torch.device("meta"):
        from transformers import InternVLForConditionalGeneration

        whole = InternVLForConditionalGeneration(config)
    assert sum(w.numel() for w in whole.parameters()) == pytest.approx(25.5e9, rel=0.01)
    found = internvl_model.flops(whole, 1, 30, 8192)
    assert found.linear == pytest.approx(2 * 19.3e9 * 8192, rel=0.01)
    assert found.vision == pytest.approx(2 * 5.54e9 * 30 * 1025, rel=0.1)


def test_full_size_rows_fit_the_papers_length(tmp_path):
    """The command in the benchmark's head: six frames of five tiles and 464 words."""
    from emolib.engines.swift_setup import import_swift

    import_swift()
    from swift.model import get_model_processor
    from swift.template import get_template

    folder = internvl_model.write_folder("26b", tmp_path / "model", 4)
    rows = internvl_model.write_rows(tmp_path, "26b", 1, 6, 5, 464)
    processor = get_model_processor(str(folder), load_model=False, use_hf=True)[1]
    template = get_template(processor)
    template.set_mode("train")
    encoded = template.encode(json.loads(rows.read_text()))
    assert list(encoded["pixel_values"].shape) == [30, 3, 448, 448]
    assert 8100 < len(encoded["input_ids"]) <= 8192


def test_a_folder_with_weights_is_not_built_over(tmp_path):
    from transformers import InternVLForConditionalGeneration

    config = internvl_model.config_of("tiny")
    with internvl_model.built_on_load("cpu"), pytest.raises(ValueError, match="its own"):
        InternVLForConditionalGeneration.from_pretrained(str(tmp_path), config=config)


def test_our_training_runs_through_ms_swift(tmp_path):
    """The same code as at full size, weights made on the device included."""
    file = tmp_path / "phase.json"
    command = [sys.executable, str(REPO / "benchmarks/internvl.py"), "--phase", "lora"]
    command += ["--repeats", "1", "--frames", "1", "--accumulate", "4", "--out", str(file)]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": searched_first(REPO)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(file.read_text())
    assert found["rows_a_step"] == 4
    assert found["step_s"] >= found["computing_s"] > 0
    assert found["trained_parameters"] == 63488
    assert found["step_flops"] > 0
    assert found["row_s"] > 0


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H20", None),
    ],
)
def test_peaks_are_of_the_very_card(name, peak):
    assert measuring.peak_of(name) == peak


def test_full_width_with_few_layers():
    """The dry run before a GPU is used for the whole."""
    config = internvl_model.config_of("26b", 2)
    assert config.text_config.num_hidden_layers == config.vision_config.num_hidden_layers == 2
    assert config.text_config.hidden_size == 6144
    with torch.device("meta"):
        from transformers import InternVLForConditionalGeneration

        assert len(InternVLForConditionalGeneration(config).model.language_model.layers) == 2


def test_a_measurement_that_fails_costs_no_other_and_is_taken_again(tmp_path, monkeypatch, capsys):
    """Failing first, measured by ``--resume``; what was measured is not measured again."""
    asked, broken = [], {"batched"}

    def one(phase, limit):
        asked.append(phase)
        figures = {"clips_per_s": len(asked), "clips_per_cpu_s": 1.0, "row_s": 1.0}
        return {"error": "OutOfMemoryError: CUDA"} if phase in broken else figures

    monkeypatch.setattr(internvl, "in_a_process", one)
    out = tmp_path / "record.json"
    command = ["internvl.py", "--out", str(out), "--resume"]
    monkeypatch.setattr(sys, "argv", command)
    assert internvl.main() == 1
    record = json.loads(out.read_text())
    assert asked == list(phases.PHASES)
    assert record["batched"] == {"error": "OutOfMemoryError: CUDA"}
    assert record["ratios"] == {"ours_over_swift_defaults": 1.0}
    broken.clear()
    assert internvl.main() == 0
    record = json.loads(out.read_text())
    assert asked == [*phases.PHASES, "batched"]
    assert record["ratios"]["batched_over_one_by_one"] == 5.0
    monkeypatch.setattr(sys, "argv", [*command, "--batch", "2"])
    with pytest.raises(SystemExit, match="other settings"):
        internvl.main()
    capsys.readouterr()


def test_a_measurement_tells_its_fault(monkeypatch, capfd):
    def out_of_memory(args):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(internvl, "measure", out_of_memory)
    found = internvl.attempt(internvl.parser().parse_args([]))
    assert found == {"error": "OutOfMemoryError: CUDA out of memory."}
    assert "Tried to allocate" in capfd.readouterr().err
    monkeypatch.setenv("PYTHONPATH", searched_first(REPO))
    monkeypatch.setattr(sys, "argv", ["internvl.py", "--tiles", "3"])
    assert "exit code 2" in internvl.in_a_process("lora", 60)["error"]
    assert internvl.in_a_process("lora", 0.01) == {"error": "took longer than 0.01 s"}
