"""What a reader found wrong or noteworthy: findings with counts and first examples.

A reader collects findings instead of stopping at the first fault, so that one look tells all
of them. Errors stop the stages, warnings are told, notes only stand in the report.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from emolib.datasets.clip import Clip
from emolib.errors import DataError
from emolib.files import write_atomic
from emolib.hashing import sha_file
from emolib.progress import track

Level = Literal["error", "warning", "note"]
Item = TypeVar("Item")
EXAMPLES = 3

log = logging.getLogger("emolib.datasets")


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem, however often it occurs.

    Attributes:
        level: "error" (stops), "warning" (told) or "note" (as published, or harmless).
        what: The problem, in words that fit any count.
        count: How often.
        examples: The first of them, at most :data:`EXAMPLES`.
    """

    level: Level
    what: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.examples) + (", …" if self.count > len(self.examples) else "")
        return f"{self.what}: {self.count}" + (f" ({shown})" if self.examples else "")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "level": self.level,
            "what": self.what,
            "count": self.count,
            "examples": list(self.examples),
        }


@dataclass(slots=True)
class Reading(Generic[Item]):
    """What a reader gives: the items that can be used, and what it found on the way.

    Attributes:
        kind: The reader, e.g. "mer2024-ov".
        root: The folder read.
        items: Clips (or captioned images), names unique.
        findings: In the order they were found.
        tables: The label and subtitle files read.
    """

    kind: str
    root: Path
    items: list[Item] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)

    def find(self, level: Level, what: str, which: Iterable[str], count: int = 0) -> None:
        """Add a finding about the things named; none named and no count adds nothing."""
        names = list(which)
        if names or count:
            finding = Finding(level, what, count or len(names), tuple(names[:EXAMPLES]))
            self.findings.append(finding)

    def of(self, level: Level) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    def stop_on_errors(self) -> None:
        """Tell the warnings (log ``emolib.datasets``), and stop when there are errors.

        Raises:
            DataError: names every error with count and examples.
        """
        for finding in self.of("warning"):
            log.warning("%s in %s: %s", self.kind, self.root, finding)
        if errors := self.of("error"):
            lines = "\n".join(f"  - {finding}" for finding in errors)
            raise DataError(
                f"{self.root}: not usable as {self.kind}:\n{lines}\n"
                f"`emolib datasets check {self.kind} {self.root}` shows everything"
            )


def check_groups(reading: Reading[Clip]) -> None:
    """Note source videos whose clips the official split divides."""
    splits: dict[str, set[str]] = defaultdict(set)
    for clip in reading.items:
        if clip.group:
            splits[clip.group].add(clip.split)
    divided = sorted(group for group, found in splits.items() if len(found) > 1)
    reading.find(
        "note", f"source videos (of {len(splits)}) whose clips are in several splits", divided
    )


def check_copies(reading: Reading[Clip]) -> None:
    """Find clips whose video files hold the same bytes.

    Cost: reads only files that share their size with another one.
    """
    by_size: dict[int, list[Clip]] = defaultdict(list)
    for clip in reading.items:
        if clip.video.is_file():
            by_size[clip.video.stat().st_size].append(clip)
    alike = [clip for clips in by_size.values() if len(clips) > 1 for clip in clips]
    by_hash: dict[str, list[Clip]] = defaultdict(list)
    for clip in track(alike, "same bytes?") if alike else []:
        by_hash[sha_file(clip.video)].append(clip)
    same = [clips for clips in by_hash.values() if len(clips) > 1]
    across = [clips for clips in same if len({clip.split for clip in clips}) > 1]
    reading.find("warning", "sets of clips that are the same file", map(_names, same))
    reading.find("warning", "of them in several splits", map(_names, across))


def _names(clips: Sequence[Clip]) -> str:
    return " = ".join(clip.name for clip in clips)


def check_checksums(reading: Reading[Clip], file: Path) -> None:
    """Compare all files of a set with a list of checksums, or write the list.

    The list is what ``sha256sum`` writes: hash, two blanks, path below the root.

    Cost: reads every file once.

    Raises:
        DataError: the list cannot be read or written.
    """
    paths = {*reading.tables, *(clip.video for clip in reading.items)}
    paths |= {clip.audio for clip in reading.items if clip.audio}
    now = {
        _inside(path, reading.root): sha_file(path)
        for path in track(sorted(path for path in paths if path.is_file()), "checksums")
    }
    if not file.exists():
        write_atomic(file, "".join(f"{sha}  {name}\n" for name, sha in now.items()))
        reading.find("note", f"checksums written to {file}", (), count=len(now))
        return
    then = _read_checksums(file)
    changed = [name for name in now if name in then and then[name] != now[name]]
    reading.find("error", f"files that differ from {file}", changed)
    reading.find("error", f"files of {file} that are not there", sorted(then.keys() - now.keys()))
    reading.find("warning", f"files {file} does not list", sorted(now.keys() - then.keys()))


def _read_checksums(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        sha, _, name = line.partition(" ")
        if len(sha) != 64 or not name[1:]:
            raise DataError(f"{file}, line {number}: not 'SHA-256, two blanks, path'")
        found[name[1:]] = sha.lower()
    return found


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def counts(reading: Reading[Clip]) -> dict[str, Any]:
    """Count clips, splits, words, labels and groups, for a table or a result file."""
    clips = reading.items
    tokens = Counter(label for clip in clips for label in clip.labels or ())
    return {
        "clips": len(clips),
        "splits": dict(sorted(Counter(clip.split or "(none)" for clip in clips).items())),
        "with_words": sum(clip.subtitle is not None for clip in clips),
        "with_labels": sum(clip.labels is not None for clip in clips),
        "with_description": sum(clip.description is not None for clip in clips),
        "with_valence": sum(clip.valence is not None for clip in clips),
        "label_tokens": sum(tokens.values()),
        "different_labels": len(tokens),
        "groups": len({clip.group for clip in clips if clip.group}),
    }
