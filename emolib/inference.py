"""Ask a model many questions, write every answer down at once, never ask twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from emolib.costs import Bill
from emolib.engines.base import Engine, Reply, Request
from emolib.engines.cluster import ClusterEngine, ended
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
        read: Takes plain values out of the reply that are kept in ``info``, e.g. token
            probabilities, which are not kept themselves.
    """

    id: str
    content: dict[str, Any]
    build: Callable[[], Request]
    info: dict[str, Any] = field(default_factory=dict)
    read: Callable[[Reply], dict[str, Any]] | None = None

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
        Task id -> ledger row in the tasks' order, with ``text``, ``error``, ``transient``,
        ``finish_reason``, ``seconds``, token counts, the task's ``info``, and who answered:
        ``model`` (name), ``engine`` (its identity, weights among it) and ``software``.

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
    bill = Bill(engine.prices, len(todo))
    with Progress(desc, distinct, done=distinct - len(todo)) as progress:
        for answer in answers(todo, engine):
            ledger.put(answer)
            bill.add(answer)
            progress.advance(note=bill.note())
    rows = {}
    for task in tasks:
        row = ledger.get(keys[task.id])
        assert row is not None, f"the engine gave no reply to {task.id}"
        rows[task.id] = {**row, "id": task.id}
    return rows


def answers(tasks: Mapping[str, Task], engine: Engine) -> Iterator[Row]:
    """Compute rows and write nothing: for whoever keeps them elsewhere.

    Args:
        tasks: Ledger key (:meth:`Task.key`) -> task; each is asked, whether known or not.
        engine: Who answers.

    Yields:
        One ledger row a task, in the order answers become ready; errors are rows, too. A
        task's media are read only when the engine asks for the next request.

    Raises:
        EngineError: the engine as a whole is unusable; rows yielded before stay good.
    """
    if isinstance(engine, ClusterEngine):
        yield from _spread(tasks, engine)
        return
    unbuilt: list[Row] = []

    def requests() -> Iterator[Request]:
        for key, task in tasks.items():
            try:
                yield replace(task.build(), id=key)
            except (MediaError, DataError, OSError) as error:
                lasting = isinstance(error, MediaError) and error.lasting
                reply = Reply(id=key, error=str(error), transient=not lasting)
                unbuilt.append(_row(key, task, reply, engine))

    for reply in engine.stream(requests()):
        yield _row(reply.id, tasks[reply.id], reply, engine)
        while unbuilt:
            yield unbuilt.pop(0)
    yield from unbuilt


def _spread(tasks: Mapping[str, Task], engine: ClusterEngine) -> Iterator[Row]:
    """Rows that a cluster's workers compute; one whose workers died over it is an error row."""
    left = dict(tasks)
    for row in engine.rows(tasks, answers):
        if left.pop(row["key"], None):
            yield row
    for key, task in left.items():
        yield _row(key, task, ended(key), engine)


def _row(key: str, task: Task, reply: Reply, engine: Engine) -> Row:
    return {
        "key": key,
        "task": task.id,
        "model": engine.name,
        "engine": engine.identity,
        "software": engine.software,
        "text": reply.text,
        "error": reply.error,
        "transient": reply.transient,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "new_tokens": reply.new_tokens,
        "seconds": round(reply.seconds, 4),
        "info": {**task.info, **(task.read(reply) if task.read else {})},
    }
