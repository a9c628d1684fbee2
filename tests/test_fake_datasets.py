from __future__ import annotations

import pytest

from emolib.__main__ import main
from emolib.datasets.demo import open_demo
from emolib.datasets.fake import KINDS, write_fake
from emolib.datasets.inspection import inspect
from emolib.datasets.minigpt4 import read_minigpt4
from emolib.datasets.open import read_dataset
from emolib.errors import DataError
from emolib.params.schemas import DataParams

CLIPS = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One generated world for all stand-ins of this file."""
    root = tmp_path_factory.mktemp("world")
    return open_demo(DataParams(clips=CLIPS, root=str(root / "demo")), root)


@pytest.fixture
def stand_in(world, tmp_path, monkeypatch):
    monkeypatch.setattr("emolib.datasets.demo.open_demo", lambda params, outputs: world)

    def make(kind):
        return write_fake(kind, tmp_path / kind, clips=CLIPS)

    return make


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"minigpt4"}))
def test_every_stand_in_is_read_without_errors(kind, stand_in):
    root = stand_in(kind)
    reading = read_dataset(DataParams(kind=kind, root=str(root)), root)
    assert len(reading.items) == CLIPS - (kind == "mer2024-ov")
    assert not reading.of("error")
    assert all(fact.error is None for fact in inspect(reading.items))
    assert any(clip.subtitle for clip in reading.items)
    assert main(["datasets", "check", kind, str(root), "--headers", "--copies"]) == 0


@pytest.mark.parametrize(
    ("kind", "table", "clips", "labels"),
    [
        ("mer2025", "track1_train_disdim.csv", 4, True),
        ("mer2025", "track2_train_human.csv", 4, True),
        ("mer2025", "track3_train.csv", 4, False),
        ("mer2025", "track_all_candidates.csv", 1, False),
        ("mer2026", "track1_train.csv", 5, True),
        ("mer2026", "track2_train_human.csv", 5, True),
        ("mer2026", "track2_train_mercaptionplus.csv", 5, True),
    ],
)
def test_tracks(kind, table, clips, labels, stand_in):
    root = stand_in(kind)
    reading = read_dataset(DataParams(kind=kind, root=str(root), table=table), root)
    assert len(reading.items) == clips
    assert all(bool(clip.labels) == labels for clip in reading.items)
    assert not reading.of("error")


def test_labels_survive_every_way_they_are_written(stand_in, world):
    root = stand_in("mer2026")
    gold = [clip.labels for clip in world]
    for table in ("track2_train_human.csv", "track2_train_mercaptionplus.csv"):
        reading = read_dataset(DataParams(kind="mer2026", root=str(root), table=table), root)
        assert [clip.labels for clip in reading.items] == gold


def test_emer_v2_stand_in_has_the_prefix_and_the_reader_strips_it(stand_in, world):
    root = stand_in("emer-v2")
    assert (root / "final-EMER-reason.csv").read_text(encoding="utf-8").count("Input: ") == 2
    reading = read_dataset(DataParams(kind="emer-v2", root=str(root)), root)
    assert [clip.description for clip in reading.items] == [clip.description for clip in world]


def test_minigpt4_stand_in(stand_in, capsys):
    root = stand_in("minigpt4")
    reading = read_minigpt4(root)
    assert len(reading.items) == CLIPS
    assert not reading.of("error")
    assert main(["datasets", "check", "minigpt4", str(root)]) == 0
    assert "5 captioned images" in capsys.readouterr().out


def test_command_line(tmp_path, capsys):
    root = tmp_path / "sims"
    assert main(["datasets", "fake", "chsims", str(root), "--clips", "3"]) == 0
    assert main(["datasets", "check", "chsims", str(root)]) == 0
    assert "authors name 2281" in capsys.readouterr().out
    (root / "Raw" / "video_0001" / "0002.mp4").unlink()
    assert main(["datasets", "check", "chsims", str(root)]) == 1
    out = tmp_path / "split.json"
    assert main(["datasets", "split", "chsims", str(root), "--test", "1", "--out", str(out)]) == 2
    assert "video_0001_0002" in capsys.readouterr().err


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="choose from"):
        write_fake("mer2030", tmp_path / "x")
    with pytest.raises(DataError, match="at least 2"):
        write_fake("chsims", tmp_path / "x", clips=1)
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(DataError, match="something already"):
        write_fake("chsims", tmp_path)
    assert (tmp_path / "mine").read_text() == "precious"
