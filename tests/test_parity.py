"""The gate lets one model in several forms pass, and nothing else, in float32 and bfloat16."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib import parity
from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.base import Token
from emolib.engines.swift_setup import find_model, load_model
from emolib.errors import ParityError
from emolib.ledger import Ledger
from emolib.params import Decoding, ModelParams
from emolib.params.training import GateParams
from emolib.parity import Answer, compare, gate, judge, token_distances, tolerance
from emolib.predict import Prediction, predict
from tests.media_files import write_video

MODEL = ModelParams(
    model="tiny:internvl", device="cpu", batch_size=3, decoding=Decoding(max_new_tokens=12)
)


def token(text: str, **top: float) -> Token:
    """A token with the probabilities of the likely ones."""
    listed = tuple((word, math.log(p)) for word, p in sorted(top.items(), key=lambda x: -x[1]))
    return Token(text, dict(listed)[text], listed)


def answer(name: str, *tokens: Token, error: str | None = None) -> Answer:
    return Answer(name, "".join(t.text for t in tokens), tokens, error)


def steady(name: str = "c0", shift: float = 0.0, words: str = "abcd") -> Answer:
    """An answer of four tokens, each likelier than the other by far; ``shift`` in nats."""
    p = 0.8 * math.exp(-shift)
    return answer(name, *(token(w, **{w: p, "z": 0.1}) for w in words))


def forms(**more: list[Answer]) -> dict[str, list[Answer]]:
    """Base and adapter 2 nats apart, merged and served as the adapter unless given."""
    made = {"base": [steady(shift=2.0)], "adapter": [steady()]}
    return made | {"merged": [steady()], "served": [steady()]} | more


def test_tolerances_follow_from_the_type() -> None:
    assert tolerance("bfloat16") == 0.5
    assert tolerance("float16") == pytest.approx(0.0625)
    assert 1e-4 < tolerance("float32") < 1e-3
    assert tolerance("int4?") == 0.5


PROBABILITIES = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=4)


@given(tops=st.lists(PROBABILITIES, max_size=5))
def test_an_answer_is_at_no_distance_from_itself(tops: list[list[float]]) -> None:
    tokens = [token("t0", **{f"t{i}": p for i, p in enumerate(top)}) for top in tops]
    assert token_distances(tokens, tokens) == [0.0] * len(tokens)


@given(one=PROBABILITIES, other=PROBABILITIES)
def test_distance_does_not_depend_on_the_order(one: list[float], other: list[float]) -> None:
    pair = [[token("t0", **{f"t{i}": p for i, p in enumerate(top)})] for top in (one, other)]
    assert token_distances(*pair) == token_distances(*pair[::-1])


def test_tokens_are_compared_up_to_the_first_that_differs() -> None:
    one = [token("a", a=0.5, b=0.4), token("x", x=0.9), token("c", c=0.9)]
    other = [token("a", a=0.4, b=0.5), token("y", y=0.8, x=0.2), token("c", c=0.1)]
    first, second = token_distances(one, other)
    assert first == pytest.approx(math.log(0.5 / 0.4))
    assert second == pytest.approx(math.log(0.9 / 0.2))
    assert token_distances(one, []) == []


def test_unlikely_tokens_do_not_count() -> None:
    one, other = [token("a", a=0.9, b=0.009)], [token("a", a=0.9, b=0.0001)]
    assert token_distances(one, other) == [0.0]


def test_written_tokens_count_however_unlikely() -> None:
    """Untrained models spread over a vocabulary of 150,000 tokens: nothing they write is likely."""
    one, other = [token("a", a=0.0003, b=0.0001)], [token("b", b=0.0004, a=0.0001)]
    assert token_distances(one, other) == [pytest.approx(math.log(4))]


def test_one_model_passes() -> None:
    found = judge(forms(), "bfloat16")
    assert found.passed
    assert not found.reports
    assert [(a.pair, a.samples, a.identical, a.mean) for a in found.forms] == [
        ("adapter - merged", 1, 1, 0.0),
        ("adapter - served", 1, 1, 0.0),
    ]
    assert "Parity gate passed" in found.note
    assert "bfloat16 allows 0.5" in found.note


def test_a_tie_is_reported_and_stops_nothing() -> None:
    """Rounding may turn the order of two words; the rest of the answers is then different."""
    adapter = answer("c0", token("a", a=0.9), token("sad", sad=0.48, glad=0.47), token("x", x=0.9))
    merged = answer("c0", token("a", a=0.9), token("glad", sad=0.47, glad=0.48), token("y", y=0.9))
    found = judge(forms(adapter=[adapter], merged=[merged], served=[adapter]), "bfloat16")
    assert found.passed
    [report] = found.reports
    assert "adapter - merged: 1 of 1 answers part between tokens of about equal" in report
    assert "'sadx' against 'glady'" in report
    assert found.forms[0].positions == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merged": [steady(shift=0.6)]}, r"merged: c0 differs by 0.6 nats per token, bfloat16"),
        ({"served": [answer("c0", token("z", z=0.9, a=0.05))]}, r"served: c0 differs by 2.8"),
        ({"base": [steady()]}, r"the LoRA changes nothing in 1 answers"),
        ({"merged": [steady(shift=2.0)]}, r"merged: c0 differs by 2 nats"),
        ({"merged": [Answer("c0", "", (), "out of memory")]}, r"merged: c0: out of memory"),
        ({"served": [Answer("c0", "other")]}, r"served: c0 parts after ''"),
    ],
)
def test_what_is_wrong_stops_or_is_recorded(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ParityError, match=words) as caught:
        judge(forms(**change), "bfloat16")
    # what the message proposes must not repeat the training
    assert "the training is kept and found again either way" in str(caught.value)
    found = judge(forms(**change), "bfloat16", strict=False)
    assert not found.passed
    assert "FAILED" in found.note
    assert found.to_json()["faults"] == found.faults


def test_a_lost_lora_of_small_effect_is_found() -> None:
    """It is within the tolerance of the adapter, but it is the base."""
    small = forms(base=[steady(shift=0.2)])
    found = judge(small, "bfloat16")
    assert found.passed
    assert not found.reports
    lost = small | {"merged": [steady(shift=0.2)]}
    with pytest.raises(ParityError, match="merged answers as the base does .*has lost the LoRA"):
        judge(lost, "bfloat16")
    rounded = small | {"merged": [steady(shift=-0.05)]}
    assert judge(rounded, "bfloat16").passed


def test_a_lora_whose_effect_is_that_of_rounding_is_reported() -> None:
    """Rounding the merged weights may undo it; that is no fault of the merge."""
    weak = forms(base=[steady(shift=0.02)], merged=[steady(shift=0.02)])
    found = judge(weak, "bfloat16")
    assert found.passed
    assert "moves log probabilities by 0.02 nats per token, no more than rounding" in found.note
    with pytest.raises(ParityError, match="merged: c0 differs by 0.02"):
        judge(weak, "float32")


def test_one_clip_that_differs_is_not_averaged_away() -> None:
    names = [f"c{i}" for i in range(20)]
    good = [steady(name) for name in names]
    bad = [steady(name, shift=0.7 * (name == "c7")) for name in names]
    base = [steady(name, shift=2.0) for name in names]
    with pytest.raises(ParityError, match="merged: c7 differs by 0.7"):
        judge({"base": base, "adapter": good, "merged": bad}, "bfloat16")


def test_a_server_without_log_probabilities_is_compared_by_its_first_token() -> None:
    adapter = answer("c0", token("sad", sad=0.48, glad=0.47), token(" x", **{" x": 0.9}))
    for text in ("sad x", "sad y", "glad"):
        found = judge(forms(adapter=[adapter], merged=[adapter], served=[Answer("c0", text)]), "x")
        assert found.passed
    with pytest.raises(ParityError, match="served: c0 parts"):
        judge(forms(adapter=[adapter], merged=[adapter], served=[Answer("c0", "angry")]), "x")


def test_nothing_to_compare_is_no_agreement() -> None:
    with pytest.raises(ParityError, match="no clip"):
        judge({"base": [], "adapter": [], "merged": []}, "float32")
    with pytest.raises(ValueError, match="c0 against c1"):
        compare("a - b", [steady()], [steady("c1")])


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
def answers(home: Path, clips: list[Clip], adapter: Path) -> list[Prediction]:
    with (
        open_engine(MODEL, name="x", adapters=[adapter], cache=home / "models") as engine,
        Ledger(home / "ledger.jsonl") as ledger,
    ):
        return predict(clips, engine, ledger, system="s", frames=6, seed=0)


def pass_gate(
    home: Path, clips: list[Clip], adapter: Path, tuned: list[Prediction], out: Path,
    model: ModelParams = MODEL, **params: Any,
) -> Any:  # fmt: skip
    return gate(
        model, adapter, clips, tuned, GateParams(**params), out, name="x", frames=6, seed=0,
        cache=home / "models",
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lora_merged_and_served_are_one_model(
    home: Path, clips: list[Clip], adapter: Path, answers: list[Prediction], dtype: Any
) -> None:
    out = home / f"gate-{dtype}"
    model = MODEL.model_copy(update={"dtype": dtype})
    found = pass_gate(home, clips, adapter, answers, out, model, samples=2)
    assert found.passed
    merged, served = found.forms
    assert (merged.samples, served.samples) == (2, 2)
    assert merged.positions >= 2
    assert found.effect.mean > 4 * max(merged.mean, served.mean)
    assert served.mean <= found.tolerance, "log probabilities came from the server"
    assert served.positions == merged.positions
    assert (out / "serve.log").is_file()
    assert (adapter.parent / f"merged-{dtype}" / "config.json").is_file()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_that_lost_the_lora_is_caught(
    home: Path, clips: list[Clip], adapter: Path, answers: list[Prediction], dtype: Any
) -> None:
    own = home / f"lost-{dtype}" / "adapter"
    shutil.copytree(adapter, own)
    model = MODEL.model_copy(update={"dtype": dtype})
    out = home / f"lost-{dtype}"
    pass_gate(home, clips, own, answers, out, model, samples=3, served=False)
    base, _ = load_model(model, find_model(model, home / "models"), dtype)
    base.save_pretrained(own.parent / f"merged-{dtype}")
    with pytest.raises(ParityError, match="adapter - merged: "):
        pass_gate(home, clips, own, answers, out, model, samples=3, served=False)


def test_a_lora_that_is_not_applied_is_caught(
    home: Path, clips: list[Clip], adapter: Path, answers: list[Prediction]
) -> None:
    from safetensors.torch import load_file, save_file

    own = home / "idle" / "adapter"
    shutil.copytree(adapter, own)
    file = own / "adapter_model.safetensors"
    save_file({k: v * ("lora_B" not in k) for k, v in load_file(file).items()}, file)
    with pytest.raises(ParityError, match="the LoRA changes nothing in 2 answers"):
        pass_gate(home, clips, own, answers, home / "idle", samples=2, served=False)


def test_no_gate_and_clips_without_an_answer(
    home: Path, clips: list[Clip], adapter: Path, answers: list[Prediction]
) -> None:
    off = pass_gate(home, clips, adapter, answers, home / "off", samples=0)
    assert off.passed
    assert "off" in off.note
    assert not (home / "off").exists()
    broken = [replace(answers[0], status="error"), *answers[1:]]
    found = pass_gate(home, clips, adapter, broken, home / "few", samples=3, served=False)
    assert found.samples == 2
    assert parity.ALTERNATIVES <= 20
