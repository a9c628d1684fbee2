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
internvl, internvl_model = map(importlib.import_module, ("internvl", "internvl_model"))

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
    given = internvl.sample(model, batch, FRAMES, WORDS)
    tokens = given["input_ids"].shape[1]
    ours = internvl_model.flops(model, batch, FRAMES, tokens, logits=logits, causal=False)
    with torch.inference_mode():
        theirs = counted(lambda: model(**given, logits_to_keep=logits))
    assert ours.forward == theirs


def test_a_lora_step_is_counted_as_torch_counts_it(model):
    from peft import LoraConfig, get_peft_model

    given = internvl.sample(model, 2, FRAMES, WORDS)
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
    assert found["trained_parameters"] == 63488
    assert found["step_flops"] > 0
    assert found["row_s"] > 0
