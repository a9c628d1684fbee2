"""What a stage reads besides earlier runs: clips, stored groups, model folders.

Their content decides whether a finished run is still up to date.
"""

from __future__ import annotations

import os
from pathlib import Path

from emolib import nano
from emolib.hashing import key_of, sha_file, sha_files
from emolib.params.schemas import RELEASED, DataParams, ModelParams
from emolib.params.stages import Baselines, StageParams


def source_hashes(root: Path, params: StageParams) -> dict[str, str]:
    """Identify what the parameters name outside the run folders, as far as it exists.

    Tables of words and labels, recorded splits and stored groups count by content, videos by
    name and size, the weights of the models the stage uses by name, size and time stamp:
    nothing large is read. Generated clips and "tiny:" models follow from parameters and code.

    Cost: one directory listing a folder and one stat a file.

    Args:
        root: Project root, which relative paths are relative to.
        params: The stage's checked parameters.

    Returns:
        Name -> hash; names hold a colon, so they are never a parameter's.
    """
    found: dict[str, str] = {}
    if params.data.kind != "demo":
        found |= _data(root, params.data)
    further: DataParams | None = getattr(params, "unlabelled", None)
    if further is not None and further.kind == "folder":
        found |= {f"unlabelled:{name}": sha for name, sha in _data(root, further).items()}
    taught: DataParams | None = getattr(params, "text_data", None)
    if taught is not None and taught.kind != "demo":
        found |= {f"text_data:{name}": sha for name, sha in _data(root, taught).items()}
    for name in ("groups", "wheels"):
        if given := getattr(params, name, ""):
            path = root / Path(given).expanduser()
            folder, files = (path, list(path.iterdir())) if path.is_dir() else (path.parent, [path])
            found[f"{name}:content"] = sha_files((f for f in files if f.is_file()), folder)
    if params.released is not None:
        folder = root / Path(params.released.root).expanduser()
        files = [file for pattern in RELEASED_FILES for file in folder.glob(pattern)]
        found["released:content"] = sha_files(files, folder)
    if pictures := getattr(params, "pictures", ""):
        folder = root / Path(pictures).expanduser()
        for table in (folder / "filter_cap.json", folder / "cc_sbu_align" / "filter_cap.json"):
            if table.is_file():
                found["pictures:captions"] = sha_file(table)
                break
    if isinstance(params, Baselines):
        for name, file in params.used_files().items():
            if (path := root / Path(file).expanduser()).is_file():
                found[f"recipe:{name}"] = sha_file(path)
    for name, model in params.used_models().items():
        if (state := _model(root, model)) is not None:
            found[f"model:{name}"] = state
    return found


# What label, word and split files of the data sets end in.
TABLES = {".csv", ".json", ".npz", ".xlsx", ".tsv", ".txt"}
# Where published outputs lie below their root, as emolib.baselines.released reads them.
RELEASED_FILES = ("*.csv", *(f"{folder}/*/*.npz" for folder in RELEASED))
_LARGEST = 2**26  # bytes; a larger one is features, not labels


def _data(root: Path, data: DataParams) -> dict[str, str]:
    folder = root / Path(data.root).expanduser()
    media = _listing(folder)
    if data.videos and (elsewhere := root / Path(data.videos).expanduser()).is_dir():
        media += _listing(elsewhere)
    found = {"data:files": key_of(files=sorted(media))}
    for name in ("table", "subtitles", "split_file"):
        given = Path(getattr(data, name)).expanduser()
        for path in (root / given, folder / given):
            if getattr(data, name) and path.is_file():
                found[f"data:{name}"] = sha_file(path)
                break
    if data.kind != "folder":  # a published set's own tables: in its folder or one below
        own = [p for p in (*folder.glob("*"), *folder.glob("*/*")) if p.suffix.lower() in TABLES]
        small = (p for p in own if p.is_file() and p.stat().st_size <= _LARGEST)
        found["data:own"] = sha_files(small, folder)
    return found


def _listing(folder: Path) -> list[tuple[str, int]]:
    """Name and size of every file below a folder; links are followed, but not in circles."""
    files: list[tuple[str, int]] = []
    seen: set[Path] = set()
    for where, below, names in os.walk(folder, followlinks=True):
        real = Path(where).resolve()
        below[:] = [] if real in seen else [n for n in below if not n.startswith(".")]
        for name in () if real in seen else names:
            file = Path(where) / name
            if not name.startswith(".") and file.is_file():
                files.append((ascii(str(file.relative_to(folder))), file.stat().st_size))
        seen.add(real)
    return files


def _model(root: Path, model: ModelParams) -> str | None:
    if model.engine == "server":
        return None
    states: list[list[object]] = []
    for text in (model.model, *model.adapters):
        if text.startswith(nano.PREFIX):  # its card names every file's hash
            card = nano.ROOT / text.removeprefix(nano.PREFIX) / nano.CARD
            states += [[card.name, sha_file(card)]] if card.is_file() else []
            continue
        folder = root / Path(text).expanduser()
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            if file.is_file():
                stat = file.stat()
                states.append([file.name, stat.st_size, stat.st_mtime_ns])
    return key_of(files=states) if states else None
