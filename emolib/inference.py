"""Ask a model many questions, write every answer down at once, never ask twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from emolib.engines.base import Engine, Reply, Request
from emolib.errors import DataError, MediaError
from emolib.hashing import key_of
from emolib.ledger import Ledger, Row
from emolib.progress import Progress


@dataclass(frozen=True, slots=True)
class Task:
    """One question whose images are only loaded when it is really asked.

    Attributes:
        id: Unique name of the row, e.g. "clip/0.84/qwen".
        content: Plain values the question depends on: file hashes, sampling, rendered prompt.
        build: Makes the request. A MediaError (the file itself is at fault) becomes the row's
            lasting error; a DataError or OSError (it is gone, changed or out of reach just now)
            an error that is tried again by the next run.
        info: Plain values to keep beside the answer (not part of the key). ``build`` may add to
            it, e.g. the time stamps of the frames it took.
    """

    id: str
    content: dict[str, Any]
    build: Callable[[], Request]
    info: dict[str, Any] = field(default_factory=dict)

    def key(self, engine: Engine) -> str:
        """Ledger key: what is asked, and everything the answering engine is."""
        return key_of(content=self.content, engine=engine.identity)


def ask(tasks: Iterable[Task], engine: Engine, ledger: Ledger, desc: str) -> dict[str, Row]:
    """Answer every task that the ledger has no settled row for.

    Media are decoded lazily, one engine batch ahead. A task that fails is a row with its error.
    Two tasks with the same content are asked once.

    Args:
        tasks: Questions; ids unique.
        engine: Who answers.
        ledger: Where rows are found and added.
        desc: Name on the progress bar.

    Returns:
        Task id -> ledger row with ``text``, ``error``, ``transient``, ``seconds``, token counts
        and the task's ``info``; in the tasks' order.

    Raises:
        ValueError: two tasks share an id.
        LedgerError: a row cannot be written; the rows so far are kept.
        EngineError: the engine as a whole is unusable.
    """
    tasks = list(tasks)
    keys = {task.id: task.key(engine) for task in tasks}
    if len(keys) != len(tasks):
        raise ValueError("task ids must be unique")
    todo = {keys[t.id]: t for t in reversed(tasks) if not ledger.settled(keys[t.id])}
    todo = dict(reversed(todo.items()))
    if ledger.broken:
        print(f"{ledger.path.name}: {ledger.broken} cut-off rows are left out and asked again")
    distinct = len(set(keys.values()))
    with Progress(desc, distinct, done=distinct - len(todo)) as progress:
        failed = 0

        def settle(key: str, reply: Reply) -> None:
            nonlocal failed
            failed += reply.error is not None
            ledger.put(_row(key, todo[key], reply, engine.name))
            progress.advance(note=f"{failed} failed" if failed else "")

        for reply in engine.stream(_requests(todo, settle)):
            settle(reply.id, reply)
    rows = {}
    for task in tasks:
        row = ledger.get(keys[task.id])
        assert row is not None, f"the engine gave no reply to {task.id}"
        rows[task.id] = {**row, "id": task.id}
    return rows


def _requests(todo: dict[str, Task], settle: Callable[[str, Reply], None]) -> Iterator[Request]:
    """Build requests one by one; the engine sees the ledger key as the request's id."""
    for key, task in todo.items():
        try:
            request = task.build()
        except (MediaError, DataError, OSError) as error:
            lasting = isinstance(error, MediaError) and error.lasting
            settle(key, Reply(id=key, error=str(error), transient=not lasting))
            continue
        yield Request(
            id=key,
            prompt=request.prompt,
            images=request.images,
            audio=request.audio,
            sample_rate=request.sample_rate,
            system=request.system,
        )


def _row(key: str, task: Task, reply: Reply, name: str) -> Row:
    return {
        "key": key,
        "task": task.id,
        "model": name,
        "text": reply.text,
        "error": reply.error,
        "transient": reply.transient,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "new_tokens": reply.new_tokens,
        "seconds": round(reply.seconds, 4),
        "info": dict(task.info),
    }
