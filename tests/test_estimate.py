"""Estimates at full size: every model that a stage loads is counted, by class or by weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from emolib.params.loading import project_root
from emolib.params.profiles import resolve
from emolib.rehearsal.estimate import Machine, estimate, full_size, measure

pytest.importorskip("torch")
ROOT = project_root(Path(__file__).parent)
H200 = Machine(gpu="H200", gpus=1, memory_gb=141, tflops=989)


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("InternVL3-1B-hf", 938_193_024, 629_697_920),
        ("Qwen-VL-Chat-server", 9_656_935_168, 9_656_935_168),  # remote code: a count alone
        ("clip-vit-large-patch14", 427_616_513, 427_616_513),
    ],
)
def test_sizes_are_the_published_ones(name: str, parameters: int, text: int) -> None:
    size = full_size(name)
    assert size is not None
    assert size.parameters == parameters
    assert size.text == text


@pytest.mark.parametrize("name", ["InternVL3-1B-hf", "Qwen3-VL-8B-Instruct", "affectgpt-2025"])
def test_the_file_of_sizes_is_what_the_classes_say(name: str) -> None:
    """`python -m emolib.rehearsal.estimate` writes it anew."""
    assert full_size(name) == measure(name)


def test_the_2025_design_is_its_language_model_and_small_towers() -> None:
    size, llm = full_size("affectgpt-2025"), full_size("Qwen2.5-7B-Instruct")
    assert size is not None
    assert llm is not None
    assert size.text == llm.text == 7_615_616_512
    assert size.parameters > llm.parameters


@pytest.mark.parametrize(
    ("profile", "stage", "largest"),
    [
        ("paper", "01_data_generation", "CogVLM"),
        ("paper", "06_discriminative_model", "BLOOM-7B"),
        ("affectgpt2025", "04_affectgpt_sft", "AffectGPT training"),
    ],
)
def test_servers_that_are_started_features_and_trainings_are_counted(
    profile: str, stage: str, largest: str
) -> None:
    found = estimate(stage, resolve(ROOT, profile, stage), H200)
    assert found.largest.startswith(largest)
    assert found.memory_gb > 10
    assert found.hours is not None
    assert found.hours > 0
