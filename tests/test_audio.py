"""Sound comes out as one channel at the asked rate, and what cannot be read is named."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from emolib.errors import MediaError
from emolib.media.audio import NoAudioError, is_silent, read_audio, read_channels
from tests.media_files import tone, write_audio, write_video
from tests.shared import shared


def _pitch(sound: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.fft.rfftfreq(len(sound), 1 / rate)[spectrum.argmax()])


def _write_pcm(path: Path, pcm: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(pcm.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a"])
def test_sound_files_at_another_rate(tmp_path: Path, suffix: str) -> None:
    path = write_audio(tmp_path / f"a{suffix}", tone(1.0, 44_100)[None], 44_100)
    sound = read_audio(path)
    assert sound.dtype == np.float32
    assert sound.ndim == 1
    assert len(sound) == pytest.approx(16_000, abs=1200 if suffix in (".mp3", ".m4a") else 2)
    assert _pitch(sound, 16_000) == pytest.approx(440, abs=2)
    middle = sound[4000:12_000]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_the_track_of_a_video(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", 25, audio=tone(1.0)[None])
    sound = read_audio(path)
    assert len(sound) == pytest.approx(16_000, abs=1100)
    assert _pitch(sound, 16_000) == pytest.approx(440, abs=2)


def test_wav_at_the_same_rate_is_exact(tmp_path: Path) -> None:
    pcm = np.random.default_rng(0).integers(-(2**15), 2**15, 5001).astype("<i2")
    path = _write_pcm(tmp_path / "a.wav", pcm)
    assert np.array_equal(read_audio(path), pcm.astype(np.float32) / 2**15)


def test_wav_written_to_a_pipe_states_no_length(tmp_path: Path) -> None:
    path = _write_pcm(tmp_path / "a.wav", np.full(5000, 99, "<i2"))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    path.write_bytes(data)
    assert len(read_audio(path)) == 5000


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    levels = np.linspace(-0.9, 0.7, channels, dtype=np.float32)[:, None]
    path = write_audio(tmp_path / "a.wav", np.repeat(levels, 3200, axis=1))
    assert read_audio(path) == pytest.approx(np.full(3200, levels.mean()), abs=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_come_by_themselves_at_their_own_rate(tmp_path: Path, channels: int) -> None:
    levels = np.linspace(-0.9, 0.7, channels, dtype=np.float32)[:, None]
    path = write_audio(tmp_path / "a.wav", np.repeat(levels, 4410, axis=1), 44_100)
    sound = read_channels(path)
    assert sound.rate == 44_100
    assert sound.samples.shape == (channels, 4410)
    assert sound.samples.dtype == np.float32
    np.testing.assert_allclose(sound.samples, np.broadcast_to(levels, (channels, 4410)), atol=1e-4)


def test_channels_of_a_file_without_sound(tmp_path: Path) -> None:
    with pytest.raises(NoAudioError, match="no audio track"):
        read_channels(write_video(tmp_path / "a.mp4", 4))


def test_opposite_channels_cancel_and_equal_ones_do_not_clip(tmp_path: Path) -> None:
    x = tone(0.5, level=0.99)
    assert np.abs(read_audio(write_audio(tmp_path / "o.wav", np.stack([x, -x])))).max() < 1e-3
    assert np.abs(read_audio(write_audio(tmp_path / "e.wav", np.stack([x, x]))) - x).max() < 1e-3


def test_loud_float_sound_stays_in_range(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "a.wav", 3 * tone(0.5)[None], codec="pcm_f32le")
    assert np.abs(read_audio(path, 8_000)).max() == 1.0


def test_silence_is_sound(tmp_path: Path) -> None:
    sound = read_audio(write_video(tmp_path / "a.mp4", 10, audio=np.zeros((1, 6400), np.float32)))
    assert len(sound) > 5000
    assert not sound.any()
    assert is_silent(sound)


def test_no_track_is_its_own_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "mute.mp4", 5)
    with pytest.raises(NoAudioError, match=r"mute\.mp4: no audio track"):
        read_audio(path)
    empty = _write_pcm(tmp_path / "empty.wav", np.zeros(0, "<i2"))
    with pytest.raises(NoAudioError, match="empty"):
        read_audio(empty)


def test_unreadable_files_are_no_missing_track(tmp_path: Path) -> None:
    for name, content in (("random", np.random.default_rng(0).bytes(9000)), ("empty", b"")):
        (tmp_path / f"{name}.wav").write_bytes(content)
    for name in ("random", "empty", "missing"):
        with pytest.raises(MediaError, match=f"{name}.wav") as caught:
            read_audio(tmp_path / f"{name}.wav")
        assert not isinstance(caught.value, NoAudioError)


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_a_damaged_track_is_no_noise(tmp_path: Path, suffix: str) -> None:
    path = write_audio(tmp_path / f"a{suffix}", tone(4.0)[None])
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 3, len(data) - 50, 200):
        data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"(damaged|cut short).*\d\.\d\d s could be read"):
        read_audio(path)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp4", ".avi"])
def test_a_cut_track_says_how_much_is_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix in (".mp4", ".avi"):
        muxer = {"movflags": "faststart"} if suffix == ".mp4" else {}
        write_video(path, 50, audio=tone(2.0)[None], muxer=muxer)
    else:
        write_audio(path, tone(2.0)[None])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    with pytest.raises(MediaError, match=r"cut short; \d\.\d\d s could be read"):
        read_audio(path)


@pytest.mark.parametrize("extra", [-36, -1, 1, 8, 100_000])
def test_a_wrong_riff_length_cuts_no_track(tmp_path: Path, extra: int) -> None:
    path = write_audio(tmp_path / "a.wav", tone(1.0)[None])
    whole = read_audio(path)
    data = bytearray(path.read_bytes())
    data[4:8] = (int.from_bytes(data[4:8], "little") + extra).to_bytes(4, "little")
    path.write_bytes(data)
    assert np.array_equal(read_audio(path), whole)


def test_silence_gate() -> None:
    rng = np.random.default_rng(0)
    room = (0.0005 * rng.standard_normal(64_000)).astype(np.float32)
    word = room.copy()
    word[30_000:34_000] += tone(0.25, level=0.1)
    assert is_silent(np.zeros(0, np.float32))
    assert is_silent(room)
    assert is_silent(room + 0.3)
    assert not is_silent(word)
    assert not is_silent(word[:32_000])  # the word is at the very end
    assert not is_silent(tone(0.01))


@pytest.mark.shared
def test_real_sound() -> None:
    truth = {"present": False, "silent": True}
    rows = [line.split(",") for line in shared("data/clips/index.csv").read_text().splitlines()]
    for path in sorted(shared("data/clips/video").glob("*.mp4")):
        kind = next(row[-1] for row in rows if row[0].endswith(path.name))
        if kind == "none":
            with pytest.raises(NoAudioError):
                read_audio(path)
        else:
            assert is_silent(read_audio(path)) == truth[kind], path.name
    voices = sorted(shared("data/clips/audio").glob("*.wav"))
    for path in voices[:: len(voices) // 12]:
        with wave.open(str(path)) as file:
            seconds = file.getnframes() / file.getframerate()
        sound = read_audio(path)
        assert len(sound) == pytest.approx(seconds * 16_000, abs=2)
        assert not is_silent(sound)
