"""Frames are the ones really shown at their times, in every kind of file; bad files are named."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emolib.errors import MediaError
from emolib.media.audio import read_audio
from emolib.media.video import (
    clip_rng,
    probe,
    read_frames,
    sample_frames,
    segment_times,
    shown_at,
    uniform_times,
)
from tests.media_files import (
    HEIGHT,
    WIDTH,
    every_frame,
    number_of,
    pattern,
    shown,
    tone,
    write_audio,
    write_video,
)
from tests.shared import shared

VARIABLE = [0, 40, 55, 300, 310, 320, 700, 710, 1500, 1501, 1900, 1990]
LATE = [5000 + 40 * k for k in range(30)]

# What people really have: (suffix, how it is written).
KINDS = {
    "h264-bframes": (".mp4", {}),
    "h264-pyramid-many-keys": (".mp4", {"n": 120, "gop": 10, "bframes": 5}),
    "h264-open-gop": (
        ".mp4",
        {
            "n": 120,
            "options": {"x264-params": "keyint=15:scenecut=0:bframes=4:open-gop=1:threads=1"},
        },
    ),
    "one-long-group": (".mp4", {"n": 90, "gop": 250}),
    "variable-rate": (".mp4", {"n": 12, "pts": VARIABLE}),
    "variable-rate-mkv": (".mkv", {"n": 12, "pts": VARIABLE}),
    "late-start": (".mp4", {"pts": LATE}),
    "late-start-ts": (".ts", {"n": 60}),
    "odd-size": (".mp4", {"size": (131, 67), "pix_fmt": "yuv444p"}),
    "10-bit-hevc": (
        ".mp4",
        {
            "codec": "libx265",
            "pix_fmt": "yuv420p10le",
            "options": {"x265-params": "log-level=none"},
        },
    ),
    "vp9": (".webm", {"codec": "libvpx-vp9", "bframes": 0}),
    "vp8-hidden-frames": (
        ".webm",
        {"codec": "libvpx", "bframes": 0, "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    ),
    "mpeg4-avi": (".avi", {"codec": "mpeg4", "n": 40}),
    "mpeg2-mkv": (".mkv", {"codec": "mpeg2video", "n": 40}),
    "lossless-rgb": (".mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
    "gray": (".mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
    "mjpeg-full-range": (".mov", {"codec": "mjpeg", "pix_fmt": "yuvj422p", "bframes": 0}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("video")
    return {
        kind: write_video(root / f"{kind}{suffix}", **how) for kind, (suffix, how) in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_frames_equal_a_full_decode_at_any_time(files: dict[str, Path], kind: str) -> None:
    path = files[kind]
    truth = every_frame(path)
    if path.suffix == ".avi":  # AVI numbers its frames; libav shifts their times
        truth = [(k / 25, image) for k, (_, image) in enumerate(truth)]
    info = probe(path)
    assert info.n_frames == len(truth)
    assert info.start_s == pytest.approx(truth[0][0])
    rng = np.random.default_rng(1)
    span = (info.start_s - 0.2, info.start_s + info.duration_s + 0.2)
    for times in (
        rng.uniform(*span, 9),  # unsorted, some outside the clip
        [t for t, _ in truth],  # exactly the frames' own times
        [rng.uniform(*span)],
    ):
        for asked, frame in zip(times, read_frames(path, times), strict=True):
            expected = shown(truth, asked)
            assert number_of(frame.image) == expected
            assert frame.pts_s == pytest.approx(truth[expected][0], abs=1e-9)
            assert np.array_equal(frame.image, truth[expected][1])


def test_only_unusual_files_are_watched_from_the_start(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from emolib.media import reader

    watched: list[str] = []
    real = reader.VideoReader._watch
    monkeypatch.setattr(
        reader.VideoReader,
        "_watch",
        lambda self, *args: watched.append(self.path.stem) or real(self, *args),
    )
    for path in files.values():
        sample_frames(path)
    assert set(watched) <= {"mpeg4-avi", "vp8-hidden-frames", "late-start-ts"}


def test_h264_in_avi_keeps_presentation_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", 30)
    frames = read_frames(path, [k / 25 + 0.01 for k in range(30)])
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.pts_s for frame in frames] == pytest.approx([k / 25 for k in range(30)])


def test_few_pictures_are_decoded_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", 240, gop=30)
    from emolib.media import reader

    turned: list[object] = []
    real = reader._upright
    monkeypatch.setattr(
        reader, "_upright", lambda image, picture: turned.append(1) or real(image, picture)
    )
    frames = read_frames(path, [0.02, 0.03, 9.0])
    assert len(turned) == 2
    assert frames[0].image is frames[1].image
    assert frames.distinct == 2


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_rotated_files_come_out_upright(tmp_path: Path, angle: int) -> None:
    # The display matrix turns counter-clockwise by `angle`; info.rotation counts clockwise.
    path = write_video(tmp_path / "r.mp4", 3, rotation=angle)
    info, frame = probe(path), read_frames(path, [0.05])[0]
    assert info.rotation == -angle % 360
    assert (info.width, info.height) == ((HEIGHT, WIDTH) if angle % 180 else (WIDTH, HEIGHT))
    assert frame.image.shape == (info.height, info.width, 3)
    assert number_of(np.rot90(frame.image, -angle // 90)) == 1


def test_mirrored_file_comes_out_as_displayed(tmp_path: Path) -> None:
    one = 65536
    path = write_video(tmp_path / "m.mp4", 3, matrix=[-one, 0, 0, 0, one, 0, 0, 0, 16384 * one])
    assert number_of(read_frames(path, [0.05])[0].image[:, ::-1]) == 1


def test_tagged_colours_are_honoured(tmp_path: Path) -> None:
    means = []
    for space in ("bt709", "smpte170m"):
        options = {"x264-params": f"colormatrix={space}:threads=1", "colorspace": space}
        path = write_video(tmp_path / f"{space}.mp4", 2, options=options)
        means.append(read_frames(path, [0.0])[0].image[-8:, :40].mean(axis=(0, 1)))
    # The same stored numbers read by another matrix are another red.
    assert np.abs(means[0] - means[1]).max() > 5


def test_one_frame_clip_gives_it_six_times_and_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "one.mp4", 1)
    frames = sample_frames(path)
    assert len(frames) == 6
    assert frames.distinct == 1
    assert probe(path).n_frames == 1
    assert [number_of(f.image) for f in frames] == [0] * 6


def test_segments_take_one_frame_of_each_part(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 60)
    seen = set()
    for seed in range(20):
        numbers = [number_of(f.image) for f in sample_frames(path, seed=seed)]
        assert all(10 * k <= number < 10 * (k + 1) for k, number in enumerate(numbers))
        seen.update(numbers)
    assert len(seen) > 40  # every part of the clip has its chance
    uniform = [number_of(f.image) for f in sample_frames(path, rule="uniform")]
    assert uniform == [5, 15, 25, 35, 45, 55]


def test_the_draw_depends_on_seed_and_name_only(tmp_path: Path) -> None:
    a = write_video(tmp_path / "a.mp4", 60)
    b = Path(shutil.copy(a, tmp_path / "b.mp4"))
    assert sample_frames(a).times == sample_frames(a).times
    assert sample_frames(a).times != sample_frames(b).times
    assert sample_frames(a).times == sample_frames(b, name="a").times
    assert sample_frames(a).times != sample_frames(a, seed=1).times
    assert [f.sha for f in sample_frames(a)] == [f.sha for f in sample_frames(a)]


def test_hashes_tell_pictures_apart(tmp_path: Path) -> None:
    frames = read_frames(write_video(tmp_path / "a.mp4", 10), [k / 25 for k in range(10)])
    assert len({f.sha for f in frames}) == 10 == frames.distinct
    assert frames.record["distinct"] == 10


@given(
    start=st.floats(-100, 1e5),
    duration=st.floats(0, 1e5),
    n=st.integers(1, 40),
    seed=st.integers(0, 2**40),
)
def test_times_stay_in_their_parts(start: float, duration: float, n: int, seed: int) -> None:
    edges = start + duration * np.arange(n + 1) / n
    slack = 1e-9 * (1 + abs(start) + duration)
    for times in (
        segment_times(start, duration, n, rng=clip_rng(seed, "x")),
        uniform_times(start, duration, n),
    ):
        assert times.shape == (n,)
        assert (times >= edges[:-1] - slack).all()
        assert (times <= edges[1:] + slack).all()


@given(st.lists(st.integers(0, 500), min_size=1, unique=True), st.integers(-10, 600))
def test_shown_at_is_the_last_frame_not_later(times: list[int], at: int) -> None:
    times = sorted(times)
    expected = max([0, *(k for k, t in enumerate(times) if t <= at)])
    assert shown_at(times, [at]).tolist() == [expected]


@pytest.mark.parametrize(("duration", "n"), [(-1.0, 6), (float("nan"), 6), (1.0, 0)])
def test_impossible_samplings_are_refused(duration: float, n: int) -> None:
    with pytest.raises(ValueError, match=r"must be finite|at least one"):
        uniform_times(0.0, duration, n)


def _bad_files(root: Path) -> dict[str, tuple[Path, str]]:
    good = write_video(root / "good.mp4", 20)
    data = good.read_bytes()
    made = {
        "random": np.random.default_rng(0).bytes(20_000),
        "text": b"these are words, not pictures\n" * 200,
        "play-list": b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n",
        "no-tables": data[: len(data) * 6 // 10],  # the tables of an mp4 come last
        "header-only": data[:40],
        "empty": b"",
    }
    for name, content in made.items():
        (root / f"{name}.mp4").write_bytes(content)
    write_audio(root / "sound.mp4", tone(0.3)[None])
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "pipe.mp4")
    causes = {
        "random": "invalid data",
        "text": "invalid data",
        "play-list": "",
        "no-tables": "cut short",
        "header-only": "",
        "empty": "empty",
        "sound": "no video stream",
        "folder": "not a regular file",
        "pipe": "not a regular file",
        "missing": "no such file",
    }
    return {name: (root / f"{name}.mp4", cause) for name, cause in causes.items()}


def test_bad_files_are_named_with_the_cause(tmp_path: Path) -> None:
    for name, (path, cause) in _bad_files(tmp_path).items():
        for use in (probe, sample_frames, lambda p: read_frames(p, [0.0])):
            with pytest.raises(MediaError) as caught:
                use(path)
            assert path.name in str(caught.value), name
            assert cause in str(caught.value).lower(), name


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=16_000, layout="mono")
        art = out.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        out.mux(art.encode(av.VideoFrame.from_ndarray(pattern(1, 64, 64), format="rgb24")))
        out.mux(art.encode(None))
        frame = av.AudioFrame.from_ndarray(tone(0.064)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    with pytest.raises(MediaError, match=r"no video stream \(only an attached"):
        probe(path)


def test_a_cut_file_gives_what_it_holds_and_says_so(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "w.mp4", 60, muxer={"movflags": "faststart"}, size=(320, 240))
    data = whole.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * 0.7)])
    info = probe(path)
    assert info.cut
    assert 3 < info.n_frames < 60
    assert number_of(read_frames(path, [0.05])[0].image) == 1
    with pytest.raises(MediaError, match=rf"cut short: {info.n_frames} of 60 frames could be read"):
        sample_frames(path)
    with pytest.raises(MediaError, match=r"nothing at 2\.3"):
        read_frames(path, [0.0, 2.3])
    assert not probe(whole).cut


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_damage_in_the_middle_spares_the_rest(tmp_path: Path, suffix: str) -> None:
    whole = write_video(tmp_path / f"w{suffix}", 96, gop=12, size=(320, 240))
    truth = every_frame(whole)
    sizes = []
    with av.open(str(whole)) as container:
        sizes = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(whole.read_bytes())
    position, size = sizes[48]  # the fifth key frame
    data[position + 20 : position + size] = bytes(size - 20)
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(data)
    early, late = read_frames(path, [0.5]), 90 / 25
    assert np.array_equal(early[0].image, truth[shown(truth, 0.5)][1]) or suffix == ".avi"
    with pytest.raises(MediaError, match=r"damaged: 1 of the 2 frames asked for.*2\.\d"):
        read_frames(path, [0.5, 52 / 25])
    if suffix != ".avi":  # AVI without own times is watched from the start
        assert np.array_equal(read_frames(path, [late])[0].image, truth[90][1])


def test_a_lying_header_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20)
    for seconds in (0, 36_000):
        data = bytearray(path.read_bytes())
        for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
            at = data.find(box) + offset
            data[at : at + 4] = (seconds * 1000).to_bytes(4, "big")
        lying = tmp_path / f"lying{seconds}.mp4"
        lying.write_bytes(data)
        info = probe(lying)
        assert info.n_frames == 20
        assert info.duration_s == pytest.approx(0.8)
        assert [number_of(f.image) for f in sample_frames(lying, 4, rule="uniform")] == [
            2,
            7,
            12,
            17,
        ]


def test_whatever_the_damage_only_a_named_error_comes_out(
    files: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    sound = [
        write_audio(tmp_path / "a.m4a", tone(0.5)[None]),
        write_video(tmp_path / "v.mp4", 10, rotation=90, audio=tone(0.4)[None]),
    ]
    for source in [*files.values(), *sound]:
        for _ in range(4):
            data = bytearray(source.read_bytes())
            for at in rng.integers(len(data), size=4):
                data[at : at + 30] = rng.bytes(len(data[at : at + 30]))
            bad = tmp_path / f"bad{source.suffix}"
            bad.write_bytes(data[: len(data) - int(rng.integers(2)) * 200])
            for use in (probe, sample_frames, read_audio):
                with contextlib.suppress(MediaError):
                    use(bad)


@pytest.mark.parametrize("matrix", [(1, -1, 1, 1), (1, 1, 0, 1), (0, 0, 0, 0)])
def test_a_senseless_display_matrix_is_left_alone(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    a, b, c, d = (65536 * k for k in matrix)
    path = write_video(tmp_path / "m.mp4", 3, matrix=[a, b, 0, c, d, 0, 0, 0, 2**30])
    assert number_of(read_frames(path, [0.05])[0].image) == 1


def test_odd_file_names_open(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 3)
    for name in ("12:30 clip.mp4", "结果\n二.mp4", "http:x.mp4", "%d.mp4", "-i.mp4"):
        copy = Path(shutil.copy(path, tmp_path / name))
        assert len(sample_frames(copy)) == 6


def test_probe_reports_sound(tmp_path: Path) -> None:
    assert not probe(write_video(tmp_path / "a.mp4", 5)).has_audio
    assert probe(write_video(tmp_path / "b.mp4", 5, audio=tone(0.2)[None])).has_audio


@pytest.mark.shared
def test_real_clips_match_a_full_decode() -> None:
    for path in sorted(shared("data/clips/video").glob("*.mp4")):
        truth = every_frame(path)
        frames = sample_frames(path, seed=3)
        assert frames.distinct == 6
        for asked, frame in zip(frames.times, frames, strict=True):
            assert np.array_equal(frame.image, truth[shown(truth, asked)][1])
