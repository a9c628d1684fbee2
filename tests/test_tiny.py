"""Tiny checkpoints load like published ones and are the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolib.engines.tiny import FAMILIES, IMAGE_SIZE, build_tiny, tiny_folder
from emolib.errors import ParamsError


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny(request.param, tmp_path_factory.mktemp("tiny") / request.param)


def _family(checkpoint: Path) -> str:
    return checkpoint.name


def test_same_seed_same_bytes_other_seed_other_weights(checkpoint: Path, tmp_path: Path) -> None:
    again = build_tiny(_family(checkpoint), tmp_path / "again")
    other = build_tiny(_family(checkpoint), tmp_path / "other", seed=1)
    names = sorted(f.name for f in checkpoint.iterdir())
    assert names == sorted(f.name for f in again.iterdir())
    for name in names:
        assert (checkpoint / name).read_bytes() == (again / name).read_bytes(), name
        same = (checkpoint / name).read_bytes() == (other / name).read_bytes()
        assert same == (name != "model.safetensors"), name


def test_building_leaves_the_global_random_state_alone(checkpoint: Path, tmp_path: Path) -> None:
    import torch

    before = torch.random.get_rng_state()
    build_tiny(_family(checkpoint), tmp_path / "x")
    assert torch.equal(before, torch.random.get_rng_state())


def test_model_sees_the_image_and_the_words(checkpoint: Path) -> None:
    if _family(checkpoint) == "qwen2audio" or _family(checkpoint).startswith("affectgpt"):
        return  # tests/test_sft.py and tests/test_baseline_models.py ask them in their own way
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert sum(p.numel() for p in model.parameters()) < 500_000

    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(2)]

    def logits(image: np.ndarray, words: str) -> torch.Tensor:
        content = [{"type": "image"}, {"type": "text", "text": words}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(images=[image], text=text, return_tensors="pt")
        placeholders = int((inputs["input_ids"] == processor.image_token_id).sum())
        assert placeholders == {"internvl": 4, "llava": 16}[_family(checkpoint)]
        assert inputs["pixel_values"].shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
        with torch.inference_mode():
            return model(**inputs).logits[0, -1]

    base = logits(images[0], "happy")
    assert torch.equal(base, logits(images[0], "happy"))
    assert not torch.allclose(base, logits(images[1], "happy"), atol=1e-3)
    assert not torch.allclose(base, logits(images[0], "sad"), atol=1e-3)


def test_tokenizer_round_trips_any_text(checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    normal = tokenizer.backend_tokenizer.normalizer  # Qwen2's brings text to NFC

    @settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def round_trips(text: str) -> None:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == (normal.normalize_str(text) if normal else text)

    round_trips()
    answer = '["happy", "joyful", "excited"]'
    assert len(tokenizer(answer, add_special_tokens=False)["input_ids"]) < len(answer) / 2


def test_unknown_family_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"'gpt'.*internvl.*llava"):
        build_tiny("gpt", tmp_path / "x")
    with pytest.raises(ParamsError, match="gpt"):
        tiny_folder("gpt", tmp_path)


def test_nothing_is_overwritten_and_nothing_half_built_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileExistsError):
        build_tiny("internvl", tmp_path / "taken")

    def broken(folder: Path, seed: int) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("disk full")

    monkeypatch.setitem(FAMILIES, "internvl", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        build_tiny("internvl", tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_cache_builds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny_folder("internvl", tmp_path)
    monkeypatch.setitem(FAMILIES, "internvl", lambda folder, seed: pytest.fail("built twice"))
    assert tiny_folder("internvl", tmp_path) == first
