from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emolib import words
from emolib.__main__ import main
from emolib.datasets.clip import Clip
from emolib.errors import EngineError, MissingDependencyError, MissingModelError
from emolib.ledger import Ledger
from emolib.media import asr, transcript
from emolib.media.asr import Recognizer, loud_seconds, open_recognizer, speech_spans
from emolib.media.transcript import PHRASES, Segment, make_transcript, simplify
from emolib.params import profiles
from emolib.params.media import AsrParams
from emolib.words import with_words, words_summary
from tests.fakes import FakeEngine
from tests.media_files import tone, write_audio, write_video
from tests.shared import shared

RATE = 16_000


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def wav(path: Path, sound: np.ndarray) -> Path:
    return write_audio(path, sound[None].astype(np.float32))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny Whisper in openai-whisper's own format that says "hello" to everything.

    The last layer gives the same state whatever is heard, and that state means the word.
    """
    import whisper
    from whisper.tokenizer import get_tokenizer

    torch.manual_seed(0)
    dims = whisper.ModelDimensions(
        n_mels=80,
        n_audio_ctx=1500,
        n_audio_state=16,
        n_audio_head=2,
        n_audio_layer=1,
        n_vocab=51865,
        n_text_ctx=8,
        n_text_state=16,
        n_text_head=2,
        n_text_layer=1,
    )
    model = whisper.Whisper(dims)
    tokenizer = get_tokenizer(multilingual=True)
    [word] = tokenizer.encode(" hello")
    with torch.no_grad():
        torch.nn.init.normal_(model.decoder.positional_embedding)
        model.decoder.ln.weight.zero_()
        model.decoder.ln.bias.copy_(torch.eye(16)[0])
        model.decoder.token_embedding.weight[:, 0] = 0
        model.decoder.token_embedding.weight[word, 0] = 11
        model.decoder.token_embedding.weight[tokenizer.timestamp_begin, 0] = 1
    path = tmp_path_factory.mktemp("whisper") / "nano.pt"
    torch.save({"dims": asdict(dims), "model_state_dict": model.state_dict()}, path)
    return path


def nano(checkpoint: Path, **more: object) -> AsrParams:
    values: dict[str, object] = {"model": str(checkpoint), "device": "cpu", "language": "en"}
    return AsrParams(**{**values, "beam_size": 1, "temperatures": (0.0,), **more})


class Fake(Recognizer):
    """Says what it is told to, and counts how often it is asked."""

    fingerprint = "fake"

    def __init__(self, *texts: str, language: str = "zh", **segment: float) -> None:
        super().__init__(AsrParams(model="fake"), "fake")
        base = {"no_speech_prob": 0.01, "avg_logprob": -0.2, "compression_ratio": 1.0} | segment
        self.segments = [Segment(k, k + 1, text, **base) for k, text in enumerate(texts)]
        self.language = language
        self.asked: list[list[asr.Span]] = []

    def hear(self, sound, spans):
        self.asked.append(list(spans))
        return self.segments, self.language


def segment(text: str, **values: float) -> Segment:
    base = Segment(0.0, 1.0, text, 0.01, -0.2, 1.0)
    return replace(base, **values)


def said(text: str, language: str = "zh", **values: float):
    return make_transcript([segment(text, **values)], language, AsrParams())


# --- the gate


def test_spans_part_at_long_pauses_only():
    sound = np.concatenate(
        [silence(1), tone(1.0), silence(0.5), tone(1.0), silence(4), tone(0.5), silence(1)]
    )
    first, second = speech_spans(sound, -50)
    assert first == pytest.approx((1 - asr.EDGE_S, 3.5 + asr.EDGE_S), abs=0.07)
    assert second == pytest.approx((7.5 - asr.EDGE_S, 8 + asr.EDGE_S), abs=0.07)
    assert loud_seconds(sound, -50) == pytest.approx(2.5, abs=0.1)


def test_no_sound_no_spans():
    for sound in (np.zeros(0, np.float32), silence(3), np.full(RATE, 0.5, np.float32)):
        assert speech_spans(sound, -50) == []
        assert loud_seconds(sound, -50) == 0


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=8))
def test_spans_cover_what_is_loud(parts):
    sound = np.concatenate([tone(s) if loud else silence(s) for s, loud in parts])
    spans = speech_spans(sound, -50)
    length = sound.size / RATE
    assert all(0 <= start < end <= length for start, end in spans)
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    covered = sum(end - start for start, end in spans)
    assert covered >= loud_seconds(sound, -50) - 1e-6


def test_silence_is_not_shown_to_the_model(tmp_path):
    fake = Fake("你好")
    quiet = wav(tmp_path / "quiet.wav", silence(3))
    heard = fake.transcribe(quiet)
    assert (heard.text, heard.silent, fake.asked) == ("", True, [])
    click = np.concatenate([silence(1), tone(0.05), silence(1)])
    assert fake.transcribe(wav(tmp_path / "click.wav", click)).silent
    assert fake.asked == []
    assert fake.transcribe(wav(tmp_path / "loud.wav", tone(1.0))).text == "你好"
    assert len(fake.asked) == 1


# --- what is kept


@pytest.mark.parametrize(
    "text",
    [
        "字幕由 Amara.org 社区提供",
        "中文字幕由 Amara.org 社群提供",
        "請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目",
        "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
        "明镜需要您的支持 欢迎收看订阅明镜",
        "优优独播剧场——YoYo Television Series Exclusive",
        "謝謝觀看！",
        "谢谢观看。谢谢观看。",
        " Thanks for watching!",
        "Thanks for watching! Thanks for watching!",
        "Subtitles by the Amara.org community",
    ],
)
def test_invented_phrases_are_dropped(text):
    heard = said(text)
    assert heard.text == ""
    assert [why for _, why in heard.dropped] == ["phrase"]


@pytest.mark.parametrize(
    "text",
    [
        "谢谢你来看我",
        "谢谢",
        "Thank you.",
        "you know what I mean",
        "我在看字幕",
        "别再跟我说感觉。",
    ],
)
def test_what_people_say_stays(text):
    assert said(text, "en").text == text


def test_doubtful_phrases_go_when_the_model_doubts_too():
    assert said("Thank you.", no_speech_prob=0.4).text == ""
    assert said("Thank you for coming.", no_speech_prob=0.4).text == "Thank you for coming."


def test_the_models_own_doubts():
    assert said("嗯", no_speech_prob=0.9, avg_logprob=-1.5).dropped[0][1] == "silence"
    assert said("嗯", no_speech_prob=0.9, avg_logprob=-0.2).text == "嗯"
    assert said("啊" * 200, compression_ratio=20.0).dropped[0][1] == "loop"


def test_the_prompt_is_no_speech():
    params = AsrParams(prompt="以下是普通话的句子。")
    heard = make_transcript([segment("以下是普通話的句子"), segment("走吧")], "zh", params)
    assert (heard.text, heard.dropped[0][1]) == ("走吧", "prompt")


def test_phrases_and_simplification_can_be_switched_off():
    params = AsrParams(phrases=False, simplified=False)
    assert make_transcript([segment("謝謝觀看")], "zh", params).text == "謝謝觀看"


def test_simplified_characters():
    assert said("著急什麼？頭髮亂了，發現沒有？").text == "着急什么？头发乱了，发现没有？"
    assert said("我在看著你寫的名著").text == "我在看着你写的名著"
    assert said("髪が乱れた", "ja").text == "髪が乱れた"
    assert simplify("plain") == "plain"


def test_segments_are_joined_by_script():
    def joined(*texts):
        return make_transcript([segment(t) for t in texts], "en", AsrParams()).text

    assert joined(" Go ", " home. ", " ") == "Go home."
    assert joined("你来", "了。", "真好") == "你来了。真好"
    assert joined("你说", "OK", "吗") == "你说 OK 吗"


def test_every_phrase_has_a_source():
    with PHRASES.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["source"] and row["when"] in ("always", "alone", "doubt") for row in rows)
    assert len({row["phrase"] for row in rows}) == len(rows)
    assert {phrase.text for phrase in transcript.known_phrases()} >= {"amaraorg", "谢谢观看"}


def test_without_opencc_the_message_names_the_remedy(monkeypatch, checkpoint):
    monkeypatch.setitem(sys.modules, "opencc", None)
    transcript._converter.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match=r"\[train\].*simplified: false"):
            open_recognizer(nano(checkpoint, language=""))
        open_recognizer(nano(checkpoint, language="en"))
        open_recognizer(nano(checkpoint, language="", simplified=False))
    finally:
        transcript._converter.cache_clear()


# --- the models


def test_whisper_on_a_tiny_checkpoint(checkpoint, tmp_path):
    path = wav(tmp_path / "a.wav", tone(1.0))
    first = open_recognizer(nano(checkpoint)).transcribe(path)
    assert (first.text, first.language, first.dropped) == ("hello hello hello", "en", ())
    assert 0 <= first.kept[0].no_speech_prob < 0.1
    assert -1 < first.kept[0].avg_logprob < 0
    assert open_recognizer(nano(checkpoint)).transcribe(path) == first
    beams = nano(checkpoint, beam_size=3, language="")
    assert open_recognizer(beams).transcribe(path).text.startswith("hello")


def test_sampling_is_seeded_and_leaves_the_generator_alone(checkpoint, tmp_path):
    path = wav(tmp_path / "a.wav", tone(1.0))
    params = nano(checkpoint, temperatures=(1.5,), min_logprob=-100.0)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = open_recognizer(params).transcribe(path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    assert open_recognizer(params).transcribe(path) == first


def test_long_sound_is_heard_to_its_end(checkpoint, tmp_path):
    sound = np.concatenate([tone(35.0), silence(5), tone(24.0)])
    heard = open_recognizer(nano(checkpoint)).transcribe(wav(tmp_path / "a.wav", sound))
    seconds = [second for s in heard.kept for second in (s.start_s, s.end_s)]
    assert seconds == pytest.approx([0, 30, 30, 35.25, 39.75, 64], abs=0.05)  # not the pause
    assert heard.text.count("hello") == 9


@pytest.mark.parametrize("samples", [160_085, 160_079, 160_159, 16_081])
def test_odd_lengths_end(checkpoint, tmp_path, samples):
    sound = np.resize(tone(1.0), samples)
    heard = open_recognizer(nano(checkpoint)).transcribe(wav(tmp_path / "a.wav", sound))
    assert heard.kept[-1].end_s == pytest.approx(samples / RATE, abs=0.011)


@given(st.lists(st.floats(0, 40), min_size=2, max_size=6, unique=True), st.integers(200, 640_000))
def test_frames_asked_for_exist(edges, samples):
    edges = sorted(min(edge, samples / RATE) for edge in edges[: len(edges) // 2 * 2])
    frames = [round(s * 100) for s in asr._in_frames(list(batched(edges)), samples)]
    assert frames == sorted(frames)
    assert all(frame <= samples // 160 for frame in frames)
    assert len(frames) % 2 == 0
    assert all(a < b for a, b in batched(frames))


def batched(values):
    return list(zip(values[::2], values[1::2], strict=True))


def test_the_language_is_found_out(checkpoint, tmp_path):
    path = wav(tmp_path / "a.wav", tone(1.0))
    assert len(open_recognizer(nano(checkpoint, language="")).transcribe(path).language) in (2, 3)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"dims": {}}, [1, 2]])
def test_broken_checkpoints(content, tmp_path):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    recognizer = open_recognizer(nano(path))
    with pytest.raises(EngineError, match="not a Whisper checkpoint"):
        recognizer.hear(tone(1.0), [(0.0, 1.0)])


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_a_checkpoint_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"dims": Evil(), "model_state_dict": {}}, tmp_path / "evil.pt")
    with pytest.raises(EngineError, match="not a Whisper checkpoint"):
        open_recognizer(nano(tmp_path / "evil.pt")).hear(tone(1.0), [(0.0, 1.0)])
    assert not (tmp_path / "ran").exists()


def test_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(MissingModelError, match="allow_download"):
        open_recognizer(nano(Path("tiny")))
    with pytest.raises(MissingModelError, match="no official name"):
        open_recognizer(nano(tmp_path / "gone.pt"))
    with pytest.raises(MissingModelError, match="empty"):
        open_recognizer(AsrParams())


def test_faster_whisper(monkeypatch, tmp_path):
    with pytest.raises(MissingModelError, match=r"model\.bin"):
        open_recognizer(AsrParams(engine="faster-whisper", model=str(tmp_path)))
    (tmp_path / "model.bin").write_bytes(b"weights")
    params = AsrParams(engine="faster-whisper", model=str(tmp_path), language="zh", device="cpu")
    recognizer = open_recognizer(params)
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingDependencyError, match="pip install faster-whisper"):
        recognizer.hear(tone(1.0), [(0.0, 1.0)])
    calls = []

    class Model:
        def __init__(self, folder, **options):
            assert options["local_files_only"] is True

        def transcribe(self, sound, **options):
            calls.append(options)
            found = SimpleNamespace(
                start=0,
                end=1,
                text="你來了",
                no_speech_prob=0,
                avg_logprob=-0.1,
                compression_ratio=1,
            )
            return iter([found]), SimpleNamespace(language="zh")

    module = ModuleType("faster_whisper")
    module.WhisperModel = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    heard = recognizer.transcribe(wav(tmp_path / "a.wav", tone(1.0)))
    assert heard.text == "你来了"
    assert calls[0]["condition_on_previous_text"] is False
    assert calls[0]["clip_timestamps"] == pytest.approx([0, 1], abs=0.01)
    before = recognizer.fingerprint
    (tmp_path / "model.bin").write_bytes(b"other weights")
    assert open_recognizer(params).fingerprint != before


def test_a_model_that_overflows_is_unsure(monkeypatch, checkpoint, tmp_path):
    import whisper

    row = {"start": 0.0, "end": 1.0, "text": "uh", "compression_ratio": 1.0}
    row |= {"no_speech_prob": float("nan"), "avg_logprob": float("nan")}
    answer = {"segments": [row], "language": "en"}
    monkeypatch.setattr(whisper, "transcribe", lambda *args, **options: answer)
    params = nano(checkpoint, no_speech_prob=0.6, min_logprob=-1.0)
    heard = open_recognizer(params).transcribe(wav(tmp_path / "a.wav", tone(1.0)))
    assert [why for _, why in heard.dropped] == ["silence"]


# --- clips


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    wav(tmp_path / "loud.wav", tone(1.0))
    wav(tmp_path / "quiet.wav", silence(1))
    write_video(tmp_path / "dumb.mp4", 5)
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    known = Clip("known", tmp_path / "gone.mp4", subtitle="Hi", subtitle_source="official")
    return [
        known,
        Clip("loud", tmp_path / "dumb.mp4", audio=tmp_path / "loud.wav"),
        Clip("quiet", tmp_path / "quiet.wav"),
        Clip("dumb", tmp_path / "dumb.mp4"),
        Clip("broken", tmp_path / "broken.mp4"),
        Clip("gone", tmp_path / "gone.mp4"),
    ]


def test_every_clip_says_where_its_words_come_from(clips, tmp_path, monkeypatch):
    fake = Fake("你來了")
    monkeypatch.setattr(words, "open_recognizer", lambda params: fake)
    with Ledger(tmp_path / "words.jsonl") as ledger:
        heard = with_words(clips, AsrParams(model="fake"), ledger)
        assert {c.name: (c.subtitle, c.subtitle_source) for c in heard} == {
            "known": ("Hi", "official"),
            "loud": ("你来了", "asr:fake"),
            "quiet": (None, "asr:fake:silent"),
            "dumb": (None, "no-audio"),
            "broken": (None, "unreadable"),
            "gone": (None, "unreadable"),
        }
        assert words_summary(heard)["unreadable"] == 2
        [row] = [row for row in ledger if row["task"] == "loud/words"]
        assert row["segments"][0]["avg_logprob"] == -0.2
        assert len(fake.asked) == 1
    with Ledger(tmp_path / "words.jsonl") as ledger:
        assert with_words(clips, AsrParams(model="fake"), ledger) == heard
        assert len(fake.asked) == 1
        assert len(ledger) == 4


def test_other_options_are_asked_again(clips, tmp_path, checkpoint):
    loud = [clips[1]]
    with Ledger(tmp_path / "words.jsonl") as ledger:
        first = with_words(loud, nano(checkpoint), ledger)
        assert len(ledger) == 1
        with_words(loud, nano(checkpoint, device="auto"), ledger)  # where does not matter
        assert len(ledger) == 1
        with_words(loud, nano(checkpoint, beam_size=2), ledger)
        assert len(ledger) == 2
    assert (first[0].subtitle, first[0].subtitle_source) == ("hello hello hello", "asr:nano")


def test_without_a_model_nothing_changes(clips, tmp_path):
    with Ledger(tmp_path / "words.jsonl") as ledger:
        assert with_words(clips, AsrParams(), ledger) == clips
        assert len(ledger) == 0


def test_clips_with_words_need_no_model(clips, tmp_path):
    with Ledger(tmp_path / "words.jsonl") as ledger:
        assert with_words(clips[:1], AsrParams(model="/nowhere.pt"), ledger) == clips[:1]


def test_predict_hears_what_nobody_wrote_down(tmp_path, monkeypatch, checkpoint, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "loud.mp4", 25, audio=tone(1.0)[None].astype(np.float32))
    write_video(folder / "known.mp4", 25)
    (tmp_path / "words.csv").write_text("name,subtitle\nknown,Go home!\n")
    real = profiles.base_params
    changed = {"outputs": str(tmp_path / "outputs"), "asr": nano(checkpoint, model="")}
    monkeypatch.setattr(profiles, "base_params", lambda r, p: real(r, p).model_copy(update=changed))
    engine = FakeEngine()
    monkeypatch.setattr("emolib.engines.open_engine", lambda *args, **options: engine)
    out = tmp_path / "out.jsonl"
    command = ["predict", str(folder), "--table", str(tmp_path / "words.csv"), "--out", str(out)]
    ears = shutil.copy(checkpoint, tmp_path / "ears.pt")
    assert main([*command, "--asr", str(ears), "--language", "de"]) == 0
    rows = {row["name"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert rows["known"]["info"]["subtitle_source"] == "file"
    assert rows["loud"]["info"]["subtitle_source"] == "asr:ears"
    assert "words: " in capsys.readouterr().out
    prompts = {request.prompt for request in engine.seen}
    for said in ("Go home!", "hello hello hello"):
        assert any(said in prompt for prompt in prompts), said
    [row] = map(json.loads, (tmp_path / "outputs/demo/ledger/words.jsonl").open())
    assert row["language"] == "de"


@pytest.mark.shared
def test_real_clips_all_say_where_their_words_come_from(tmp_path, checkpoint):
    root = shared("data/clips/video")
    clips = [Clip(path.stem, path) for path in sorted(root.glob("*.mp4"))]
    index = (root.parent / "index.csv").read_text(encoding="utf-8").splitlines()
    tracks = {row["file"]: row["audio"] for row in csv.DictReader(index)}
    with Ledger(tmp_path / "words.jsonl") as ledger:
        heard = with_words(clips, nano(checkpoint), ledger)
    for clip in heard:
        source = clip.subtitle_source
        expected = {
            "present": source == "asr:nano",
            "silent": source == "asr:nano:silent",
            "none": source == "no-audio",
        }
        assert expected[tracks[f"video/{clip.video.name}"]], (clip.name, source)
