"""MiniGPT-4's aligned images (cc_sbu_align): a picture and its description each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from emolib.datasets.media_index import index_media
from emolib.datasets.sheets import first_file
from emolib.datasets.validation import Reading
from emolib.errors import DataError
from emolib.files import read_json

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
# Pictures of the paper's training (section 3.1); the model card says "about 3,500".
PUBLISHED = 3439
TABLES = ("filter_cap.json", "cc_sbu_align/filter_cap.json")
_TAG = re.compile(r"</?Img>(?:<ImageHere></Img>)?|<ImageHere>")


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """A picture and its description. Not a clip: no time, no sound, no words, no emotion.

    Attributes:
        name: The image id.
        image: The picture's file.
        caption: What it shows.
    """

    name: str
    image: Path
    caption: str


def read_minigpt4(root: Path) -> Reading[CaptionedImage]:
    """Read ``filter_cap.json`` and ``image/<image_id>.jpg``.

    Cost: one directory listing and one read of the file; no picture opened.

    Raises:
        DataError: a file or the folder is missing, or the JSON is not what it should be.
    """
    path = first_file(root, TABLES)
    if path is None:
        raise DataError(f"{root}: no {TABLES[0]}")
    content = read_json(path)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise DataError(f'{path}: expected {{"annotations": [{{"image_id", "caption"}}, …]}}')
    reading: Reading[CaptionedImage] = Reading("minigpt4", root, tables=[path])
    index = index_media(path.parent / "image", IMAGE_SUFFIXES)
    index.report(reading)
    captions: dict[str, str] = {}
    wrong: list[str] = []
    again: list[str] = []
    other: list[str] = []
    blank: list[str] = []
    marked: list[str] = []
    for number, row in enumerate(annotations, start=1):
        name = str(row.get("image_id", "")).strip() if isinstance(row, dict) else ""
        caption = row.get("caption") if isinstance(row, dict) else None
        if not name or not isinstance(caption, str):
            wrong.append(f"annotation {number}")
            continue
        text = _TAG.sub("", caption).strip()
        marked += [name] if text != caption.strip() else []
        if not text:
            blank.append(name)
        elif name in captions:
            (again if captions[name] == text else other).append(name)
        else:
            captions[name] = text
    missing = [name for name in captions if name not in index.files]
    reading.find("error", "annotations without image_id or caption", wrong)
    reading.find("error", "images described twice, differently", other)
    reading.find("warning", "images described twice, alike", again)
    reading.find("warning", "images with a blank caption, left out", blank)
    reading.find("note", "captions with image marks in them, stripped", marked)
    reading.find("error", "captions without a picture", missing)
    orphans = sorted(index.files.keys() - captions.keys())
    reading.find("note", "pictures without a caption", orphans)
    reading.items = [
        CaptionedImage(name, index.files[name], text)
        for name, text in captions.items()
        if name in index.files
    ]
    if len(reading.items) != PUBLISHED:
        what = f"captioned images, where the paper has {PUBLISHED}"
        reading.find("warning", what, (), count=len(reading.items))
    return reading
