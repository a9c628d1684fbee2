"""Folders and tables become clips with unique names, or a message that says what is wrong."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.datasets import open as opening
from emolib.datasets.clip import Clip
from emolib.datasets.folder import clips_from_paths, read_folder
from emolib.datasets.table import read_labels
from emolib.errors import DataError
from emolib.params import DataParams


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def _read(root: Path, table: str | bytes = "") -> list[Clip]:
    if table:
        data = table if isinstance(table, bytes) else table.encode()
        (root / "words.csv").write_bytes(data)
    return read_folder(
        DataParams(kind="folder", root=str(root), table="words.csv" if table else "")
    )


def test_videos_alone(tmp_path: Path) -> None:
    _touch(tmp_path, "b.MP4", "a.avi", "sub/c.WebM", "d.mkv", "e.mov", "f.m4v", "notes.txt")
    _touch(tmp_path, "._a.avi", ".cache/z.mp4", "a.avi.part")
    clips = _read(tmp_path)
    assert [clip.name for clip in clips] == ["a", "b", "d", "e", "f", "c"]
    assert clips[0] == Clip("a", tmp_path / "a.avi")


def test_shared_stems_get_longer_names(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.mp4", "y/a.mp4", "y/b.mp4", "y/b.avi", "c.mp4")
    names = [clip.name for clip in _read(tmp_path)]
    assert names == ["c", "x/a", "y/a", "y/b.avi", "y/b.mp4"]


def test_odd_names_survive(tmp_path: Path) -> None:
    odd = ["结果 一.mp4", "two\nlines.mp4", " lead.mp4", "a.b.c.mp4", "12:30.mp4"]
    _touch(tmp_path, *odd, "cafe\u0301.mp4")
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    if sys.platform == "linux":
        Path(os.fsdecode(raw)).write_bytes(b"x")
    clips = _read(tmp_path, 'name,subtitle\n"two\nlines","one\ntwo"\ncaf\u00e9,x\na.b.c,y\n')
    names = {clip.name: clip for clip in clips}
    assert {n[:-4] for n in odd} <= set(names)
    assert names["two\nlines"].subtitle == "one\ntwo"
    assert names["caf\u00e9"].subtitle == "x"
    for clip in clips:
        clip.name.encode("utf-8")
        assert clip.video.exists()


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = tmp_path / "set"
    _touch(tmp_path, "elsewhere/a.mp4", "set/b.mp4")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    assert [clip.name for clip in _read(root)] == ["b", "a"]
    (root / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    with pytest.raises(DataError, match=r"lead nowhere.*gone\.mp4"):
        _read(root)


def test_every_column_arrives(tmp_path: Path) -> None:
    _touch(tmp_path, "a.mp4", "b.mp4", "c.mp4", "wav/a.wav")
    table = (
        "name,subtitle,labels,description,split,audio,group\n"
        "a,Hello,\"['Happy', 'sad', 'happy']\",He smiles.,Train,wav/a.wav,film1\n"
        "b.mp4, ,,nan,dev,,\n"
    )
    a, b, c = _read(tmp_path, table)
    assert a == Clip(
        name="a",
        video=tmp_path / "a.mp4",
        audio=tmp_path / "wav/a.wav",
        subtitle="Hello",
        subtitle_source="file",
        labels=("happy", "sad"),
        description="He smiles.",
        split="train",
        group="film1",
    )
    assert b == Clip("b", tmp_path / "b.mp4", split="val")
    assert c == Clip("c", tmp_path / "c.mp4")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    _touch(tmp_path, "a.mp4")
    text = "name,subtitle\r\na,我不知道，怎么办？\r\n"
    assert _read(tmp_path, text.encode(encoding))[0].subtitle == "我不知道，怎么办？"


WRONG_TABLES = {
    "line 3: 3 cells, the header has 2": "name,subtitle\nb,x\na,Well, yes\n",
    "unknown column 'subtitles'; did you mean 'subtitle'": "name,subtitles\na,x\n",
    "no column 'name'": "subtitle,split\nx,train\n",
    "a column is given twice": "name,split,split\na,train,test\n",
    "no list of labels: 'He is glad today.'": 'name,labels\na,"He is glad today."\n',
    r"1 name \('a'\) given more than once": "name,subtitle\na,x\na,y\n",
    "'a' and 'a.mp4' are the same video": "name,subtitle\na,x\na.mp4,y\n",
    r"of 8 lines 7 names \('v0', 'v1', 'v2', 'v3', 'v4', …\) without a video": (
        "name\na\n" + "".join(f"v{k}\n" for k in range(7))
    ),
    "line 2: no name": "name,subtitle\n,x\n",
    "line 2: split 'trian'; choose from": "name,split\na,trian\n",
    "no sound file 'no.wav'": "name,audio\na,no.wav\n",
    "the table is empty": "\n \n",
    "broken CSV": 'name,subtitle\na,"x\n',
}


@pytest.mark.parametrize("message", WRONG_TABLES)
def test_wrong_tables_are_explained(tmp_path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        _read(_touch(tmp_path, "a.mp4", "b.mp4"), WRONG_TABLES[message])
    assert "words.csv" in str(caught.value)


def test_binary_tables_are_refused(tmp_path: Path) -> None:
    for data in (b"PK\x03\x04\x00\x00\x00\x00" * 9, b"name\n\xff\xff\xff\n"):
        with pytest.raises(DataError, match=r"words\.csv: not text"):
            _read(_touch(tmp_path, "a.mp4"), data)


def test_a_short_name_shared_by_two_videos_matches_neither(tmp_path: Path) -> None:
    _touch(tmp_path, "x/a.mp4", "y/a.mp4")
    with pytest.raises(DataError, match="without a video"):
        _read(tmp_path, "name\na\n")
    with pytest.raises(DataError, match="without a video"):
        _read(tmp_path, "name\na.mp4\n")
    assert _read(tmp_path, "name,subtitle\nx/a,one\n")[0].subtitle == "one"


def test_wrong_folders_are_explained(tmp_path: Path) -> None:
    _touch(tmp_path, "empty/notes.txt", "file.mp4")
    for root, message in (
        ("", "data.root is empty"),
        (str(tmp_path / "nowhere"), "no such folder"),
        (str(tmp_path / "file.mp4"), "not a folder"),
        (str(tmp_path / "empty"), "no videos"),
    ):
        with pytest.raises(DataError, match=message):
            read_folder(DataParams(kind="folder", root=root))
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        read_folder(DataParams(kind="folder", root=str(tmp_path), table="no.csv"))


def test_paths_as_on_a_command_line(tmp_path: Path) -> None:
    _touch(tmp_path, "a.ts", "b/a.mp4", "b/c.mp4")
    clips = clips_from_paths([tmp_path / "a.ts", str(tmp_path / "b"), tmp_path / "b" / "c.mp4"])
    assert [clip.name for clip in clips] == ["a.ts", "a.mp4", "c"]
    assert [clip.video.name for clip in clips] == ["a.ts", "a.mp4", "c.mp4"]
    shutil.copytree(tmp_path / "b", tmp_path / "d")
    both = clips_from_paths([tmp_path / "b", tmp_path / "d"])
    assert len({clip.name for clip in both}) == 4
    for wrong, message in (
        ([tmp_path / "no.mp4"], "no such file"),
        ([_touch(tmp_path / "e", "x.txt")], "no videos"),
        ([], "no videos given"),
    ):
        with pytest.raises(DataError, match=message):
            clips_from_paths(wrong)


def test_split_and_limit(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{k}.mp4" for k in range(6)))
    (tmp_path / "t.csv").write_text(
        "name,split\n" + "".join(f"{k},{'test' if k % 2 else 'train'}\n" for k in range(6))
    )
    base = DataParams(kind="folder", root=str(tmp_path), table="t.csv")

    def names(**changes: object) -> list[str]:
        clips = opening.open_dataset(base.model_copy(update=changes), tmp_path)
        return [clip.name for clip in clips]

    assert names() == list("012345")
    assert names(split="test") == list("135")
    assert names(split="test", limit=2) == list("13")
    with pytest.raises(DataError, match=r"no clip has split 'val'; the data set has \['test'"):
        names(split="val")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('["happy", "Sad"]', ("happy", "sad")),
        ("['happy', 'sad']", ("happy", "sad")),
        ("[happy, sad]", ("happy", "sad")),
        ("happy，sad、angry", ("happy", "sad", "angry")),
        ("happy", ("happy",)),
        ("very happy; a bit sad", ("happy", "sad")),  # as predictions are read
        ("['happy' 'sad']", ("happy", "sad")),
        ('["don\'t care"]', ("don't care",)),
        ("[]", None),
        ('[""]', None),
        ("  ", None),
    ],
)
def test_labels(text: str, labels: tuple[str, ...] | None) -> None:
    assert read_labels(text) == labels


@given(st.text(max_size=60))
def test_any_text_gives_clean_labels(text: str) -> None:
    try:
        labels = read_labels(text)
    except ValueError:
        return
    assert labels is None or (
        len(labels) == len(set(labels)) and all(x == x.strip() for x in labels)
    )


@pytest.mark.parametrize(
    "table",
    [
        "Name;Subtitle\n0001;Hello.\n0002;Bye.\n",
        "name\tsubtitle\n0001\tHello.\n0002\tBye.\n",
        "sep=,\r\nname,subtitle\r\n0001,Hello.\r\n0002,Bye.\r\n",
        "name , subtitle\n0001.MP4 , Hello.\n 0002.mov,Bye.\n",
        "name,subtitle\n1,Hello.\n2,Bye.\n",  # pandas stripped the zeros
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, table: str) -> None:
    _touch(tmp_path, "0001.mp4", "0002.mp4")
    assert [clip.subtitle for clip in _read(tmp_path, table)] == ["Hello.", "Bye."]


def test_lines_that_fit_no_video_are_counted_and_named(tmp_path: Path) -> None:
    _touch(tmp_path, "one.mp4")
    table = tmp_path / "t.csv"
    table.write_text("name,subtitle\none,Hello.\nnever,Nothing.\n")
    said: list[str] = []
    clips_from_paths([tmp_path / "one.mp4"], table, said.append)
    assert len(said) == 1
    assert "of 2 lines 1 name ('never')" in said[0]


def test_a_table_on_the_command_line_may_cover_more_videos(tmp_path: Path) -> None:
    _touch(tmp_path, "a/one.mp4", "b/two.mp4")
    videos = [tmp_path / "a" / "one.mp4", tmp_path / "b" / "two.mp4"]
    table = tmp_path / "t.csv"
    table.write_text("name,subtitle\none,Hello.\nnever,Nothing.\n")
    clips = clips_from_paths(videos, table=table)
    assert {c.name: c.subtitle for c in clips} == {"one": "Hello.", "two": None}
    table.write_text("name,subtitle\nnever,Nothing.\n")
    with pytest.raises(DataError, match="without a video"):
        clips_from_paths(videos, table=table)
