"""Hashes of large files are kept between processes, and never for another content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from emolib import hashing
from emolib.engines.fingerprint import fingerprint
from emolib.hashing import sha_file

OLD_NS = 10**18


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are really read; what this process knows is forgotten each time."""
    monkeypatch.setenv("EMOLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashing, "_LARGE", 4)
    seen: list[str] = []
    real = hashing._read_sha
    monkeypatch.setattr(
        hashing, "_read_sha", lambda path: seen.append(Path(path).name) or real(path)
    )
    return seen


def written(path: Path, content: bytes, mtime_ns: int = OLD_NS) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def in_another_process(path: Path) -> str:
    hashing._sha_file.cache_clear()
    return sha_file(path)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_large_file_is_read_once_by_all_processes(tmp_path: Path, reads: list[str]) -> None:
    file = written(tmp_path / "weights", b"12345")
    assert [in_another_process(file) for _ in range(3)] == [sha(b"12345")] * 3
    assert reads == ["weights"]
    link = tmp_path / "link"
    link.symlink_to(file)
    assert in_another_process(link) == sha(b"12345")
    assert reads == ["weights"]


def test_another_size_or_time_is_another_content(tmp_path: Path, reads: list[str]) -> None:
    file = written(tmp_path / "weights", b"12345")
    in_another_process(file)
    assert in_another_process(written(file, b"1234567")) == sha(b"1234567")
    assert in_another_process(written(file, b"abcde", OLD_NS + 1)) == sha(b"abcde")
    assert in_another_process(written(file, b"12345")) == sha(b"12345")
    assert reads == ["weights"] * 3, "the first state is still known"


def test_a_file_written_just_now_is_not_trusted(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"12345")
    in_another_process(file), in_another_process(file)
    assert reads == ["weights"] * 2


def test_small_files_are_not_kept(tmp_path: Path, reads: list[str]) -> None:
    in_another_process(written(tmp_path / "small", b"123"))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("line", [b'{"path": "', b"[]\n", b"\xff\n", b'{"sha256": 5}\n', b"null\n"])
def test_damaged_lines_are_passed_over(tmp_path: Path, reads: list[str], line: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/hashes.jsonl").write_bytes(line)
    file = written(tmp_path / "weights", b"12345")
    assert [in_another_process(file) for _ in range(2)] == [sha(b"12345")] * 2
    assert reads == ["weights"]


def test_without_a_place_to_keep_them_files_are_read_again(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOLIB_CACHE", str(tmp_path / "file" / "below"))
    file = written(tmp_path / "weights", b"12345")
    assert [in_another_process(file) for _ in range(2)] == [sha(b"12345")] * 2
    assert reads == ["weights"] * 2


def test_a_model_folders_weights_are_read_once(tmp_path: Path, reads: list[str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    written(folder / "config.json", b"{}")
    written(folder / "model.safetensors", b"weights")
    prints = set()
    for _ in range(2):
        hashing._sha_file.cache_clear()
        prints.add(fingerprint(folder))
    assert len(prints) == 1
    assert reads.count("model.safetensors") == 1
    written(folder / "model.safetensors", b"others.", OLD_NS + 1)
    hashing._sha_file.cache_clear()
    assert fingerprint(folder) not in prints
