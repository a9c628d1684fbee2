"""Images out of clips and captions of them: once each, errors as rows."""

from __future__ import annotations

import pytest

from emolib import captioning
from emolib.datasets.clip import Clip
from emolib.errors import ParamsError
from emolib.ledger import Ledger
from emolib.media.store import FrameStore
from emolib.params.schemas import ModelParams
from tests.fakes import FakeEngine
from tests.media_files import write_video


@pytest.fixture
def clips(tmp_path):
    return [Clip(f"c{i}", write_video(tmp_path / f"c{i}.mp4", 12)) for i in range(2)]


def extract(clips, tmp_path, frames=2):
    store = FrameStore(tmp_path / "images")
    with Ledger(tmp_path / "images.jsonl") as ledger:
        return captioning.extract_images(clips, store, ledger, frames=frames, seed=0)


def caption(images, tmp_path, engine):
    with Ledger(tmp_path / "captions.jsonl") as ledger:
        return captioning.caption(images, engine, ledger)


def test_each_clip_gives_its_images_and_each_image_a_caption(tmp_path, clips):
    images, failed = extract(clips, tmp_path)
    assert [(i.clip, i.index) for i in images] == [("c0", 0), ("c0", 1), ("c1", 0), ("c1", 1)]
    assert not failed
    engine = FakeEngine(lambda request: "A calm face.")
    rows = caption(images, tmp_path, engine)
    assert [row["text"] for row in rows] == ["A calm face."] * 4
    assert caption(images, tmp_path, FakeEngine(lambda r: "never asked")) == rows


def test_a_broken_clip_is_named_and_the_others_go_on(tmp_path, clips):
    clips[0].video.write_bytes(b"not a video")
    clips.append(Clip("c2", tmp_path / "nowhere.mp4"))
    images, failed = extract(clips, tmp_path)
    assert {i.clip for i in images} == {"c1"}
    assert [row["clip"] for row in failed] == ["c0", "c2"]


def test_a_clip_that_vanishes_while_it_is_read_is_read_when_it_is_back(
    tmp_path, clips, monkeypatch
):
    content = clips[0].video.read_bytes()
    real = captioning.sample_frames

    def vanish(path, *args, **kwargs):
        path.unlink()
        return real(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(captioning, "sample_frames", vanish)
        assert len(extract(clips[:1], tmp_path)[1]) == 1
    clips[0].video.write_bytes(content)
    images, failed = extract(clips[:1], tmp_path)
    assert (len(images), failed) == (2, [])


def test_a_lost_image_is_captioned_when_it_is_back(tmp_path, clips):
    images, _ = extract(clips[:1], tmp_path, frames=1)
    stored = tmp_path / "images" / images[0].path
    stored.rename(tmp_path / "aside.png")
    [row] = caption(images, tmp_path, FakeEngine())
    assert "cannot be read" in row["error"]
    (tmp_path / "aside.png").rename(stored)
    [row] = caption(images, tmp_path, FakeEngine(lambda request: "Back."))
    assert row["text"] == "Back."


def test_one_model_under_two_names_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        captioning, "open_engine", lambda params, name, cache, cluster: FakeEngine(name=name)
    )
    models = {name: ModelParams(model="x") for name in "ab"}
    with pytest.raises(ParamsError, match="'a' and 'b' are the same model"):
        captioning.caption_by_all([], ["a", "b"], models, tmp_path / "l.jsonl", cache=tmp_path)
