"""Weight-free features: invariants, ranges, the cache, and the loop over clips."""

from __future__ import annotations

import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emolib.datasets.clip import Clip
from emolib.errors import DataError, MediaError, ParamsError
from emolib.features import table, voice, words
from emolib.features.cache import FeatureCache
from emolib.features.picture import NAMES as PICTURE_NAMES
from emolib.features.picture import picture_features, picture_frames
from emolib.features.statistics import PictureStatistics, VoiceStatistics, WordStatistics
from emolib.features.table import feature_table, shorten
from emolib.media import faces
from emolib.media.detectors import Face
from emolib.media.faces import crop_face
from emolib.models.features.open import feature_tables, open_extractor
from emolib.params.discriminative import FeatureParams
from emolib.params.media import FaceParams
from tests.media_files import tone, write_audio, write_video

LEVEL = voice.NAMES.index("level_db")


def speech(hertz: float = 150.0, seconds: float = 1.2, rate: float = 4.0, seed: int = 0):
    """A buzz with harmonics in syllables, float32 [samples] at 16 kHz."""
    t = np.arange(round(seconds * voice.RATE)) / voice.RATE
    buzz = sum(np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, 20))
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * rate * t)
    noise = np.random.default_rng(seed).normal(size=t.size) * 1e-3
    return (0.1 * buzz * syllables + noise).astype(np.float32)


def named(vector: np.ndarray) -> dict[str, float]:
    return dict(zip(voice.NAMES, vector.tolist(), strict=True))


@pytest.mark.parametrize("hertz", [80.0, 120.0, 220.0, 400.0])
def test_pitch_is_found(hertz):
    found = named(voice.voice_features(speech(hertz)))["pitch_p50"]
    assert found == pytest.approx(12 * np.log2(hertz / voice.PITCH_HZ[0]), abs=0.3)


@pytest.mark.parametrize("gain", [0.05, 0.5, 3.0])
def test_gain_changes_the_level_alone(gain):
    before, after = (voice.voice_features(x) for x in (speech(), speech() * np.float32(gain)))
    assert after[LEVEL] - before[LEVEL] == pytest.approx(20 * np.log10(gain), abs=1e-3)
    rest = np.arange(len(before)) != LEVEL
    np.testing.assert_allclose(after[rest], before[rest], rtol=1e-3, atol=2e-3)


def test_a_constant_offset_is_not_heard():
    plain, shifted = voice.voice_frames(speech()), voice.voice_frames(speech() + np.float32(0.1))
    np.testing.assert_allclose(shifted, plain, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    "sound",
    [np.zeros(0), np.zeros(100), np.zeros(16_000), np.full(16_000, 0.3), np.ones(1)],
    ids=["nothing", "short", "silence", "offset", "one sample"],
)
def test_silence_has_no_voice_and_no_nan(sound):
    frames, vector = voice.voice_frames(sound), voice.voice_features(sound)
    assert np.isfinite(frames).all()
    assert np.isfinite(vector).all()
    assert named(vector)["voiced_share"] == 0
    assert named(vector)["peaks_per_s"] == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20_000), st.floats(1e-6, 1.0))
def test_voice_is_finite_and_in_range_for_any_sound(seed, samples, scale):
    sound = np.random.default_rng(seed).normal(size=samples).clip(-1, 1) * scale
    vector = named(voice.voice_features(sound))
    assert np.isfinite(list(vector.values())).all()
    for name in ("voiced_share", "pause_share", "pitch_tremor", "energy_tremor"):
        assert 0 <= vector[name] <= 1
    assert 0 <= vector["centroid_mean"] <= 8
    assert vector["energy_db_p90"] <= 20


def test_faster_syllables_are_counted():
    slow, fast = (named(voice.voice_features(speech(rate=r, seconds=3))) for r in (2.0, 6.0))
    assert slow["peaks_per_s"] == pytest.approx(2, abs=0.7)
    assert fast["peaks_per_s"] == pytest.approx(6, abs=0.7)


def test_tremor_and_jitter_rise_with_an_unsteady_voice():
    t = np.arange(32_000) / voice.RATE
    rng = np.random.default_rng(0)

    def sing(wobble: np.ndarray) -> dict[str, float]:
        phase = 2 * np.pi * np.cumsum(150 * (1 + wobble)) / voice.RATE
        return named(voice.voice_features(0.1 * sum(np.sin(k * phase) / k for k in range(1, 9))))

    slow = sing(0.05 * np.sin(2 * np.pi * 1.5 * t))
    tremor = sing(0.05 * np.sin(2 * np.pi * 7 * t))
    rough = sing(np.repeat(rng.normal(scale=0.05, size=400), 80))
    assert tremor["pitch_tremor"] > slow["pitch_tremor"] + 0.3
    assert rough["jitter"] > 3 * slow["jitter"]


def test_one_channel_and_two_equal_ones_sound_the_same(tmp_path):
    sound = speech()
    vectors = []
    for name, channels in (("mono", sound[None]), ("stereo", np.stack([sound, sound]))):
        path = write_audio(tmp_path / f"{name}.wav", channels)
        extractor = VoiceStatistics()
        clip = Clip(name=name, video=path)
        vectors += extractor.extract([extractor.load(clip)])
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-3, atol=1e-2)


def picture(seed: int, size: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_pictures_are_finite_in_range_and_named():
    images = [picture(k) for k in range(3)]
    crops = [crop_face(image, None, FaceParams(size=64)) for image in images]
    table = picture_frames(images, crops)
    assert table.shape == (3, len(PICTURE_NAMES))
    assert np.isfinite(table).all()
    columns = dict(zip(PICTURE_NAMES, table.T, strict=True))
    assert not columns["face_found"].any()
    assert not columns["face_edge_0"].any()
    assert columns["motion"][0] == 0
    assert (columns["motion"][1:] > 0).all()
    free = [k for k, name in enumerate(PICTURE_NAMES) if name not in ("warmth", "faces")]
    assert np.abs(table[:, free]).max() <= 1
    assert picture_features(table).shape == (2 * len(PICTURE_NAMES),)


@pytest.mark.parametrize("value", [0, 255])
def test_a_plain_picture_has_no_edges_and_no_nan(value):
    image = np.full((40, 60, 3), value, np.uint8)
    table = picture_frames([image], [crop_face(image, None, FaceParams(size=64))])
    columns = dict(zip(PICTURE_NAMES, table[0], strict=True))
    assert np.isfinite(table).all()
    assert columns["edges"] == columns["contrast"] == columns["saturation"] == 0
    assert columns["brightness"] == pytest.approx(value / 255)


def test_words_hash_the_same_everywhere_and_have_unit_length():
    table = words.text_features(["什么？你别走！", "Don't go", "", None], 256)
    length = np.linalg.norm(table[:, :256], axis=1)
    np.testing.assert_allclose(length, [1, 1, 0, 0], atol=1e-5)
    assert table[2:, 256 + words.MARKS.index("blank")].tolist() == [1, 1]
    assert table[:, 256:].min() >= 0
    assert table[:, 256:].max() <= 1
    assert words.text_features(["什么"], 256)[0].nonzero()[0].tolist() == sorted(
        {zlib.crc32(g.encode()) & 255 for g in words.ngrams("什么")}
        | {256 + words.MARKS.index("length")}
    )


def test_full_width_and_half_width_are_one_text():
    pair = words.text_features(["走！ABC？", "走!abc?"], 512)
    np.testing.assert_array_equal(pair[0], pair[1])


def test_sparse_counts_are_the_dense_ones():
    texts = ["哈哈哈哈", "not happy, not at all", ""]
    table = words.count_table("n", texts, 1024)
    dense = table.values.toarray()
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(dense, words.text_features(texts, 1024)[:, :1024], atol=1e-6)
    assert table.missing.tolist() == [False, False, True]


def test_hash_size_must_be_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        words.text_features(["a"], 100)


def test_cache_gives_the_same_bytes_back_mapped(tmp_path):
    cache = FeatureCache(tmp_path)
    array = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    key = cache.key({"audio": "a"}, {"kind": "x"})
    assert cache.get(key) is None
    cache.put(key, array)
    again = cache.get(key)
    assert isinstance(again, np.memmap)
    assert again.tobytes() == array.tobytes()
    assert key != cache.key({"audio": "b"}, {"kind": "x"})
    assert key != cache.key({"audio": "a"}, {"kind": "y"})


@pytest.mark.parametrize("where", [10, 200, -1])
def test_a_flipped_bit_or_a_cut_file_is_detected(tmp_path, where):
    cache = FeatureCache(tmp_path)
    cache.put("ab" * 32, np.arange(64, dtype=np.float32))
    path = cache.path("ab" * 32)
    raw = bytearray(path.read_bytes())
    raw[where] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged"):
        cache.get("ab" * 32)
    path.write_bytes(raw[:40])
    with pytest.raises(DataError, match="damaged"):
        cache.get("ab" * 32)


@pytest.mark.parametrize("bad", [np.array([np.nan]), np.array([np.inf]), np.zeros((0, 3))])
def test_cache_refuses_what_is_no_feature(tmp_path, bad):
    with pytest.raises(ValueError, match="features"):
        FeatureCache(tmp_path).put("ab" * 32, bad)


class Counting(WordStatistics):
    calls = 0

    def extract(self, items):
        type(self).calls += len(items)
        return super().extract(items)


def text_clips(tmp_path) -> list[Clip]:
    words_of = ["你好", "Go away!", None, "哈哈"]
    return [Clip(f"c{k}", tmp_path / "none.mp4", subtitle=w) for k, w in enumerate(words_of)]


def test_second_time_everything_comes_from_the_cache(tmp_path):
    cache, clips = FeatureCache(tmp_path), text_clips(tmp_path)
    Counting.calls = 0
    first = feature_table(clips, Counting(64), cache)
    assert Counting.calls == 3
    second = feature_table(clips, Counting(64), cache)
    assert Counting.calls == 3
    np.testing.assert_array_equal(first.values, second.values)
    assert first.missing.tolist() == [False, False, True, False]
    assert "no subtitle" in first.errors["c2"]
    assert not first.values[2].any()


def test_a_damaged_entry_is_told_and_computed_again(tmp_path):
    cache, clips = FeatureCache(tmp_path), text_clips(tmp_path)
    before = feature_table(clips, WordStatistics(64), cache)
    victim = sorted(tmp_path.rglob("*.npy"))[0]
    victim.write_bytes(victim.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="damaged"):
        after = feature_table(clips, WordStatistics(64), cache)
    np.testing.assert_array_equal(before.values, after.values)
    feature_table(clips, WordStatistics(64), cache)  # repaired: no warning


def test_a_clip_without_sound_is_missing_not_fatal(tmp_path):
    sound = np.stack([tone(0.6)])
    clips = [
        Clip("with", write_video(tmp_path / "a.mp4", 8, audio=sound), subtitle="x"),
        Clip("without", write_video(tmp_path / "b.mp4", 8), subtitle="y"),
        Clip("absent", tmp_path / "c.mp4", subtitle="z"),
    ]
    features = [FeatureParams(kind="voice"), FeatureParams(kind="picture", frames=2)]
    voices, pictures = feature_tables(clips, features, tmp_path / "cache")
    assert voices.missing.tolist() == [False, True, True]
    assert pictures.missing.tolist() == [False, False, True]
    assert pictures.width == 2 * len(PICTURE_NAMES)
    assert set(voices.errors) == {"without", "absent"}


def test_no_clip_at_all_is_an_error(tmp_path):
    clip = Clip("x", tmp_path / "x.mp4")
    with pytest.raises(DataError, match=r"no features of any of 1 clips.*no subtitle"):
        feature_table([clip], WordStatistics(64), FeatureCache(tmp_path / "cache"))


def test_frame_level_is_padded_and_averaged_down(tmp_path):
    paths = [write_audio(tmp_path / f"{s}.wav", tone(s)[None]) for s in (0.3, 2.0)]
    clips = [Clip(p.stem, p) for p in paths]
    params = FeatureParams(kind="voice", level="frame", max_steps=40)
    [table] = feature_tables(clips, [params], tmp_path / "cache")
    assert table.values.shape == (2, 40, len(voice.DESCRIPTORS))
    assert table.lengths.tolist() == [27, 40]
    assert not table.values[0, 27:].any()


def test_shorten_keeps_the_mean():
    array = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    np.testing.assert_allclose(shorten(array, 40).mean(axis=0), array.mean(axis=0), atol=1e-5)
    assert shorten(array, 200) is array


def test_two_extractors_of_one_name_are_refused(tmp_path):
    with pytest.raises(ParamsError, match="not all different"):
        feature_tables([], [FeatureParams(kind="voice")] * 2, tmp_path)


def test_parameters_contradicting_themselves_are_refused():
    with pytest.raises(ValueError, match="needs a model folder"):
        FeatureParams(kind="audio_model")
    with pytest.raises(ValueError, match="takes no model folder"):
        FeatureParams(kind="voice", model="x")
    with pytest.raises(ValueError, match="power of two"):
        FeatureParams(kind="words", size=100)


def test_the_identity_tells_levels_and_crops_apart():
    one = PictureStatistics(frames=6).identity
    assert one != PictureStatistics(frames=5).identity
    assert one != PictureStatistics(face=FaceParams(size=96)).identity
    assert open_extractor(FeatureParams(kind="voice", name="v")).name == "v"


def test_a_clip_without_words_says_so(tmp_path):
    with pytest.raises(MediaError, match="no subtitle"):
        WordStatistics().load(Clip("x", tmp_path / "x.mp4"))


def test_the_detection_rate_is_kept_with_the_features(tmp_path, monkeypatch):
    clips = [Clip(f"c{k}", write_video(tmp_path / f"c{k}.mp4", 6)) for k in range(2)]

    class Half:
        """Finds a face in every second frame."""

        n = 0

        def detect(self, image):
            self.n += 1
            return [Face((8.0, 8.0, 40.0, 40.0), 1.0)] if self.n % 2 else []

    own = threading.local()
    monkeypatch.setattr(faces, "shared_detector", lambda _: own.__dict__.setdefault("it", Half()))
    cache = FeatureCache(tmp_path / "cache")
    first = feature_table(clips, PictureStatistics(frames=4), cache)
    again = feature_table(clips, PictureStatistics(frames=4), cache)
    assert first.faces == again.faces == {"frames": 8, "found": 4}
    assert again.rows(np.array([0])).faces == first.faces
    voiceless = feature_table([Clip("w", clips[0].video, subtitle="Hi")], WordStatistics(), cache)
    assert voiceless.faces == {}


def test_clips_computed_side_by_side_give_the_same_table(tmp_path, monkeypatch):
    clips = [Clip(f"c{k}", write_video(tmp_path / f"c{k}.mp4", 3 + k)) for k in range(7)]
    clips.insert(3, Clip("gone", tmp_path / "gone.mp4"))
    threads = set()

    class Watched(PictureStatistics):
        def extract(self, items):
            threads.add(threading.get_ident())
            return super().extract(items)

    tables = []
    for cores in (1, 3):
        monkeypatch.setattr(table, "cores", lambda n=cores: n)
        cache = FeatureCache(tmp_path / f"cache{cores}")
        tables.append(feature_table(clips, Watched(frames=2), cache))
        assert (threads == {threading.get_ident()}) is (cores == 1)
    alone, together = tables
    assert np.array_equal(alone.values, together.values)
    assert list(np.flatnonzero(together.missing)) == [3]
    assert set(together.errors) == {"gone"}
    assert alone.faces == together.faces
