"""Crops show the face, upright and in its place, and say what was found."""

from __future__ import annotations

import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from emolib.errors import DataError, MissingModelError, RunError
from emolib.media import detectors
from emolib.media import store as storing
from emolib.media.detectors import Face
from emolib.media.faces import FaceParams, crop_face, crop_faces, face_record, open_detector
from emolib.media.landmarks import LandmarkDetector
from emolib.media.store import FrameStore, read_picture
from emolib.media.video import picture_sha, sample_frames
from tests.shared import shared

HAAR = FaceParams(size=128)


def cartoon(x: int, y: int, radius: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Draw a plain face on a grey ground."""
    image = np.full((height, width, 3), (200, 210, 220), np.uint8)
    draw_face(image, x, y, radius)
    return image


def draw_face(image: np.ndarray, x: int, y: int, r: int) -> None:
    skin = (225, 180, 150)
    cv2.ellipse(image, (x, y - r // 6), (int(r * 0.95), int(r * 1.25)), 0, 0, 360, (50, 35, 25), -1)
    cv2.ellipse(image, (x, y), (int(r * 0.8), r), 0, 0, 360, skin, -1)
    for side in (-1, 1):
        eye = x + side * int(r * 0.33), y - int(r * 0.2)
        cv2.ellipse(image, eye, (int(r * 0.16), int(r * 0.1)), 0, 0, 360, (250, 250, 250), -1)
        cv2.circle(image, eye, int(r * 0.08), (30, 20, 20), -1)
        brow = eye[1] - int(r * 0.19)
        start, end = (eye[0] - int(r * 0.18), brow), (eye[0] + int(r * 0.18), brow)
        cv2.line(image, start, end, (40, 30, 20), max(2, r // 16))
    cv2.line(image, (x, y - r // 10), (x - r // 10, y + r // 5), (157, 126, 105), 2)
    mouth = int(r * 0.3), int(r * 0.12)
    cv2.ellipse(image, (x, y + r // 2), mouth, 0, 0, 180, (150, 40, 50), max(2, r // 14))
    image[:] = cv2.GaussianBlur(image, (3, 3), 0)


class Fixed:
    """A detector that gives what it was told, frame by frame."""

    def __init__(self, *answers: list[Face]) -> None:
        self.answers = list(answers)

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.answers.pop(0)


def _square(x: float, y: float, side: float, eyes: bool = False) -> Face:
    at = ((x + 0.3 * side, y + 0.4 * side), (x + 0.7 * side, y + 0.4 * side)) if eyes else None
    return Face((x, y, x + side, y + side), 1.0, at)


def test_drawn_faces_are_found_where_they_are() -> None:
    detector = open_detector(HAAR)
    for x, y, radius in ((100, 120, 60), (220, 110, 45), (160, 125, 75)):
        (crop,) = crop_faces([cartoon(x, y, radius)], HAAR, detector)
        assert crop.found
        assert crop.image.shape == (128, 128, 3)
        assert crop.box is not None
        left, top, right, bottom = crop.box
        assert left < x < right
        assert top < y < bottom
        assert 0.8 * radius < (right - left) < 2.6 * radius
        assert 0.8 * radius < crop.source_px < 4 * radius


def test_crops_are_the_same_every_time() -> None:
    frames = [cartoon(100 + k, 120, 60) for k in range(3)]
    once, again = crop_faces(frames, HAAR), crop_faces(frames, HAAR)
    assert [c.box for c in once] == [c.box for c in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(once, again, strict=True))


def test_big_frames_are_searched_small_but_cut_full_size() -> None:
    small = cartoon(160, 120, 60)
    big = cv2.resize(small, (1280, 960), interpolation=cv2.INTER_CUBIC)
    a, b = crop_faces([small], HAAR)[0], crop_faces([big], HAAR)[0]
    assert b.source_px == pytest.approx(4 * a.source_px, rel=0.2)


def test_no_face_gives_the_whole_frame() -> None:
    frame = np.full((90, 160, 3), 77, np.uint8)
    crops = crop_faces([frame, frame[:, :1], frame[:1]], HAAR)
    assert not any(crop.found or crop.aligned or crop.n_faces for crop in crops)
    image = crops[0].image
    assert image.shape == (128, 128, 3)
    assert (image[28:100] == 77).all()
    assert not image[:28].any()
    assert not image[100:].any()
    as_it_is = FaceParams(missing="frame")
    assert crop_faces([frame], as_it_is, Fixed([]))[0].image is frame
    assert face_record(crops) == {
        "frames": 3,
        "found": 0,
        "aligned": 0,
        "several": 0,
        "median_source_px": 0.0,
    }


def test_several_faces_the_largest_or_the_most_central() -> None:
    big, middle = _square(0, 0, 60), _square(130, 90, 40)
    frame = np.zeros((200, 300, 3), np.uint8)
    for choose, expected in (("largest", big), ("central", middle)):
        crop = crop_faces([frame], FaceParams(choose=choose), Fixed([big, middle]))[0]
        assert crop.box == expected.box
        assert crop.n_faces == 2


def test_a_face_with_two_eyes_goes_before_one_without() -> None:
    frame = np.zeros((200, 300, 3), np.uint8)
    seen = _square(200, 100, 40, eyes=True)
    assert crop_faces([frame], HAAR, Fixed([_square(0, 0, 90), seen]))[0].box == seen.box


def test_the_same_person_is_followed() -> None:
    frame = np.zeros((200, 400, 3), np.uint8)
    detector = Fixed(
        [_square(10, 50, 60), _square(300, 50, 50)],
        [],
        [_square(20, 55, 58), _square(300, 50, 80)],  # the other came nearer
        [_square(310, 50, 80)],  # the first has left
    )
    crops = crop_faces([frame] * 4, HAAR, detector)
    assert [c.box[0] if c.box else None for c in crops] == [10, None, 20, 310]
    assert [c.found for c in crops] == [True, False, True, True]
    assert face_record(crops)["several"] == 2


@pytest.mark.parametrize("angle", [0.0, 30.0, -75.0])
@pytest.mark.parametrize("zoom", [0.5, 4.0])
def test_eyes_come_to_their_places(angle: float, zoom: float) -> None:
    frame = np.zeros((600, 600, 3), np.uint8)
    turn = np.exp(1j * np.radians(angle))
    eyes = [300 + 300j + sign * 20 * zoom * turn for sign in (-1, 1)]
    for k, eye in enumerate(eyes):
        centre = round(eye.real), round(eye.imag)
        cv2.circle(frame, centre, max(3, round(4 * zoom)), (255, 0, 0) if k else (0, 255, 0), -1)
    face = Face((0, 0, 1, 1), 1.0, tuple((e.real + 0.5, e.imag + 0.5) for e in eyes))  # type: ignore[arg-type]
    params = FaceParams(size=200, eye_distance=0.4, eye_height=0.3)
    crop = crop_face(frame, face, params)
    assert crop.aligned
    assert crop.source_px == pytest.approx(40 * zoom / 0.4)
    slack = 0.5 + 0.7 * 200 / crop.source_px  # the dots are drawn at whole pixels
    for channel, x in ((1, 60), (0, 140)):
        ys, xs = np.nonzero(crop.image[:, :, channel] > 127)
        assert xs.mean() + 0.5 == pytest.approx(x, abs=slack)
        assert ys.mean() + 0.5 == pytest.approx(60, abs=slack)


def test_a_box_at_the_edge_stays_inside_the_frame() -> None:
    frame = np.full((100, 150, 3), 200, np.uint8)
    for face in (_square(-10, -10, 50), _square(120, 70, 60), _square(-50, -50, 400)):
        crop = crop_face(frame, face, HAAR)
        assert crop.found
        assert not crop.aligned
        assert (crop.image == 200).all()
        assert crop.source_px <= 100


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    frame = np.zeros((800, 800, 3), np.uint8)
    frame[:, ::2] = 255  # one-pixel stripes: sampling single pixels would give stripes again
    crop = crop_face(frame, _square(0, 0, 640), FaceParams(size=100))
    assert crop.image[5:-5, 5:-5].std() < 10
    assert crop.image.mean() == pytest.approx(127, abs=4)


def test_parameters_are_checked() -> None:
    for wrong in ({"detector": "dlib"}, {"size": 4}, {"eye_height": 1.5}, {"margins": 2}):
        with pytest.raises(ValidationError):
            FaceParams.model_validate(wrong)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    pytest.importorskip("face_alignment", reason="needs: pip install 'emolib[train]'")
    params = FaceParams(detector="face_alignment", weights=str(tmp_path))
    with pytest.raises(MissingModelError, match=r"s3fd-619a316812\.pth.*allow_download"):
        open_detector(params)


def test_landmarks_become_eyes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="needs: pip install 'emolib[train]'")
    asked: dict[str, object] = {}
    sizes: list[tuple[int, ...]] = []

    class Net:
        def __init__(self, kind: object, **options: object) -> None:
            asked.update(options)
            boxes = [[10, 10, 30, 30, 0.99], [50, 40, 110, 100, 0.9], [0, 0, 9, 9, 0.2]]
            self.face_detector = types.SimpleNamespace(
                detect_from_image=lambda image: boxes,
                detect_from_batch=lambda stack: (
                    sizes.append(tuple(stack.shape)) or [boxes] * len(stack)
                ),
            )

        def get_landmarks_from_image(self, image: object, detected_faces: list) -> list:
            shapes = []
            for left, top, right, bottom, _ in detected_faces:
                shape = np.zeros((68, 2), np.float32)
                shape[36:42] = left + 0.3 * (right - left), top + 0.4 * (bottom - top)
                shape[42:48] = left + 0.7 * (right - left), top + 0.4 * (bottom - top)
                shapes.append(shape)
            return shapes

    fake = types.ModuleType("face_alignment")
    fake.FaceAlignment = Net  # type: ignore[attr-defined]
    fake.LandmarksType = types.SimpleNamespace(TWO_D=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "face_alignment", fake)
    for name in ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar"):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / name).write_bytes(b"x")
    detector = open_detector(FaceParams(detector="face_alignment", weights=str(tmp_path)))
    faces = detector.detect(np.zeros((120, 120, 3), np.uint8))
    assert [face.box for face in faces] == [(50, 40, 110, 100), (10, 10, 30, 30)]
    assert faces[0].eyes == (pytest.approx((68, 64)), pytest.approx((92, 64)))
    assert (asked["device"], asked["flip_input"], asked["compile"]) == ("cpu", False, False)
    params = FaceParams(detector="face_alignment", weights=str(tmp_path), batch=2)
    small, large = np.zeros((120, 120, 3), np.uint8), np.zeros((130, 140, 3), np.uint8)
    crops = crop_faces([small, large, small, small], params)
    assert sizes == [(2, 3, 120, 120), (1, 3, 120, 120), (1, 3, 130, 140)]
    assert asked["max_batch_size"] == 2
    assert [crop.box for crop in crops] == [(50, 40, 110, 100)] * 4


def test_a_detector_is_opened_once_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[FaceParams] = []
    monkeypatch.setattr(
        detectors, "open_detector", lambda params: opened.append(params) or Fixed(*([[]] * 9))
    )
    params = FaceParams(size=77)
    frame = np.zeros((60, 60, 3), np.uint8)
    for _ in range(3):
        crop_faces([frame], params)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(crop_faces, [frame], params).result()
    assert opened == [params, params]


def test_batches_find_what_single_pictures_show() -> None:
    """S3FD's own batch code, random weights: the same boxes, whatever else is in the batch."""
    torch = pytest.importorskip("torch", reason="needs: pip install 'emolib[train]'")
    face_alignment = pytest.importorskip("face_alignment", reason="needs: emolib[train]")
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.detection.sfd.sfd_detector import SFDDetector

    torch.manual_seed(0)
    finder = SFDDetector.__new__(SFDDetector)
    finder.device, finder.filter_threshold = "cpu", 0.5
    finder.face_detector = s3fd().eval()
    net = types.SimpleNamespace(
        face_detector=finder,
        get_landmarks_from_image=lambda image, detected_faces: [
            np.full((68, 2), box[0], np.float32) for box in detected_faces
        ],
    )
    detector = LandmarkDetector.__new__(LandmarkDetector)
    detector.net, detector.min_score, detector.batch = net, 0.5, 3
    assert face_alignment.__version__
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(4)]
    together, alone = detector.detect_many(images), [detector.detect(image) for image in images]
    assert [len(faces) for faces in together] == [len(faces) for faces in alone]
    assert all(alone), "random weights see faces everywhere; else this compares nothing"
    for some, others in zip(together, alone, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.box == pytest.approx(other.box, abs=0.5)


def test_store_keeps_pixels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)
    store = FrameStore(tmp_path / "frames")
    path = store.put(image)
    digest = picture_sha(image)
    assert path == tmp_path / "frames" / digest[:2] / f"{digest}.png"
    assert np.array_equal(read_picture(path), image)
    monkeypatch.setattr(storing.cv2, "imencode", lambda *args: pytest.fail("encoded again"))
    assert store.put(image.copy()) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_store_as_jpeg(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (9, 9), 0)
    png = FrameStore(tmp_path).put(image)
    path = FrameStore(tmp_path, "jpeg", 90).put(image)
    assert path.name.endswith("-q90.jpg")
    assert path.stat().st_size < png.stat().st_size
    assert np.abs(read_picture(path).astype(int) - image).mean() < 4


def test_store_faults_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = cartoon(160, 120, 60)
    store = FrameStore(tmp_path)

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(RunError, match="disk full"):
            store.put(image)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []  # nothing half-written stays
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written"):
        FrameStore(tmp_path / "file").put(image)
    with pytest.raises(DataError, match="not a picture"):
        read_picture(tmp_path / "file")
    with pytest.raises(ValueError, match="uint8"):
        store.put(image.astype(float))


@pytest.mark.shared
def test_real_faces() -> None:
    """Every face of the real clips is found: all frames but those that show a closed helmet."""
    detector = open_detector(HAAR)
    records = {}
    for path in sorted(shared("data/clips/video").glob("*.mp4")):
        frames = sample_frames(path, 4, rule="uniform")
        records[path.stem] = face_record(crop_faces(frames, HAAR, detector))
    missed = {name: r for name, r in records.items() if r["found"] != r["frames"]}
    assert set(missed) == {"videollama_ironman_unlabelled"}
    assert sum(int(str(r["aligned"])) for r in records.values()) >= 38
