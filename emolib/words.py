"""Every clip's words, and where they come from: official ones first, else heard (S7)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from emolib.cluster import Work, spread
from emolib.datasets.clip import Clip
from emolib.errors import MediaError
from emolib.hashing import key_of, sha_file
from emolib.ledger import Ledger, Row
from emolib.media.asr import Recognizer, open_recognizer
from emolib.media.audio import NoAudioError
from emolib.params.cluster import ClusterParams
from emolib.params.media import AsrParams
from emolib.progress import Progress

log = logging.getLogger("emolib.words")


def with_words(
    clips: Sequence[Clip],
    params: AsrParams,
    ledger: Ledger,
    *,
    cluster: ClusterParams | None = None,
) -> list[Clip]:
    """Hear the words of clips that have none; clips with words stay as they are.

    Every answer is in the ledger before the next clip is heard, under the sound's content, the
    model's weights and the options; the same again is not heard again. ``subtitle_source``
    becomes "asr:<model>", or says why there are no words: "asr:<model>:silent" (no speech was
    found), "no-audio" or "unreadable".

    Args:
        clips: Any clips.
        params: How to hear; without a model the clips are given back as they are.
        ledger: Finds and keeps the answers.
        cluster: Whose workers hear, each with a copy of the model; None = this process.

    Returns:
        The clips in their order.

    Raises:
        MissingModelError: the model is not on this machine.
        LedgerError: an answer cannot be written; those so far are kept.
    """
    silent = [clip for clip in clips if clip.subtitle is None]
    if not params.model or not silent:
        return list(clips)
    recognizer = open_recognizer(params)
    keys: dict[str, str] = {}
    for clip in silent:
        with contextlib.suppress(OSError):
            sound = sha_file(clip.audio or clip.video)
            keys[clip.name] = key_of(sound=sound, engine=recognizer.identity)
    todo = {
        keys[clip.name]: clip
        for clip in reversed(silent)  # of clips with one sound the first is heard
        if clip.name in keys and not ledger.settled(keys[clip.name])
    }
    known = len(set(keys.values())) - len(todo)
    with Progress(f"words ({recognizer.name})", known + len(todo), done=known) as progress:
        gpus = cluster.gpus if cluster and params.device != "cpu" else 0.0
        copies = cluster.copies if cluster and gpus else 0
        items, opener = list(reversed(todo.items())), partial(_hearer, params)
        for row in spread(items, opener, cluster, copies=copies, gpus=gpus):
            ledger.put(row)
            progress.advance()
    heard = {c.name: _heard(c, ledger.get(keys.get(c.name, "")), recognizer) for c in silent}
    unreadable = [c.name for c in heard.values() if c.subtitle_source == "unreadable"]
    if unreadable:
        log.warning("%d clips without readable sound, e.g. %s", len(unreadable), unreadable[0])
    return [heard.get(clip.name, clip) for clip in clips]


def words_summary(clips: Sequence[Clip]) -> dict[str, int]:
    """How many clips have their words from where, for a result file."""
    return dict(Counter(clip.subtitle_source for clip in clips).most_common())


def _heard(clip: Clip, row: Row | None, recognizer: Recognizer) -> Clip:
    if row is None:  # no file
        return replace(clip, subtitle_source="unreadable")
    if row["error"]:
        return replace(clip, subtitle_source="no-audio" if row["no_audio"] else "unreadable")
    source = f"asr:{recognizer.name}"
    if not row["text"]:
        return replace(clip, subtitle_source=f"{source}:silent")
    return replace(clip, subtitle=row["text"], subtitle_source=source)


def _hearer(params: AsrParams) -> Work:
    return partial(_hear, open_recognizer(params))


def _hear(recognizer: Recognizer, clips: Iterable[tuple[str, Clip]]) -> Iterator[Row]:
    for key, clip in clips:
        yield {"key": key, "task": f"{clip.name}/words", **_row(clip, recognizer)}


def _row(clip: Clip, recognizer: Recognizer) -> Row:
    """Hear one clip; whatever is wrong with its file becomes the row's error."""
    start = time.perf_counter()
    row: dict[str, Any] = {"model": recognizer.name, "text": "", "error": None, "transient": False}
    try:
        said = recognizer.transcribe(clip.audio or clip.video)
    except MediaError as error:
        no_audio = isinstance(error, NoAudioError)
        return {**row, "error": str(error), "transient": not error.lasting, "no_audio": no_audio}
    return {
        **row,
        "text": said.text,
        "language": said.language,
        "silent": said.silent,
        "segments": [segment.to_json() for segment in said.kept],
        "dropped": [{**segment.to_json(), "reason": why} for segment, why in said.dropped],
        "seconds": round(time.perf_counter() - start, 4),
    }
