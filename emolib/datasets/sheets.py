"""Read the label and subtitle files of published data sets, with the quirks they have."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emolib.datasets.table import few, known_text, read_lines
from emolib.errors import DataError

# What a translating model left at the start of some texts: 88 of 332 in EMER v2 ("Input: "),
# 3 of 4,403 in CH-SIMS v2 ("The input: ", "Translation: ").
ARTEFACT = re.compile(
    r"^(?:the\s+)?(?:input|output|translation|translated text|输入|输出|翻译)\s*[:：]\s*", re.I
)
# Five of the 88 go on with "Output:": three then say the same again in better English, two stop.
ANSWERED = re.compile(r"\s*\boutput\s*:\s*", re.I)
# Zip members and pickles larger than this are not label files.
MOST_BYTES = 1 << 30


class Sheet:
    """A table by column name; cells are text, stripped, None where they say nothing.

    Attributes:
        path: The file.
        columns: Column names as written.
        rows: One mapping a line.
    """

    def __init__(self, path: Path, columns: Sequence[str], rows: list[dict[str, str | None]]):
        self.path = path
        self.columns = list(columns)
        self.rows = rows

    def column(self, *names: str) -> str:
        """The first of ``names`` the table has.

        Raises:
            DataError: it has none of them.
        """
        for name in names:
            if name in self.columns:
                return name
        raise DataError(f"{self.path}: no column {' or '.join(names)}; it has {self.columns}")

    def has(self, *names: str) -> bool:
        """Whether all these columns are there."""
        return set(names) <= set(self.columns)


def read_sheet(path: Path) -> Sheet:
    """Read a CSV with any columns, or an official ``.npz`` (see :func:`read_npz`).

    Raises:
        DataError: missing, unreadable or malformed; names file and line.
    """
    if path.suffix.lower() == ".npz":
        return _npz_sheet(path)
    header, lines = read_lines(path)
    columns = [column.lower() for column in header]
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: a column is given twice: {header}")
    rows = [dict(zip(columns, map(known_text, cells), strict=True)) for _, cells in lines]
    return Sheet(path, columns, rows)


def clean_text(text: str | None) -> tuple[str | None, bool]:
    """Strip what a translating model left of its own prompt.

    Of "Input: … Output: …" the output is kept, or the input where no output follows.

    Returns:
        The text (None when nothing is left), and whether something was stripped.

    >>> clean_text("Input: In the video, he smiles.")
    ('In the video, he smiles.', True)
    >>> clean_text("Input: He smile. Output: He smiles.")
    ('He smiles.', True)
    """
    if text is None:
        return None, False
    cleaned = ARTEFACT.sub("", text).strip()
    if cleaned != text.strip():
        given, *answered = ANSWERED.split(cleaned)
        cleaned = next((part for part in reversed(answered) if part.strip()), given).strip()
    return cleaned or None, cleaned != text.strip()


def number(text: str | None, where: str) -> float | None:
    """Read a number; -10 is what MER label files write for "not given".

    Raises:
        DataError: not a finite number.
    """
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is no number") from None
    if not np.isfinite(value):
        raise DataError(f"{where}: {text!r} is no number")
    return None if value == -10 else value


def read_npz(path: Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Read an archive of arrays of numbers, texts, lists and dictionaries, running no code.

    Official label and result files store dictionaries and ragged lists, which NumPy only writes
    as pickles. They are read by an unpickler that knows arrays, NumPy scalars and plain
    containers and refuses everything else, so such a file cannot run code.

    Args:
        path: The file.
        most_bytes: Largest size of all arrays together, unpacked.

    Returns:
        Array name -> array, or the object inside an array without dimensions.

    Raises:
        DataError: missing, damaged, too large, or with anything else in it, which it names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            size = sum(archive.getinfo(name).file_size for name in names)
            if size > most_bytes:
                raise DataError(f"{path}: {size} bytes unpacked, more than such a file can hold")
            arrays = {name[:-4]: _read_array(archive.read(name)) for name in names}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file: {error}") from None
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise DataError(f"{path}: refused: {error}") from None
    if not arrays:
        raise DataError(f"{path}: no arrays in it")
    return {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}


class _RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that is not allowed, which the message names."""


class _PlainUnpickler(pickle.Unpickler):
    """Knows NumPy arrays and scalars, and nothing else beyond Python's own literals."""

    ALLOWED = frozenset(
        (module, name)
        for core in ("numpy.core.multiarray", "numpy._core.multiarray")
        for module, name in ((core, "_reconstruct"), (core, "scalar"))
    ) | {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise _RefusedError(
                f"holds {module}.{name}, which could run code; only arrays, dictionaries, lists, "
                "texts and numbers are read"
            )
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


# Opcodes that write to and read from the memo, those that make what can be hashed in depth, and
# those that move objects on the stack, which no pickle of plain values needs.
_STORES = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_FETCHES = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_SHUFFLES = {"DUP", "POP", "POP_MARK"}


def _unpickle(data: bytes) -> Any:
    """Load a pickle of plain values whose cost in time and memory is linear in its length.

    The unpickler allocates as many memo slots as the largest index asks for, and hashes a tuple
    of tuples anew at every mention: both are refused before anything is loaded.

    Raises:
        _RefusedError: it asks for anything that could run code, or is such a bomb.
        ValueError: it is damaged.
    """
    made: dict[object, str] = {}  # memo slot -> the opcode that made what is in it
    before = ""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            name: str = opcode.name
            if name in _STORES:
                slot = len(made) if argument is None else int(argument)
                if slot > len(data):
                    raise _RefusedError(f"holds a pickle that asks for {slot} memo slots")
                made[slot] = before
            elif name in _SHUFFLES or (name in _FETCHES and made.get(argument, "") in _TUPLES):
                raise _RefusedError("holds a pickle of tuples that may share their parts")
            before = name if opcode.stack_after else before
        return _PlainUnpickler(io.BytesIO(data)).load()
    except _RefusedError:
        raise
    except Exception as error:  # whatever a damaged stream makes of itself
        raise ValueError(f"holds a damaged pickle ({type(error).__name__}: {error})") from None


def _read_array(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"NumPy file format {version}")
    shape, _, dtype = read(file)
    if not dtype.hasobject:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    array = _unpickle(data[file.tell() :])
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ValueError("an array that is not what its header says")
    return array


def _npz_sheet(path: Path) -> Sheet:
    """Bring both official shapes to a table: corpora of name -> values, and submissions."""
    arrays = read_npz(path)
    rows: list[dict[str, str | None]] = []
    if {"filenames", "fileitems"} <= arrays.keys():
        names, items = arrays["filenames"], arrays["fileitems"]
        if len(names) != len(items):
            raise DataError(f"{path}: {len(names)} filenames but {len(items)} fileitems")
        for name, item in zip(names, items, strict=True):
            text = item if isinstance(item, str) else repr([str(word) for word in item])
            rows.append({"name": str(name), "openset": known_text(text)})
        return Sheet(path, ["name", "openset"], rows)
    columns = ["split", "name"]
    for corpus, content in arrays.items():
        if not isinstance(content, dict):
            raise DataError(f"{path}: {corpus!r} is not a dictionary of clips")
        for name, values in content.items():
            if not isinstance(values, dict):
                raise DataError(f"{path}: {corpus}/{name} is not a dictionary of values")
            columns += [str(key) for key in values if key not in columns]
            cells = {str(key): known_text(str(value)) for key, value in values.items()}
            rows.append({"split": corpus, "name": str(name), **cells})
    return Sheet(path, columns, [{c: row.get(c) for c in columns} for row in rows])


def first_file(root: Path, names: Iterable[str]) -> Path | None:
    """The first of ``names`` that is a file below ``root``."""
    return next((root / name for name in names if (root / name).is_file()), None)


def chosen_file(root: Path, given: str) -> Path:
    """A file named in the parameters: as it is, or below the root.

    Raises:
        DataError: no such file.
    """
    for path in (Path(given).expanduser(), root / given):
        if path.is_file():
            return path
    have = sorted(path.name for path in root.iterdir() if path.suffix in (".csv", ".npz", ".json"))
    raise DataError(f"{given}: no such file, nor below {root} (there: {few(have)})")
