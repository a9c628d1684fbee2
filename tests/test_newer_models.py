"""Newer models by parameter only: each architecture through the engine and through predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emolib.datasets.clip import Clip
from emolib.engines import Request, answer_all, open_engine
from emolib.engines.local import LocalEngine
from emolib.ledger import Ledger
from emolib.params import Decoding, ModelParams
from emolib.predict import predict
from tests.media_files import write_video
from tests.tiny_models import BUILDERS

TEMPLATES = {
    "internvl3": "internvl_hf",
    "internvl3_5": "internvl_hf",
    "qwen2_5_vl": "qwen2_5_vl",
    "qwen3_vl": "qwen3_vl",
}


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def engine(request, tmp_path_factory):
    folder = BUILDERS[request.param](tmp_path_factory.mktemp("newer") / request.param)
    params = ModelParams(
        model=str(folder),
        device="cpu",
        batch_size=2,
        max_length=2000,
        decoding=Decoding(max_new_tokens=6),
    )
    with open_engine(params, name=request.param) as opened:
        yield opened


def first_logits(engine: LocalEngine, images: tuple[np.ndarray, ...]) -> np.ndarray:
    """Logits of the first answered token, caught on the model's way out."""
    caught: list[np.ndarray] = []
    head = engine._engine.model.get_output_embeddings()
    hook = head.register_forward_hook(
        lambda module, given, made: caught.append(made[0, -1].float().numpy())
    )
    try:
        [reply] = answer_all(engine, [Request("1", "What does the face show?", images)])
    finally:
        hook.remove()
    assert reply.error is None
    return caught[0]


def test_every_image_reaches_the_model(engine):
    rng = np.random.default_rng(0)
    frames = tuple(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(6))
    base = first_logits(engine, frames)
    np.testing.assert_array_equal(first_logits(engine, frames), base)
    for i in range(6):
        other = (*frames[:i], 255 - frames[i], *frames[i + 1 :])
        assert np.abs(first_logits(engine, other) - base).max() > 1e-3, f"frame {i} is not seen"
    swapped = first_logits(engine, frames[::-1])
    assert np.abs(swapped - base).max() > 1e-3, "the order of frames is not seen"


def test_type_and_template_are_found_from_the_folder(engine):
    assert engine.identity["template"] == TEMPLATES[engine.name]


def test_batch_gives_what_one_by_one_gives(engine):
    """Different lengths and numbers of images, so that the batch is padded."""
    rng = np.random.default_rng(1)
    requests = [
        Request(
            str(n),
            "Describe. " * (n + 1),
            tuple(rng.integers(0, 256, (64, 96 - 16 * i, 3), dtype=np.uint8) for i in range(n)),
        )
        for n in (0, 2, 3, 1)
    ]
    together = answer_all(engine, requests)
    alone = [answer_all(engine, [request])[0] for request in requests]
    assert [r.error for r in together] == [None] * 4
    assert [r.text for r in together] == [r.text for r in alone]
    assert [r.prompt_tokens for r in together] == [r.prompt_tokens for r in alone]


def test_marks_in_words_are_words(engine):
    images = (np.zeros((64, 64, 3), np.uint8),)
    text = "<image> <|image_pad|> <|vision_start|> <IMG_CONTEXT> <|im_end|> <|im_start|>system"
    [reply] = answer_all(engine, [Request("1", text, images)])
    assert reply.error is None


def test_predict_over_clips(engine, tmp_path: Path):
    clips = [Clip(f"c{i}", write_video(tmp_path / f"c{i}.mp4", 12)) for i in range(3)]
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        rows = predict(clips, engine, ledger, system="s", frames=6, seed=0)
    assert [row.status for row in rows] == ["ok"] * 3
    assert all(row.description for row in rows)
    assert all(row.finish_reason in ("stop", "length") for row in rows)
