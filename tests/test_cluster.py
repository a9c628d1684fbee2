"""Work on a Ray cluster of two nodes: what one process gives, and nothing lost with a node."""

from __future__ import annotations

import json
import logging
import os
import pickle
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from emolib import captioning, cluster, runs
from emolib.__main__ import main
from emolib.datasets.clip import Clip
from emolib.engines import open_engine
from emolib.engines.base import Request
from emolib.engines.cluster import ENDED, ClusterEngine, _opened
from emolib.errors import EngineError, MissingDependencyError, ParamsError
from emolib.inference import answers
from emolib.ledger import Ledger
from emolib.media.store import FrameStore
from emolib.models.features.open import feature_tables
from emolib.params.cluster import ClusterParams
from emolib.params.discriminative import FeatureParams
from emolib.params.schemas import Decoding, ModelParams
from emolib.params.stages import DataCheck
from tests.fake_server import FakeServer
from tests.media_files import write_video

RAY = ClusterParams(engine="ray", copies=2)
# Ray gives up early where several test processes share two cores.
PATIENT = {
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_USAGE_STATS_ENABLED": "0",
}


AGENT = "dashboard_agent_listen_port"
PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", AGENT)


def node(session: Path) -> dict[str, object]:
    """Options of a small node that starts however busy the machine is.

    A node gives up when a helper has not told it its port within some 15 s, so ports are chosen
    here; the one that has no option of the node's is read from a file, which is written here.
    """
    ports, name = {}, secrets.token_hex(28)
    for kind in PORTS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[kind] = free.getsockname()[1]

    def tell() -> None:
        while not (found := list(session.glob("session_*_*"))):
            time.sleep(0.05)
        (found[0] / f"{AGENT}_{name}").write_text(str(ports[AGENT]))

    threading.Thread(target=tell, daemon=True).start()
    quiet = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    known = {"env_vars": {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": name}}
    return {"num_cpus": 1, "object_store_memory": 80 * 2**20, **quiet, **known, **ports}


@pytest.fixture(scope="module")
def nodes():
    """A head with one core, where this process is the driver, and a node with one more."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for name, value in PATIENT.items():
            patch.setenv(name, value)
        patch.setenv("RAY_TMPDIR", folder)  # ray.init writes the address here, and makes no folder
        (Path(folder) / "ray").mkdir()
        import ray
        from ray.cluster_utils import Cluster

        session = Path(folder)  # pytest's folders make socket paths too long
        head = {**node(session), "temp_dir": folder}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            made.add_node(**node(session))
            cluster.connect(RAY.model_copy(update={"address": made.address}))
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def clips(tmp_path):
    made = [Clip(f"c{i}", write_video(tmp_path / f"c{i}.mp4", 8 + i)) for i in range(5)]
    made[2].video.write_bytes(b"no video")
    return [*made, Clip("gone", tmp_path / "gone.mp4")]


@pytest.fixture
def images(tmp_path):
    store = FrameStore(tmp_path / "images")
    rng = np.random.default_rng(0)
    paths = [store.put(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(48)]
    return [captioning.Image("c", i, 0.0, p.stem, str(p)) for i, p in enumerate(paths)]


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def timeless(rows: list[dict]) -> list[dict]:
    return sorted(
        ({k: v for k, v in row.items() if k != "seconds"} for row in rows),
        key=lambda row: row["key"],
    )


class Held(FakeServer):
    """Answers nothing before both workers ask; later holds both while ``then`` is done.

    Each worker has two requests under way, so four at once are both workers'.
    """

    def __init__(self, after: int, then) -> None:
        super().__init__(latency=0.02)
        self.after, self.then = after, then
        self.both, self.done = threading.Barrier(4), threading.Event()
        self.count = self.held = 0

    def saw(self, digest: str) -> None:
        super().saw(digest)
        with self._lock:
            self.count += 1
            first, hold = self.count <= 4, self.count > self.after and not self.done.is_set()
            self.held += hold
            act = hold and self.held == 4
        if first:
            self.both.wait(600)
        if act:
            self.then()
            self.done.set()
        if hold:
            self.done.wait(600)


def caption(images, server, file, where):
    params = ModelParams(
        engine="server", model="fake", base_url=server.url, concurrency=2, timeout_s=900
    )
    with (
        open_engine(params, name="fake", cluster=where) as engine,
        Ledger(file) as ledger,
    ):
        return captioning.caption(images, engine, ledger)


def test_frames_and_features_are_those_of_one_process(nodes, clips, tmp_path):
    found = {}
    for way, where in (("one", None), ("many", RAY)):
        store = FrameStore(tmp_path / way)
        file = tmp_path / f"{way}.jsonl"
        for again in range(2):
            with Ledger(file) as ledger:
                images, failed = captioning.extract_images(
                    clips, store, ledger, frames=2, seed=0, cluster=where
                )
            assert len(file.read_text().splitlines()) == 5, f"round {again}: known ones again"
        good = [clip for clip in clips if clip.name not in ("c2", "gone")]
        [table] = feature_tables(
            clips, [FeatureParams(kind="picture", frames=2)], tmp_path / f"{way}-f", cluster=where
        )
        assert list(np.flatnonzero(~table.missing)) == [clips.index(c) for c in good]
        plain = [(i.clip, i.index, i.pts_s, i.sha, Path(i.path).name) for i in images]
        found[way] = plain, failed, table.errors, timeless_images(rows_of(file)), table.values
    assert found["one"][:4] == found["many"][:4]
    assert np.array_equal(found["one"][4], found["many"][4])
    names = {p.relative_to(tmp_path / "one-f") for p in (tmp_path / "one-f").rglob("*.npy")}
    assert names == {
        p.relative_to(tmp_path / "many-f") for p in (tmp_path / "many-f").rglob("*.npy")
    }


def timeless_images(rows: list[dict]) -> list[dict]:
    for row in rows:
        for image in row["images"]:
            image["path"] = Path(image["path"]).name
    return sorted(rows, key=lambda row: row["key"])


def test_a_model_in_a_worker_answers_as_it_does_here(nodes, images, tmp_path):
    params = ModelParams(
        model="tiny:internvl", device="cpu", batch_size=2, decoding=Decoding(max_new_tokens=8)
    )
    found = []
    for way, where in (("here", None), ("there", RAY.model_copy(update={"copies": 1}))):
        file = tmp_path / f"{way}.jsonl"
        with (
            open_engine(params, name="tiny", cache=tmp_path / "models", cluster=where) as engine,
            Ledger(file) as ledger,
        ):
            assert isinstance(engine, ClusterEngine) == (where is not None)
            captioning.caption(images[:3], engine, ledger)
        found.append(timeless(rows_of(file)))
    assert found[0] == found[1]
    assert all(row["text"] and not row["error"] for row in found[0])


def test_a_node_that_dies_loses_nothing_and_repeats_only_what_it_was_working_on(
    nodes, images, tmp_path
):
    with FakeServer() as server:
        alone = caption(images, server, tmp_path / "one.jsonl", None)
    [other] = nodes.worker_nodes
    kill = partial(nodes.remove_node, other, allow_graceful=False)
    with Held(16, kill) as server:
        spread = caption(images, server, tmp_path / "many.jsonl", RAY)
        asked = Counter(server.asked)
    assert timeless_list(spread) == timeless_list(alone)
    ledger = rows_of(tmp_path / "many.jsonl")
    assert timeless(ledger) == timeless(rows_of(tmp_path / "one.jsonl"))
    assert len({row["key"] for row in ledger}) == len(ledger) == len(images)
    assert len(asked) == len(images)
    assert max(asked.values()) <= 2
    again = sum(asked.values()) - len(images)
    assert again == 2, "what the dead worker was asking, and nothing else"
    with FakeServer() as server:
        caption(images, server, tmp_path / "many.jsonl", RAY)
        assert not server.asked


def timeless_list(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def killed_by_c7():
    """Gives names back; the process that is given c7 is gone, as for want of memory."""

    def work(clips):
        for clip in clips:
            if clip.name == "c7":
                os.kill(os.getpid(), signal.SIGKILL)
            yield clip.name

    return work


def test_an_item_that_ends_every_worker_costs_nothing_but_itself(nodes):
    """Its neighbours in the block, c6 and c8, come again without it."""
    clips = [Clip(f"c{i}", Path(f"c{i}.mp4")) for i in range(12)]
    found: list[str] = []
    results = cluster.spread(clips, killed_by_c7, RAY, block=3, copies=1)
    with pytest.raises(cluster.LostItems, match=r"^1 of 12 items ended .* wrong with c7$") as lost:
        found.extend(results)
    assert lost.value.items == [clips[7]]
    assert sorted(found) == sorted(clip.name for clip in clips if clip.name != "c7")


def test_a_lost_row_is_an_error_row_and_the_others_are_kept(images, tmp_path, monkeypatch):
    def spread(items, opener, *args, **settings):
        yield from opener()(items[:-1])
        raise cluster.LostItems(items[-1:], len(items))

    monkeypatch.setattr(cluster, "spread", spread)
    requests = [Request(id=f"r{i}", prompt="Say it.") for i in range(3)]
    with FakeServer() as server:
        rows = caption(images[:3], server, tmp_path / "l.jsonl", RAY)
        params = ModelParams(engine="server", model="fake", base_url=server.url)
        with open_engine(params, name="fake", cluster=RAY) as engine:
            replies = list(engine.stream(requests))
    assert [row["error"] for row in rows] == [None, None, ENDED]
    assert len(rows_of(tmp_path / "l.jsonl")) == 3
    assert {reply.id: reply.error for reply in replies} == {"r0": None, "r1": None, "r2": ENDED}
    assert len(replies) == 3


def test_a_cluster_on_which_everything_dies_is_given_up():
    left = dict.fromkeys(range(40))
    with pytest.raises(EngineError, match="first 5 blocks .* nothing was done"):
        list(cluster._settled([cluster.Lost()] * 5, left, patience=4))
    said = ["a", cluster.Done((0,)), *[cluster.Lost()] * 5]
    assert list(cluster._settled(said, left, patience=4)) == ["a"]
    assert 0 not in left
    assert len(left) == 39


def test_a_worker_with_another_model_stops_the_run(tmp_path):
    with FakeServer() as server:
        params = ModelParams(engine="server", model="fake", base_url=server.url)
        opener = partial(_opened, (params, "fake", (), None), {"weights": "others"}, answers)
        worker = cluster.Worker(str(tmp_path), {}, pickle.dumps(opener), tries=None)
        [fault] = worker({"item": [pickle.dumps((0, ("key", None)))]})["result"]
    fault = pickle.loads(fault)
    assert isinstance(fault.error, EngineError)
    assert "another model" in str(fault.error)
    assert os.uname().nodename in str(fault.error)


def test_models_tied_to_one_machine_are_refused():
    tied = ModelParams(model="m", device="cuda:1")
    launched = ModelParams(engine="server", model="m", base_url="http://h/v1", launch=("serve",))
    for params, words in ((tied, "cluster.gpus"), (launched, "every node")):
        with pytest.raises(ParamsError, match=words):
            open_engine(params, name="m", cluster=RAY)


def test_without_ray_or_a_cluster_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(cluster, "is_installed", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"\[ray\]"):
        list(cluster.spread([1], list, RAY))


@pytest.mark.parametrize("there", [True, False])
def test_doctor_says_when_ray_is_asked_for_and_missing(there, tmp_path, monkeypatch, capsys):
    repo = Path(__file__).parents[1]
    (tmp_path / "notebooks").mkdir()
    shutil.copy(repo / "notebooks/00_data_check.ipynb", tmp_path / "notebooks")
    (tmp_path / "params/p").mkdir(parents=True)
    (tmp_path / "params/p/_base.yaml").write_text("cluster: {engine: ray, copies: 8}\n")
    (tmp_path / "params/p/00_data_check.yaml").write_text("profile: p\n")
    monkeypatch.setenv("EMOLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(cluster, "is_installed", lambda: there)
    main(["doctor", "p"])
    printed = capsys.readouterr().out
    assert ("cluster.engine = ray: Ray is missing" in printed) != there
    assert printed.count("'.[ray]'") == (0 if there else 1)


def test_machines_are_no_part_of_a_runs_identity():
    def key(**where: object) -> str:
        params = DataCheck(profile="p", cluster=ClusterParams(**where))
        return runs.run_key("00_data_check", params, {})

    assert key() == key(engine="ray", copies=8)


def test_no_cluster_is_work_in_this_process(caplog):
    caplog.set_level(logging.ERROR)
    seen = []

    def work(items):
        for item in items:
            seen.append(item)
            yield item * 2

    results = cluster.spread([1, 2, 3], lambda: work, None)
    assert next(iter(results)) == 2
    assert seen == [1], "the next item is not touched before its turn"
    assert list(cluster.spread([], lambda: work, RAY)) == []


def test_the_plans_table_is_the_records():
    repo = Path(__file__).parents[1]
    record = json.loads((repo / "outputs/record/scale_plan.json").read_text())
    text = (repo / "docs/scale.md").read_text()
    for size, plan in record["plans"].items():
        column = 2 if size == "115,595 clips" else 3
        lines = [line.split("|") for line in text.splitlines() if line.count("|") == 4]
        cells = {line[1].strip(): line[column].strip() for line in lines}
        assert cells["images"] == f"{plan['images']:,}"
        for name, stage in plan["stages"].items():
            shown = name.replace("captions (each captioner)", "captions by two models")
            assert cells[f"{shown}: rows"] == f"{stage['rows']:,}"
            assert float(cells[f"{shown}: GPU hours"].replace(",", "")) == round(stage["gpu_hours"])
    assert f"{record['ledger_row']['memory_bytes']:,} bytes" in text
