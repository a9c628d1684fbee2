"""The gate lets equal answers pass, and nothing else; a real LoRA goes through every form."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.swift_setup import find_model, load_model
from emolib.errors import ParamsError, ParityError
from emolib.labels import parse_labels
from emolib.ledger import Ledger
from emolib.params import Decoding, ModelParams
from emolib.params.training import GateParams
from emolib.parity import compare, gate, judge, tokenizer_of
from emolib.predict import Prediction, predict
from tests.media_files import write_video

MODEL = ModelParams(
    model="tiny:internvl", device="cpu", batch_size=3, decoding=Decoding(max_new_tokens=12)
)


def row(name: str, text: str, error: str | None = None) -> Prediction:
    labels = parse_labels(text)
    return Prediction(
        name, "s", labels.labels, text, labels.status, "error" if error else "ok", error, "", {},
        "stop", 0.0, {},
    )  # fmt: skip


def letters(text: str) -> list[str]:
    return list(text)


def agreement(left: list[str], right: list[str]) -> Any:
    names = [f"c{i}" for i in range(len(left))]
    rows = ([row(n, t) for n, t in zip(names, texts, strict=True)] for texts in (left, right))
    return compare("a - b", *rows, letters)


WORDS = st.lists(st.text('abc[]"', max_size=6), min_size=1, max_size=5)


@given(texts=WORDS)
def test_equal_answers_agree_however_strict(texts: list[str]) -> None:
    same = agreement(texts, texts)
    assert (same.identical, same.same_labels, same.first) == (len(texts), len(texts), None)
    assert same.agrees(0)
    assert same.agrees(9)


@given(texts=WORDS, more=st.text("xyz", min_size=1, max_size=3), data=st.data())
def test_the_first_different_token_decides(texts: list[str], more: str, data: Any) -> None:
    i = data.draw(st.integers(0, len(texts) - 1))
    at = data.draw(st.integers(0, len(texts[i])))
    other = list(texts)
    other[i] = texts[i][:at] + more + texts[i][at:]
    found = agreement(texts, other)
    [difference] = found.differences
    assert (difference.name, difference.token) == (f"c{i}", at)
    assert difference.right.startswith(more)
    assert difference.left == texts[i][at : at + 6]
    assert found.identical == len(texts) - 1
    assert not found.agrees(0)
    assert found.agrees(at) == (at > 0)
    assert not found.agrees(at + 1)


def test_an_error_is_never_agreement() -> None:
    found = compare("a - b", [row("c", "x")], [row("c", "", "out of memory")], letters)
    assert (found.identical, found.first) == (0, 0)
    assert found.differences[0].right == "error: out of memory"
    both = compare("a - b", [row("c", "", "gone")], [row("c", "", "gone")], letters)
    assert not both.agrees(1)


def test_only_the_same_clips_are_compared() -> None:
    with pytest.raises(ValueError, match="c against d"):
        compare("a - b", [row("c", "x")], [row("d", "x")], letters)
    with pytest.raises(ValueError, match="shorter|longer"):
        compare("a - b", [row("c", "x")], [], letters)


@pytest.mark.parametrize(
    ("base", "merged", "words"),
    [
        ("sad", "glad and sorry", r"c0 parts at token 9: 'happy' against 'sorry'"),
        ("glad and happy", "glad and happy", "changes none of 1 answers"),
    ],
)
def test_what_is_wrong_stops_or_is_recorded(base: str, merged: str, words: str) -> None:
    tuned = ["glad and happy"]
    effect, form = agreement([*tuned], [base]), agreement(tuned, [merged])
    with pytest.raises(ParityError, match=words):
        judge(effect, [form], GateParams())
    found = judge(effect, [form], GateParams(strict=False))
    assert not found.passed
    assert "FAILED" in found.note
    assert found.to_json()["faults"] == found.faults


def test_rounding_may_part_late_answers_when_told_so() -> None:
    effect = agreement(["glad and happy"], ["sad"])
    form = agreement(["glad and happy"], ["glad and sorry"])
    assert judge(effect, [form], GateParams(tokens=9)).passed
    with pytest.raises(ParityError, match="token 9"):
        judge(effect, [form], GateParams(tokens=10))


def test_nothing_to_compare_is_no_agreement() -> None:
    with pytest.raises(ParityError, match="no clip"):
        judge(agreement([], []), [agreement([], [])], GateParams())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def clips(home: Path) -> list[Clip]:
    return [Clip(f"c{i}", write_video(home / f"c{i}.mp4", 20 + i)) for i in range(3)]


@pytest.fixture(scope="module")
def adapter(home: Path) -> Path:
    """A LoRA with random weights: it changes answers without any training."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, _ = load_model(MODEL, find_model(MODEL, home / "models"), "float32")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q|v|up)_proj")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tuned = get_peft_model(model, config)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    tuned.save_pretrained(home / "adapter")
    return home / "adapter"


@pytest.fixture(scope="module")
def answers(home: Path, clips: list[Clip], adapter: Path) -> list[list[Prediction]]:
    made = []
    for adapters in ([], [adapter]):
        with (
            open_engine(MODEL, name="x", adapters=adapters, cache=home / "models") as engine,
            Ledger(home / "ledger.jsonl") as ledger,
        ):
            made.append(predict(clips, engine, ledger, system="s", frames=6, seed=0))
    return made


def pass_gate(
    home: Path, clips: list[Clip], adapter: Path, answers: list[list[Prediction]], out: Path,
    **params: Any,
) -> Any:  # fmt: skip
    return gate(
        MODEL, adapter, clips, *answers, GateParams(**params), out, name="x", frames=6, seed=0,
        cache=home / "models",
    )  # fmt: skip


def test_lora_merged_and_served_answer_alike(
    home: Path, clips: list[Clip], adapter: Path, answers: list[list[Prediction]]
) -> None:
    out = home / "gate"
    found = pass_gate(home, clips, adapter, answers, out, samples=2)
    assert found.passed
    assert [(a.pair, a.samples, a.identical) for a in found.forms] == [
        ("adapter - merged", 2, 2),
        ("adapter - served", 2, 2),
    ]
    assert found.effect.identical < 2
    assert "2 of 2 identical" in found.note
    assert (out / "serve.log").is_file()
    [merged] = out.glob("merged-*")
    text = 'The brow is low, 皱眉 😀. ["angry"]'
    assert "".join(tokenizer_of(merged)(text)) == text


def test_a_merge_that_lost_the_lora_is_caught(
    home: Path, clips: list[Clip], adapter: Path, answers: list[list[Prediction]]
) -> None:
    pass_gate(home, clips, adapter, answers, home / "lost", samples=3, served=False)
    [merged] = (home / "lost").glob("merged-*")
    base = find_model(MODEL, home / "models").path
    shutil.copy2(base / "model.safetensors", merged / "model.safetensors")
    with pytest.raises(ParityError, match="adapter - merged: c"):
        pass_gate(home, clips, adapter, answers, home / "lost", samples=3, served=False)


def test_no_gate_and_sampled_answers(
    home: Path, clips: list[Clip], adapter: Path, answers: list[list[Prediction]]
) -> None:
    off = pass_gate(home, clips, adapter, answers, home / "off", samples=0)
    assert off.passed
    assert "off" in off.note
    assert not (home / "off").exists()
    warm = MODEL.model_copy(update={"decoding": Decoding(temperature=0.5)})
    with pytest.raises(ParamsError, match="greedy"):
        gate(warm, adapter, clips, *answers, GateParams(), home, name="x", frames=6, seed=0)
