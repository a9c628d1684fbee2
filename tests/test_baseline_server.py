"""Server recipes against a server that speaks the protocol, with pictures and sound, and faults."""

from __future__ import annotations

import base64
import io
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib import prompts
from emolib.baselines.run import Ran, run_systems
from emolib.datasets.clip import Clip
from emolib.errors import EngineError
from emolib.files import write_jsonl
from emolib.ledger import Ledger
from emolib.media.audio import read_audio
from emolib.media.video import sample_frames
from emolib.params import ModelParams
from emolib.params.baselines import Recipe
from tests.media_files import tone, write_video
from tests.test_server_engine import Server, hang_up, send, server, stop_half_way

__all__ = ["server"]  # the fixture

KEY = "sk-never-to-be-seen-anywhere-0123456789"


def say_nothing(handler: Any) -> None:
    handler.server.gate.wait(20)


@pytest.fixture(autouse=True)
def _gate(server: Server) -> Iterator[None]:
    server.gate = threading.Event()  # type: ignore[attr-defined]
    yield
    server.gate.set()  # type: ignore[attr-defined]


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    video = write_video(tmp_path / "a.mp4", 30, audio=tone(1.2)[None])
    return [Clip("a", video, subtitle="Where have you been?")]


def recipe(server: Server, **changes: Any) -> Recipe:
    model = ModelParams(
        engine="server", model="m", base_url=server.url, timeout_s=30, retries=0, concurrency=1
    )
    return Recipe(
        title="GPT-4V-like",
        inputs=("frames", "audio", "words"),
        model=model.model_copy(update=changes),
    )


@pytest.fixture
def run(clips: list[Clip], tmp_path: Path) -> Callable[..., Ran]:
    def _run(one: Recipe) -> Ran:
        with Ledger(tmp_path / "ledger.jsonl") as ledger:
            ran = run_systems(clips, {"gpt": one}, {}, ledger)
        for rows in ran.predictions.values():
            write_jsonl(tmp_path / "predictions.jsonl", (row.to_json() for row in rows))
        return ran

    return _run


def test_frames_sound_and_words_arrive_as_the_protocol_says(
    server: Server, clips: list[Clip], run: Callable[..., Ran]
) -> None:
    [row] = run(recipe(server)).predictions["gpt"]
    assert (row.status, row.labels, row.description) == ("ok", ("happy",), '["happy"]')
    [message] = server.seen[0].body["messages"]
    *media, text = message["content"]
    assert [part["type"] for part in media] == ["image_url"] * 6 + ["input_audio"]
    frames = sample_frames(clips[0].video, 6, seed=0, name="a").frames
    for part, frame in zip(media[:6], frames, strict=True):
        head, data = part["image_url"]["url"].split(",", 1)
        assert head == "data:image/png;base64"
        assert np.array_equal(_pixels(data), frame.image)
    sound = media[6]["input_audio"]
    assert sound["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(sound["data"]))) as wav:
        assert (wav.getnchannels(), wav.getframerate()) == (1, 16_000)
        heard = np.frombuffer(wav.readframes(wav.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(heard, read_audio(clips[0].video), atol=1e-4)
    assert "Where have you been?" in text["text"]
    assert "acoustic information" in text["text"]


def _pixels(data: str) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize(
    ("trouble", "told", "passing"),
    [
        (send(401, {"error": {"message": f"wrong key {KEY}"}}), "HTTP 401", True),
        (send(429, {"error": "slow down"}, Retry_After="300"), "HTTP 429", True),
        (say_nothing, "no answer within 0.2 s", True),
        (hang_up, "connection failed", True),
        (stop_half_way, "connection failed", True),
        (send(200, b"<html>maintenance</html>"), "not JSON", True),
        (send(200, {"choices": []}), "no choices", False),
        (send(200, {"choices": [{"message": {"content": ""}}]}), "empty", False),
        (send(400, {"error": {"message": "no audio here"}}), "no audio here", False),
    ],
    ids=[
        "wrong-key",
        "429",
        "time-out",
        "cut",
        "cut-stream",
        "rubbish",
        "empty-choices",
        "nothing",
        "refused",
    ],
)
def test_trouble_is_a_row_error_and_what_may_pass_is_asked_again(
    trouble: Callable[[Any], None],
    told: str,
    passing: bool,
    server: Server,
    run: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    server.plan = [trouble]
    limit = 0.2 if trouble is say_nothing else 30.0
    [row] = run(recipe(server, api_key_env="SOME_KEY", timeout_s=limit)).predictions["gpt"]
    assert (row.status, row.labels) == ("error", ())
    assert told in (row.error or "")
    assert server.seen[0].headers["Authorization"] == f"Bearer {KEY}"
    [row] = run(recipe(server, api_key_env="SOME_KEY")).predictions["gpt"]
    assert (row.status == "ok") == passing
    for file in tmp_path.rglob("*.jsonl"):
        assert KEY not in file.read_text(encoding="utf-8")


def test_a_server_that_is_not_there_stops_no_other_system(
    server: Server, clips: list[Clip], tmp_path: Path
) -> None:
    gone = recipe(server, base_url="http://127.0.0.1:9/v1")
    recipes = {
        "gone": gone.model_copy(update={"title": "gone"}),
        "gpt": recipe(server),
        "both": Recipe(title="both", combine=("gone", "gpt")),
    }
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ran = run_systems(clips, recipes, {}, ledger)
    assert list(ran.predictions) == ["gpt"]
    assert "nothing answers" in ran.absent["gone"]
    assert "its part 'gone' is missing" in ran.absent["both"]
    ran.check("skip")
    with pytest.raises(EngineError, match="2 of 3 systems.*the others' answers are kept"):
        ran.check("stop")


def test_labels_by_a_served_model_are_ledgered_too(
    server: Server, clips: list[Clip], tmp_path: Path
) -> None:
    from emolib.baselines.run import labels_by
    from emolib.engines import open_engine

    one = recipe(server)
    server.plan = [
        send(200, {"choices": [{"message": {"content": "他看起来很生气。"}}]}),
        send(200, {"choices": [{"message": {"content": "[生气, 有点难过]"}}]}),
    ]
    file = tmp_path / "ledger.jsonl"
    with Ledger(file) as ledger, open_engine(one.model, name="llm") as llm:
        ran = run_systems(clips, {"gpt": one}, {}, ledger)
        read = labels_by(llm, ran.predictions, ledger)
        again = labels_by(llm, ran.predictions, ledger)
    assert ran.predictions["gpt"][0].labels == ("angry",)
    [row] = read["gpt, labels by llm"]
    assert row.labels == ("angry", "sad")
    assert row.description == "他看起来很生气。"
    assert row.info["summary"]["prompt"] == prompts.EXTRACT.sha
    assert again == read
    assert len(server.seen) == 2
