"""The generated world: causes, independence, splits, files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from emolib.datasets.demo import (
    GENERATOR,
    build,
    cast,
    demo_root,
    describe,
    lines,
    open_demo,
    phrases,
    read_metadata,
    reference_pairs,
    render,
    voice,
    world,
)
from emolib.datasets.demo.spec import FPS, RATE, draw, draw_set, speech
from emolib.errors import DataError
from emolib.params.schemas import DataParams

CLIPS = 10  # seven train, one val, two test
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    return outputs, open_demo(DataParams(clips=CLIPS), outputs)


def decode(path: Path) -> tuple[np.ndarray, np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        shown = list(container.decode(video=0))
        times = [float(f.pts * f.time_base) for f in shown]
        images = np.stack([f.to_ndarray(format="rgb24") for f in shown])
    with av.open(str(path)) as container:
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    return images, sound, times


def face_of(spec, frames):
    """The middle of the face, pixels that no background reaches."""
    x = round(render.SIZE * (0.5 + spec.shift))
    return np.stack(frames)[:, 88:104, x - 8 : x + 8]


# -- the causal table ------------------------------------------------------------------------


def test_vocabulary_is_large_and_each_label_has_one_cause():
    assert len(world.VOCABULARY) >= 60
    assert len(world.VOCABULARY) == sum(len(words) for words in world.CONCEPTS.values())
    assert all(len(words) >= 2 for words in world.CONCEPTS.values())
    assert all(word == word.lower().strip() for word in world.VOCABULARY)


def test_every_state_is_drawn_spoken_and_described():
    cores = {f"core.{c}.{d}" for c in world.CORES for d in ("mild", "strong")}
    assert set(lines.FACE) == set(lines.PROSODY) == cores
    names = {factor: {s.name for s in states} for factor, states in world.SECONDARY.items()}
    assert set(lines.BODY) == names["body"]
    assert set(lines.SETTING) == names["setting"]
    assert set(lines.VOICE) == names["voice"]
    assert set(lines.WORDS) - {""} == names["words"]
    assert set(render.GESTURES) - {""} == names["body"]
    for clauses in phrases.CLAUSES.values():
        assert set(clauses) - {""} == names["words"]
    for states in world.SECONDARY.values():
        assert all(set(state.likelier) <= set(world.CORES) for state in states)


def test_clips_have_two_to_five_labels_of_active_states():
    seen = set()
    for spec in draw_set(0, "base", 400):
        found = describe.labels(spec)
        flat = [word for words in found.values() for word in words]
        assert 2 <= len(flat) <= 5
        assert len(set(flat)) == len(flat)
        for factor, words in found.items():
            assert all(world.CAUSE[word] == spec.latent.concept(factor) for word in words)
        assert set(found) == {f for f in world.FACTORS if spec.latent.concept(f)}
        seen |= set(flat)
    assert len(seen) > 0.95 * len(world.VOCABULARY)


def test_affinity_only_leans():
    rng = np.random.default_rng(0)
    drawn = [world.draw_latent(rng) for _ in range(4000)]
    festive = [z.core for z in drawn if z.setting == "festive"]
    assert festive.count("happy") > 1.8 * len(festive) / len(world.CORES)
    assert set(festive) == set(world.CORES)  # never a sure sign


# -- which channel carries what --------------------------------------------------------------


def base_clip():
    spec = draw(0, "base", "train", 3)
    plain = world.Latent("worried", 0.7)
    return replace(spec, latent=plain, turned=False, weather="clear")


def test_voice_state_is_only_heard():
    calm = base_clip()
    plan = speech(calm)
    picture = np.stack(list(render.frames(calm, plan)))
    sounds = {"": voice.synthesise(calm, plan)}
    for state in world.SECONDARY["voice"]:
        other = replace(calm, latent=replace(calm.latent, voice=state.name))
        assert speech(other) == plan
        sounds[state.name] = voice.synthesise(other, plan)
        assert len(describe.labels(other)["voice"]) == 1
        assert describe.caption(other, 1.0) == describe.caption(calm, 1.0)
    np.testing.assert_array_equal(picture, np.stack(list(render.frames(other, plan))))
    assert len({sound.tobytes() for sound in sounds.values()}) == len(sounds)


def test_body_and_setting_are_only_seen_and_not_in_the_face():
    calm = base_clip()
    plan = speech(calm)
    frames = list(render.frames(calm, plan))
    sound = voice.synthesise(calm, plan)
    for factor in ("body", "setting"):
        for state in world.SECONDARY[factor]:
            other = replace(calm, latent=replace(calm.latent, **{factor: state.name}))
            assert speech(other) == plan
            np.testing.assert_array_equal(voice.synthesise(other, plan), sound)
            changed = list(render.frames(other, plan))[::6]
            difference = np.abs(np.stack(changed).astype(int) - np.stack(frames[::6])).mean()
            assert difference > 0.5, state.name
            if factor == "setting":
                np.testing.assert_array_equal(
                    face_of(other, changed), face_of(calm, frames[::6]), err_msg=state.name
                )


def test_words_state_is_only_in_the_sentence():
    calm = base_clip()
    clauses = set()
    for state in world.SECONDARY["words"]:
        other = replace(calm, latent=replace(calm.latent, words=state.name))
        plan = speech(other)
        clauses.add(plan.clause)
        assert plan.clause in phrases.CLAUSES["base", "train"][state.name]
        assert describe.caption(other, 1.0) == describe.caption(calm, 1.0)
        assert voice.prosody(other) == voice.prosody(calm)
        labels = describe.labels_by_perspective(other, plan)
        assert set(describe.labels(other)["words"]) <= set(labels["text"])
        assert not set(describe.labels(other)["words"]) & {*labels["video"], *labels["audio"]}
    assert len(clauses) == len(world.SECONDARY["words"])


def test_core_shows_in_face_and_voice():
    calm = base_clip()
    looks, sounds = [], []
    for core in world.CORES:
        for intensity in (0.2, 0.8):
            spec = replace(calm, latent=world.Latent(core, intensity))
            plan = speech(spec)
            looks.append(list(render.frames(spec, plan))[16].astype(int))
            sounds.append(voice.prosody(spec))
    assert len(set(sounds)) == len(sounds)
    for i, a in enumerate(looks):
        for b in looks[:i]:
            assert np.abs(a - b).max() > 60


def test_a_turned_head_tells_nothing_of_the_core():
    away = replace(base_clip(), turned=True)
    angry = replace(away, latent=world.Latent("angry", 0.9))
    shown = [list(render.frames(spec, speech(spec))) for spec in (away, angry)]
    for a, b in zip(*shown, strict=False):  # one may be longer: angry people speak faster
        np.testing.assert_array_equal(a, b)
    assert describe.labels_by_perspective(angry, speech(angry))["video"] == ()
    assert not set(world.CONCEPTS["core.angry.strong"]) & set(describe.caption(angry, 1.0).split())


def test_voices_differ_in_the_way_the_table_says():
    def spoken(state: str) -> tuple[np.ndarray, int]:
        spec = replace(base_clip(), latent=world.Latent("calm", 0.2, voice=state))
        plan = speech(spec)
        return voice.synthesise(spec, plan), round(plan.starts[0] * RATE)

    def periodicity(sound: np.ndarray) -> float:
        """Highest normalised autocorrelation at lags of 70 to 350 Hz, of the loudest 40 ms."""
        size = 1280
        energy = [np.sum(sound[i : i + size] ** 2) for i in range(0, len(sound) - size, 320)]
        start = 320 * int(np.argmax(energy))
        x = sound[start : start + size].astype(float)
        full = np.correlate(x, x, "full")[size - 1 :]
        return float((full[45:230] / full[0]).max())

    plain, begin = spoken("")
    whisper, _ = spoken("cautious")
    assert periodicity(plain) > periodicity(whisper) + 0.2
    for state in ("tired", "amused", "moved"):
        before = spoken(state)[0][:begin]
        assert np.std(before) > 3 * np.std(plain[:begin]), state


# -- independence and splits -----------------------------------------------------------------


def test_a_clip_depends_on_its_key_alone():
    few, many = draw_set(3, "base", 12), draw_set(3, "base", 200)
    assert many[:12] == few
    assert draw(3, "base", few[5].split, few[5].index) == few[5]
    assert draw_set(4, "base", 12) != few
    assert draw_set(3, "target", 12) != few


def test_the_world_is_that_of_its_generator_number():
    """Sums over texts, pictures and sound: a change of any must raise ``GENERATOR``."""
    rows = [build.row(s, speech(s)) for d in ("base", "target") for s in draw_set(0, d, 20)]
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
    specs = [draw(0, domain, "test", i) for domain in ("base", "target") for i in range(3)]
    pictures = [np.mean(list(render.frames(s, speech(s)))[::8]) for s in specs]
    sounds = [np.std(voice.synthesise(s, speech(s))) for s in specs]
    assert (GENERATOR, digest) == (1, "92e77f392fbf2482")
    np.testing.assert_allclose(
        pictures, [123.227, 139.358, 147.054, 79.817, 72.177, 125.258], rtol=1e-3
    )
    np.testing.assert_allclose(
        sounds, [0.053054, 0.095866, 0.025649, 0.060379, 0.092688, 0.069458], rtol=1e-3
    )


def test_splits_and_domains_share_no_person_place_or_sentence():
    for what in (
        {(d, s): {p.name for p in places} for (d, s), places in cast.PLACES.items()},
        {k: {c for v in blocks.values() for c in v} for k, blocks in phrases.CLAUSES.items()},
    ):
        keys = list(what)
        assert set(keys) == {(d, s) for d in ("base", "target") for s in SPLITS}
        for i, a in enumerate(keys):
            for b in keys[:i]:
                assert not what[a] & what[b]
    rows = [build.row(s, speech(s)) for s in draw_set(0, "base", 300)]
    by_split = {s: [r for r in rows if r["split"] == s] for s in SPLITS}
    assert [len(by_split[s]) for s in SPLITS] == [210, 30, 60]
    for field in ("group", "place", "clause"):
        train, val, test = ({r[field] for r in by_split[s]} for s in SPLITS)
        assert train.isdisjoint(test | val), field
        assert val.isdisjoint(test), field


def test_people_stay_themselves_across_seeds():
    assert cast.identity("base", "test", 3) == cast.identity("base", "test", 3)
    looks = {
        replace(cast.identity("base", split, i), key="")
        for split, n in cast.POOL.items()
        for i in range(n)
    }
    assert len(looks) == sum(cast.POOL.values())


# -- the files -------------------------------------------------------------------------------


def test_clips_are_complete_and_of_equal_tracks(made):
    _, clips = made
    assert len(clips) == CLIPS
    for clip in clips:
        images, sound, times = decode(clip.video)
        assert images.shape[1:] == (render.SIZE, render.SIZE, 3)
        assert 2 <= len(images) / FPS <= 3.3
        assert len(sound) / RATE == pytest.approx(len(images) / FPS, abs=1e-6)
        np.testing.assert_allclose(times, np.arange(len(images)) / FPS, atol=1e-3)
        assert np.std(sound) > 0.003
        assert clip.subtitle
        assert clip.subtitle_source == "generated"
        assert clip.labels
        assert set(clip.labels) <= set(world.VOCABULARY)
        assert clip.split in SPLITS
        assert clip.group.startswith(f"base-{clip.split}")
        assert f'In the text, the subtitle reads: "{clip.subtitle}"' in clip.description
        assert clip.description.startswith("In the video, ")
        assert "In the audio, " in clip.description
        assert all(word in clip.description for word in clip.labels)
        assert "{" not in clip.description
        assert clip.video.stat().st_size < 100_000


def test_same_seed_same_bytes_in_any_number_order_and_process(made, tmp_path):
    _, clips = made
    again = open_demo(DataParams(clips=3), tmp_path, workers=2)
    assert [c.video.read_bytes() for c in again] == [c.video.read_bytes() for c in clips[:3]]
    other = open_demo(DataParams(clips=1, seed=1), tmp_path)
    assert other[0].name == clips[0].name
    assert other[0].video.read_bytes() != clips[0].video.read_bytes()


def test_metadata_and_reference_pairs(made):
    outputs, clips = made
    rows = read_metadata(demo_root(DataParams(clips=CLIPS), outputs))
    assert [row["name"] for row in rows] == [clip.name for clip in clips]
    pairs = reference_pairs(DataParams(clips=CLIPS, split="train"), outputs)
    assert len(pairs) == 3 * 7
    assert {p.name for p in pairs} == {c.name for c in clips if c.split == "train"}
    for row in rows:
        visible = set(row["labels_by_perspective"]["video"])
        for item in row["captions"]:
            assert item["time"] * FPS == pytest.approx(round(item["time"] * FPS), abs=1e-9)
            hidden = set(row["labels"]) - visible
            assert not hidden & set(item["text"].replace(",", "").replace(".", "").split())
        found = {word for words in row["labels_by_perspective"].values() for word in words}
        assert found == set(row["labels"])


def test_early_frames_of_a_strong_expression_are_described_as_mild():
    spec = replace(base_clip(), latent=world.Latent("angry", 0.9))
    assert any(word in describe.caption(spec, 0.0) for word in world.CONCEPTS["core.angry.mild"])
    told = describe.labels(spec)["core"][0]
    assert told in describe.caption(spec, 1.0)


def test_selection(made):
    outputs, clips = made
    test = open_demo(DataParams(clips=CLIPS, split="test"), outputs)
    assert [c.name for c in test] == [c.name for c in clips if c.split == "test"]
    assert len(open_demo(DataParams(clips=CLIPS, limit=4), outputs)) == 4
    with pytest.raises(DataError, match="no clip of split 'dev'"):
        open_demo(DataParams(clips=CLIPS, split="dev"), outputs)


def test_interrupted_generation_goes_on_where_it_stopped(made, tmp_path, monkeypatch):
    _, clips = made
    params = DataParams(clips=4, root=str(tmp_path / "set"))
    write, written = build.write_clip, []

    def stops(spec, plan, path):
        if len(written) == 2:
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(spec.name)
        write(spec, plan, path)

    monkeypatch.setattr(build, "write_clip", stops)
    with pytest.raises(KeyboardInterrupt):
        open_demo(params, tmp_path)
    assert not (tmp_path / "set").exists()
    dead = tmp_path / "set.partial" / "scratch-of-a-killed-run"
    dead.mkdir()
    (dead / "half.mp4").write_bytes(b"half a file")
    monkeypatch.setattr(build, "write_clip", lambda *a: (written.append(a[0].name), write(*a)))
    found = open_demo(params, tmp_path)
    assert len(written) == 4
    assert len(set(written)) == 4  # none was made twice
    assert [c.video.read_bytes() for c in found] == [c.video.read_bytes() for c in clips[:4]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
        "clips.jsonl",
        "set.json",
        "video",
    ]


def test_two_runs_at_once_end_well(made, tmp_path, monkeypatch):
    _, clips = made
    params = DataParams(clips=3, root=str(tmp_path / "set"))
    write = build.write_clip

    def overtaken(spec, plan, path):
        monkeypatch.setattr(build, "write_clip", write)
        open_demo(params, tmp_path)  # the other process finishes everything first
        write(spec, plan, path)

    monkeypatch.setattr(build, "write_clip", overtaken)
    found = open_demo(params, tmp_path)
    assert [c.video.read_bytes() for c in found] == [c.video.read_bytes() for c in clips[:3]]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(DataError, match="not a demo set"):
        open_demo(DataParams(clips=1, root=str(tmp_path)), tmp_path)
    root = tmp_path / "set"
    root.mkdir()
    open_demo(DataParams(clips=1, root=str(root)), tmp_path)
    with pytest.raises(DataError, match="another demo set"):
        open_demo(DataParams(clips=2, root=str(root)), tmp_path)
    assert (tmp_path / "holiday.txt").read_text() == "mine"


def test_faces_are_found_as_in_life():
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def rate(specs):
        hits = []
        for spec in specs:
            for frame in list(render.frames(spec, speech(spec)))[3::9]:
                grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
                boxes = cascade.detectMultiScale(grey, 1.1, 3, minSize=(56, 56))
                hits.append(len(boxes) > 0)
        return sum(hits) / len(hits)

    specs = [s for d in ("base", "target") for s in draw_set(0, d, 50)]
    frontal = [s for s in specs if not s.turned and s.latent.body != "ashamed"]
    assert rate(frontal[::5]) >= 0.8
    assert rate([s for s in specs if s.turned][::2]) < 0.5


@pytest.mark.parametrize("module", ["emolib.datasets", "emolib.datasets.demo"])
def test_import_is_light(module):
    code = (
        f"import sys, {module}; print(sorted({{'cv2', 'av', 'torch', 'scipy'}} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_contact_sheet(made):
    from matplotlib.figure import Figure

    from emolib.datasets.demo.sheet import contact_sheet

    _, clips = made
    axes = Figure().subplots(1, 3)
    shown = contact_sheet(clips[:2], axes.flat)
    assert [len(a.images) for a in shown] == [1, 1, 0]
    assert shown[0].images[0].get_array().shape == (render.SIZE, render.SIZE, 3)
    assert clips[0].subtitle in shown[0].get_title().replace("\n", " ")
    assert shown[0].texts[0].get_text().replace("\n", " ") == ", ".join(clips[0].labels)


def spoken_words() -> set[str]:
    """Every word anyone in the world can say."""
    fills = {f"{{{slot}}}": values for slot, values in phrases._FILL.items()}
    texts = [c for states in phrases.CLAUSES.values() for many in states.values() for c in many]
    for slot, values in fills.items():
        texts = [text.replace(slot, "") for text in texts] + list(values)
    texts += [word for words in phrases.INTERJECTIONS.values() for word in words]
    return {re.sub("[^a-z]", "", word) for text in texts for word in text.lower().split()} - {""}


def sound_of(word: str) -> tuple[tuple[bool, str, str, bool], ...]:
    """All the voice makes of a word: onset, its hissing consonants, vowel, final s or z."""
    told = []
    for part in phrases.syllables(word):
        at = next((i for i, c in enumerate(part) if c in voice._VOWELS), 0)
        hiss = "".join(c for c in part[:at] if c in voice._HISS)
        told.append(
            (at > 0, hiss, part[at] if part[at] in voice._VOWELS else "e", part[-1] in "sz")
        )
    return tuple(told)


def test_most_words_sound_like_another_one():
    """The numbers of docs/world.md, and that such words are the same to the sample."""
    words = spoken_words()
    by_sound: dict[object, list[str]] = {}
    for word in sorted(words):
        by_sound.setdefault(sound_of(word), []).append(word)
    alike = sum(len(group) for group in by_sound.values() if len(group) > 1)
    text = (Path(__file__).parents[1] / "docs" / "world.md").read_text(encoding="utf-8")
    assert f"Of the {len(words)} words" in text
    assert f"{alike} sound exactly like another one ({len(by_sound)} sounds" in " ".join(
        text.split()
    )
    assert by_sound[sound_of("me")] == by_sound[sound_of("well")]
    spec = draw(0, "base", "train", 0)
    plan = replace(speech(spec), syllables=("me",), starts=(0.5,), lengths=(0.3,))
    heard = [
        voice.synthesise(spec, replace(plan, syllables=(word,))) for word in ("me", "well", "so")
    ]
    assert np.array_equal(heard[0], heard[1])
    assert not np.array_equal(heard[0], heard[2])
