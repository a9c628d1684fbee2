from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.datasets.clip import Clip
from emolib.datasets.minigpt4 import read_minigpt4
from emolib.datasets.open import open_dataset, read_dataset
from emolib.datasets.sheets import clean_text, number, read_npz, read_sheet
from emolib.datasets.splits import apply_split, split_clips, write_split
from emolib.datasets.validation import Reading, check_checksums, check_copies, counts
from emolib.errors import DataError
from emolib.params.schemas import DataParams
from tests.shared import shared


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def videos(folder: Path, *names: str) -> None:
    """Readers look at names and sizes, never inside."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def read(kind: str, root: Path, **more: str) -> Reading[Clip]:
    return read_dataset(DataParams(kind=kind, root=str(root), **more), root)


def found(reading: Reading[Clip], level: str, part: str) -> list[int]:
    return [f.count for f in reading.of(level) if part in f.what]  # type: ignore[arg-type]


@pytest.fixture
def labelled(tmp_path):
    write(tmp_path / "label-disdim.csv", "name,discrete\na,happy\nb,sad\nc,angry\n")
    write(tmp_path / "label-transcription.csv", 'name,chinese\na,你好。\nb,\nc,"再见，朋友"\n')
    videos(tmp_path / "video-labeled", "a.mp4", "b.avi", "c.mp4")
    return tmp_path


def test_labelled_set(labelled):
    reading = read("mer2024-labelled", labelled)
    assert [c.name for c in reading.items] == ["a", "b", "c"]
    a, b, c = reading.items
    assert (a.labels, a.split, a.subtitle, a.subtitle_source) == (
        ("happy",),
        "train",
        "你好。",
        "official",
    )
    assert (b.video.name, b.subtitle, b.subtitle_source) == ("b.avi", None, "none")
    assert c.subtitle == "再见，朋友"
    assert not reading.of("error")
    assert found(reading, "warning", "publisher names 5030") == [3]


def test_a_missing_video_stops_unless_told_otherwise(labelled):
    (labelled / "video-labeled" / "a.mp4").unlink()
    with pytest.raises(DataError, match=r"clips without a video in video-labeled: 1 \(a\)"):
        open_dataset(DataParams(kind="mer2024-labelled", root=str(labelled)), labelled)
    left = open_dataset(
        DataParams(kind="mer2024-labelled", root=str(labelled), media="available"), labelled
    )
    assert [clip.name for clip in left] == ["b", "c"]


def test_warnings_are_told(labelled, caplog):
    videos(labelled / "video-labeled", "orphan.mp4")
    open_dataset(DataParams(kind="mer2024-labelled", root=str(labelled)), labelled)
    assert "no line is about: 1 (orphan)" in caplog.text


def test_an_empty_video_counts_as_missing(labelled):
    (labelled / "video-labeled" / "a.mp4").write_bytes(b"")
    reading = read("mer2024-labelled", labelled)
    assert found(reading, "warning", "without content") == [1]
    assert found(reading, "error", "without a video") == [1]


def test_two_videos_of_one_name_are_an_error(labelled):
    videos(labelled / "video-labeled", "a.avi")
    assert found(read("mer2024-labelled", labelled), "error", "name of another") == [1]


def test_repeated_lines(labelled):
    with (labelled / "label-disdim.csv").open("a") as file:
        file.write("a,happy\nb,neutral\n")
    reading = read("mer2024-labelled", labelled)
    assert found(reading, "warning", "alike") == [1]
    assert found(reading, "error", "differently") == [1]
    assert len(reading.items) == 3


def test_test_clips_among_training_clips_are_told(labelled):
    write(labelled / "check-openset.csv", "name,openset\nb,\"['sad']\"\nz,\"['sad']\"\n")
    reading = read("mer2024-labelled", labelled)
    [leak] = [f for f in reading.of("warning") if "tests on" in f.what]
    assert (leak.count, leak.examples) == (1, ("b",))


def test_names_may_carry_a_suffix(labelled):
    write(labelled / "label-disdim.csv", "names,discrete\na.mp4,happy\nb.avi,sad\nc,angry\n")
    assert [clip.name for clip in read("mer2024-labelled", labelled).items] == ["a", "b", "c"]


def test_open_vocabulary_set_is_a_part_of_its_videos(labelled):
    write(
        labelled / "check-openset.csv",
        'name,openset\na,"[\'Happy\', \'excited\']"\nb,"[""don\'t believe"", \'doubt\']"\n',
    )
    reading = read("mer2024-ov", labelled)
    assert [clip.labels for clip in reading.items] == [
        ("happy", "excited"),
        ("don't believe", "doubt"),
    ]
    assert {clip.split for clip in reading.items} == {"test"}
    assert found(reading, "note", "no line is about") == [1]
    assert not reading.of("error")


def test_a_gold_clip_without_labels_is_told(labelled):
    write(labelled / "check-openset.csv", 'name,openset\na,[]\nb,"[sad]"\n')
    reading = read("mer2024-ov", labelled)
    assert found(reading, "warning", "without a label") == [1]
    assert reading.items[0].labels is None


def test_unlabelled_set_is_its_videos(tmp_path):
    videos(tmp_path / "video-unlabeled-with-test2noise", "a.mp4", "b.mp4")
    write(tmp_path / "transcription-merge.csv", "name,chinese\na,好\nq,走\n")
    reading = read("mer2024-unlabelled", tmp_path)
    assert [(clip.name, clip.subtitle) for clip in reading.items] == [("a", "好"), ("b", None)]
    assert found(reading, "warning", "without a line of words") == [1]
    assert found(reading, "warning", "without a video") == [1]


def test_emer_v2_prefixes_and_joined_subtitles(tmp_path):
    write(
        tmp_path / "final-EMER-reason.csv",
        'name,chinese,english\na,在视频中,"Input: In the video, she smiles."\nb,在,In the video.\n',
    )
    write(
        tmp_path / "subtitle_chieng.csv", "name,chinese,english\na,你好,Hello\nb,走,\nc,来,Come\n"
    )
    write(tmp_path / "check-openset.csv", "name,openset\na,\"['happy']\"\nb,\"['sad']\"\n")
    videos(tmp_path / "video", "a.mp4", "b.mp4")
    a, b = read("emer-v2", tmp_path).items
    assert (a.description, a.subtitle, a.labels) == (
        "In the video, she smiles.",
        "Hello",
        ("happy",),
    )
    assert b.subtitle == "走"  # no English words: the Chinese ones
    assert read("emer-v2", tmp_path, language="chinese").items[0].description == "在视频中"


def test_emer_v1_languages(tmp_path):
    write(tmp_path / "gt-eng.csv", "names,emotions,subtitles,reasons\na,angry,Go!,He roars.\n")
    write(tmp_path / "gt-chi.csv", "names,emotions,subtitles,reasons\na,生气,走！,他怒吼。\n")
    videos(tmp_path / "video", "a.mp4")
    [english] = read("emer-v1", tmp_path).items
    [chinese] = read("emer-v1", tmp_path, language="chinese").items
    assert (english.subtitle, english.description) == ("Go!", "He roars.")
    assert (chinese.subtitle, chinese.description) == ("走！", "他怒吼。")
    assert english.labels == chinese.labels == ("angry",)


def test_mer2025_track_by_table_and_separate_sound(tmp_path):
    videos(tmp_path / "video", "a.mp4", "b.mp4")
    videos(tmp_path / "audio", "a.wav")
    write(tmp_path / "subtitle_chieng.csv", "name,chinese,english\na,好,Good\nb,坏,Bad\n")
    write(tmp_path / "track1.csv", "name,discrete,valence\na,happy,-10\nb,sad,-2.5\n")
    assert [c.labels for c in read("mer2025", tmp_path).items] == [None, None]
    a, b = read("mer2025", tmp_path, table="track1.csv").items
    assert (a.labels, a.valence, b.valence) == (("happy",), None, -2.5)
    assert a.audio is not None
    assert a.audio.name == "a.wav"
    assert b.audio is None


@pytest.mark.parametrize("cell", ["shocked,care,serious", "[shocked, care, serious]"])
def test_mer2026_label_cells(tmp_path, cell):
    videos(tmp_path / "video", "a.mp4")
    write(tmp_path / "human.csv", f'name,openset\na,"{cell}"\n')
    [clip] = read("mer2026", tmp_path, table="human.csv").items
    assert clip.labels == ("shocked", "care", "serious")


def test_preference_pairs_are_refused(tmp_path):
    videos(tmp_path / "video", "a.mp4")
    write(tmp_path / "track3_candidate.csv", "name,a1,a2\na,x,y\n")
    with pytest.raises(DataError, match="preferences"):
        read("mer2026", tmp_path, table="track3_candidate.csv")


def test_messages_name_what_to_set(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read("mer2024-ov", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"check-openset.csv.*data\.table"):
        read("mer2024-ov", tmp_path)
    write(tmp_path / "check-openset.csv", "name,openset\na,\"['sad']\"\n")
    with pytest.raises(DataError, match=r"video-labeled or video.*data\.videos"):
        read("mer2024-ov", tmp_path)
    assert read("mer2024-ov", tmp_path, media="none").items[0].labels == ("sad",)


SIMS = "video_id,clip_id,text,label,mode\n"


def test_chsims_names_sentiment_and_groups(tmp_path):
    write(
        tmp_path / "meta.csv",
        SIMS
        + "video_0001,0001,你好,-0.4,train\nvideo_0001,0002,走,1,valid\nx_1,00000_1,来,0,test\n",
    )
    videos(tmp_path / "Raw", "video_0001/0001.mp4", "video_0001/0002.mp4", "x_1/00000_1.mp4")
    reading = read("chsims-v2", tmp_path)
    first, second, third = reading.items
    assert first.name == "video_0001_0001"
    assert (first.valence, first.split, first.group) == (-0.4, "train", "video_0001")
    assert first.labels is None
    assert (second.split, third.name) == ("val", "x_1_00000_1")
    assert found(reading, "note", "several splits") == [1]
    assert not reading.of("error")


def test_chsims_lost_zeros_are_found_again(tmp_path):
    write(tmp_path / "label.csv", SIMS + "video_0001,1,你好,0,train\nvideo_0001,12,走,0,test\n")
    videos(tmp_path / "Raw", "video_0001/0001.mp4", "video_0001/0012.mp4")
    reading = read("chsims", tmp_path)
    assert [clip.name for clip in reading.items] == ["video_0001_0001", "video_0001_0012"]
    assert found(reading, "note", "leading zeros") == [2]


def test_chsims_faults(tmp_path):
    write(
        tmp_path / "meta.csv",
        SIMS + "v_1,1,a,3,train\nv_1,2,a,0,dev?\nv_1,2,a,0,train\n,3,a,0,train\nv_1,4,a,0,test\n",
    )
    videos(tmp_path / "Raw", "v_1/1.mp4", "v_1/2.mp4", "v_1/9.mp4")
    reading = read("chsims", tmp_path)
    for part in ("outside", "unknown modes", "again", "without video_id", "without a video"):
        assert found(reading, "error", part) == [1], part
    assert found(reading, "warning", "no line") == [1]


def test_minigpt4(tmp_path):
    rows = [
        {"image_id": "2", "caption": "<Img><ImageHere></Img> A cat."},
        {"image_id": "3", "caption": "A dog."},
        {"image_id": "3", "caption": "A dog."},
        {"image_id": "4", "caption": " "},
        {"image_id": "9", "caption": "Gone."},
        {"caption": "Nobody."},
    ]
    write(tmp_path / "filter_cap.json", json.dumps({"annotations": rows}))
    videos(tmp_path / "image", "2.jpg", "3.jpg", "4.jpg", "5.jpg")
    reading = read_minigpt4(tmp_path)
    assert [(i.name, i.caption) for i in reading.items] == [("2", "A cat."), ("3", "A dog.")]
    assert {f.what for f in reading.of("error")} == {
        "annotations without image_id or caption",
        "captions without a picture",
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Input: In the video", "In the video"),
        ("The input: A good man", "A good man"),
        ("Translation: Love", "Love"),
        ("输入：你好", "你好"),
        ("Address: Beijing", "Address: Beijing"),
        ("The input is big", "The input is big"),
        ("Input: He smile. Output: He smiles.", "He smiles."),
        ("Input: He smiles. Output:", "He smiles."),
        ("Input: He smiles.Output: He is glad.", "He is glad."),
        ("He reads the output: nothing.", "He reads the output: nothing."),
        ("input:", None),
        (None, None),
    ],
)
def test_clean_text(text, clean):
    assert clean_text(text)[0] == clean


def test_minus_ten_is_no_valence():
    assert number("-10", "here") is None
    assert number("-1.5", "here") == -1.5
    with pytest.raises(DataError, match="here: 'one' is no number"):
        number("one", "here")
    with pytest.raises(DataError):
        number("inf", "here")


def test_npz_of_the_official_kinds(tmp_path):
    corpora = {"train_corpus": {"a": {"emo": "happy", "val": 1.5}}}
    np.savez(tmp_path / "label-6way.npz", **{k: np.array(v) for k, v in corpora.items()})
    assert read_npz(tmp_path / "label-6way.npz") == corpora
    sheet = read_sheet(tmp_path / "label-6way.npz")
    assert sheet.rows == [{"split": "train_corpus", "name": "a", "emo": "happy", "val": "1.5"}]
    ragged = np.array([["happy", "glad"], ["sad"]], dtype=object)
    np.savez(tmp_path / "x-openset.npz", filenames=np.array(["a", "b"]), fileitems=ragged)
    rows = read_sheet(tmp_path / "x-openset.npz").rows
    assert rows[0] == {"name": "a", "openset": "['happy', 'glad']"}
    values = np.array({"a": {"val": np.float64(2.5), "emo": np.str_("sad")}})
    np.savez(tmp_path / "scalars.npz", train_corpus=values)
    assert read_npz(tmp_path / "scalars.npz")["train_corpus"]["a"]["val"] == 2.5


class Evil:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (Path(self.mark),))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": x}, lambda x: [x, x]])
def test_npz_never_runs_code(tmp_path, wrap):
    mark = tmp_path / "ran"
    array = np.empty((), dtype=object)
    array[()] = wrap(Evil(str(mark)))
    np.savez(tmp_path / "evil.npz", train_corpus=array)
    with pytest.raises(DataError, match="could run code"):
        read_npz(tmp_path / "evil.npz")
    assert not mark.exists()


@given(st.binary(max_size=200))
def test_npz_of_noise_is_a_named_error(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("npz") / "x.npz"
    header = pickle.dumps(noise)
    np.savez(path, a=np.array(1))
    path.write_bytes(path.read_bytes()[:40] + header)
    with pytest.raises(DataError):
        read_npz(path)


def clips(n: int, group: int = 1) -> list[Clip]:
    return [Clip(name=f"c{k}", video=Path(f"c{k}.mp4"), group=f"g{k // group}") for k in range(n)]


def test_the_papers_split():
    once = split_clips([Clip(name=f"s{k}", video=Path("x")) for k in range(332)], 66, seed=0)
    assert [c.split for c in once].count("test") == 66
    assert [c.split for c in once].count("train") == 266


@given(st.integers(2, 60), st.integers(1, 5), st.data())
def test_no_group_is_divided(n, group, data):
    test = data.draw(st.integers(1, n - 1))
    seed = data.draw(st.integers(0, 5))
    try:
        made = split_clips(clips(n, group), test, seed)
    except DataError:
        assert group > 1
        return
    where: dict[str, set[str]] = {}
    for clip in made:
        where.setdefault(clip.group, set()).add(clip.split)
    assert all(len(splits) == 1 for splits in where.values())
    chosen = sum(clip.split == "test" for clip in made)
    assert 0.9 * test <= chosen <= test
    assert split_clips(list(reversed(made)), test, seed) == list(reversed(made))


def test_split_files_are_by_name(tmp_path, labelled):
    made = split_clips(read("mer2024-labelled", labelled).items, 1, seed=3)
    file = write_split(tmp_path / "split.json", made, seed=3)
    assert apply_split(list(reversed(made)), file) == list(reversed(made))
    params = DataParams(
        kind="mer2024-labelled", root=str(labelled), split_file=str(file), split="test"
    )
    assert len(open_dataset(params, tmp_path)) == 1
    with pytest.raises(DataError, match="not in the data set"):
        apply_split(made[1:], file)
    with pytest.raises(DataError, match="emolib datasets split"):
        apply_split(made, write(tmp_path / "x.json", "[]"))


def test_checksums_and_copies(labelled, tmp_path):
    reading = read("mer2024-labelled", labelled)
    check_checksums(reading, tmp_path / "sums")
    lines = (tmp_path / "sums").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].endswith("  label-disdim.csv")
    shutil.copy(labelled / "video-labeled" / "a.mp4", labelled / "video-labeled" / "c.mp4")
    again = read("mer2024-labelled", labelled)
    check_copies(again)
    assert found(again, "warning", "same file") == [1]
    check_checksums(again, tmp_path / "sums")
    assert found(again, "error", "differ") == [1]


@pytest.mark.shared
def test_real_mer2024_ov():
    words = shared("data/mer2023_text/transcription-engchi-polish.csv")
    reading = read("mer2024-ov", shared("data/mer2024_ov"), media="none", subtitles=str(words))
    seen = counts(reading)
    assert (seen["clips"], seen["label_tokens"], seen["different_labels"]) == (332, 1121, 248)
    assert seen["with_words"] == 312
    assert not reading.of("error")


@pytest.mark.shared
def test_real_labelled_set():
    reading = read("mer2024-labelled", shared("data/mer2023_text"), media="none")
    seen = counts(reading)
    assert (seen["clips"], seen["with_words"]) == (5030, 5030 - 217)
    assert seen["splits"] == {"train": 3373, "test": 411 + 412 + 834}
    assert seen["with_valence"] == 5030 - 834
    assert seen["different_labels"] == 6
    assert not reading.of("error")
    assert not reading.of("warning")


@pytest.mark.shared
@pytest.mark.parametrize("language", ["english", "chinese"])
def test_real_emer(language):
    root = shared("data/emer")
    words = str(shared("data/mer2023_text/transcription-engchi-polish.csv"))
    labels = {c.name for c in read("mer2024-ov", shared("data/mer2024_ov"), media="none").items}
    v2 = read("emer-v2", root, media="none", subtitles=words, language=language)
    assert {clip.name for clip in v2.items} == labels
    start = {"english": "In the vi", "chinese": "在视频中"}[language]
    assert all((clip.description or "").startswith(start) for clip in v2.items)
    assert not any("Output:" in (clip.description or "") for clip in v2.items)
    stripped = found(v2, "note", "Input:")
    assert stripped == ([88] if language == "english" else [])
    v1 = read("emer-v1", root, media="none", language=language)
    seen = counts(v1)
    assert (seen["clips"], seen["with_words"], seen["with_description"]) == (100, 93, 100)
    assert {label for clip in v1.items for label in clip.labels or ()} == {
        "angry",
        "happy",
        "worried",
        "sad",
        "surprise",
    }


@pytest.mark.shared
def test_real_chsims_v2():
    reading = read("chsims-v2", shared("data/chsims_v2_text"), media="none")
    seen = counts(reading)
    assert seen["clips"] == seen["with_words"] == seen["with_valence"] == 4403
    assert seen["splits"] == {"train": 2722, "val": 647, "test": 1034}
    assert (seen["with_labels"], seen["groups"]) == (0, 152)
    assert found(reading, "note", "translator") == [3]
    assert found(reading, "note", "several splits") == [130]
    assert not reading.of("error")
    assert not reading.of("warning")
