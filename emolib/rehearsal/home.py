"""A rehearsal's root: stand-ins of weights, data and servers where the parameters look for them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emolib import assets
from emolib.assets import STAND_IN, Asset
from emolib.errors import EmolibError
from emolib.hashing import sha_file
from emolib.params.schemas import DataParams, ModelParams
from emolib.rehearsal import models, server, words
from emolib.rehearsal.affectgpt_files import FILES, small_config, write_part, write_vicuna
from emolib.rehearsal.estimate import Machine
from emolib.rehearsal.models import NotKnown

_SHAPES = ((1920, 1080), (1080, 1920))
_SIZES = "weights/.sizes"  # AffectGPT's small sizes, which its converter must be told


def new_home(home: Path, machine: Machine | None = None) -> None:
    """Make the rehearsal's root anew, on a simulated machine.

    Raises:
        EmolibError: the folder exists and is not a rehearsal's.
    """
    if home.exists():
        if not (home / STAND_IN).is_file():
            raise EmolibError(f"{home} exists and is no rehearsal's root: it is left alone")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    told = machine.to_json() if machine else None
    models.mark(home, "a project root: everything in it is a stand-in", machine=told)


def inside(at: str) -> str:
    """Where something lies below the rehearsal's root: its own place, if that is relative."""
    path = Path(at).expanduser()
    if not path.is_absolute() and ".." not in path.parts:
        return at
    return f"elsewhere/{hashlib.sha256(at.encode()).hexdigest()[:6]}/{path.name}"


class StandIns:
    """Builds stand-ins once and puts them where they are wanted.

    Args:
        home: The rehearsal's root.
        cache: Where built model folders are kept, for several profiles.
    """

    def __init__(self, home: Path, cache: Path) -> None:
        self.home, self.cache = home, cache
        self._key = _sources_hash()

    def place(self, asset: Asset, at: str) -> None:
        """Put the stand-in of a weights asset, and of what it is made from, at a place.

        What is converted is converted by the commands that the data file of assets gives.

        Raises:
            EmolibError: too little of it is known, or a conversion failed.
        """
        target = self.home / inside(at)
        if target.exists():
            return
        conversions = [
            c for c in replace(asset, at=inside(at)).commands() if c.startswith("emolib ")
        ]
        if conversions:
            for name in asset.needs:
                needed = assets.assets()[name]
                self.place(needed, needed.at)
            for command in conversions:
                self._run(command)
            models.mark(target, asset.name)
            return
        made = self._built(asset, Path(asset.at).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if made.is_dir():
            shutil.copytree(made, target, copy_function=os.link)
        else:
            os.link(made, target)
            models.mark(target.parent, asset.name)

    def _built(self, asset: Asset, name: str) -> Path:
        made = self.cache / self._key / name
        if made.exists():
            return made
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
            draft = Path(scratch) / name
            self._build(asset, draft)
            with contextlib.suppress(FileExistsError, OSError):  # another process was faster
                draft.rename(made)
        return made

    def _build(self, asset: Asset, draft: Path) -> None:
        kinds = {file: kind for kind, file in FILES.items()}
        if draft.name in kinds:
            write_part(kinds[draft.name], draft)
        elif asset.holds and set(asset.holds) <= set(kinds):
            for file in asset.holds:
                write_part(kinds[file], draft / file)
            models.mark(draft, asset.hub)
        elif "vicuna" in asset.name:
            write_vicuna(draft)
            models.mark(draft, asset.hub)
        elif draft.suffix == ".pt" and asset.hub:
            models.build(asset.hub, draft.with_suffix(""))
            (draft.with_suffix("") / "checkpoint.pt").rename(draft)
        elif asset.hub:
            models.build(asset.hub, draft)
            for name in asset.holds:  # files of code and tokenizers that only servers read
                if "." in name and not (draft / name).exists():
                    (draft / name).write_text("stand-in\n")
        else:
            raise NotKnown(f"{asset.name}: the layout of its files is not recorded")

    def _run(self, command: str) -> None:
        """Run one of the documented commands in this process, from the rehearsal's root."""
        from emolib.__main__ import main

        words_ = [part for word in shlex.split(command)[1:] for part in self._expanded(word)]
        if words_[:2] == ["convert", "affectgpt"]:
            small_config().save_pretrained(self.home / _SIZES)
            words_[2:2] = ["--config", f"{_SIZES}/config.json"]
        told = io.StringIO()
        quiet = contextlib.redirect_stdout(told), contextlib.redirect_stderr(told)
        with contextlib.chdir(self.home), quiet[0], quiet[1]:
            code = main(words_)
        if code:
            last = (told.getvalue().strip().splitlines() or ["no message"])[-1]
            raise EmolibError(f"`{command}` ended with exit code {code}: {last}")

    def _expanded(self, word: str) -> list[str]:
        if "*" not in word:
            return [word]
        return sorted(str(p.relative_to(self.home)) for p in self.home.glob(word))


def _sources_hash() -> str:
    """What stand-ins are made of: the code that makes them, the values, the library."""
    import transformers

    here = Path(__file__).parent
    makers = ("affectgpt_files", "internvl_files", "models", "published", "speech", "words")
    files = [*(here / f"{name}.py" for name in makers), here.parent / "data/published_configs.json"]
    digest = hashlib.sha256(transformers.__version__.encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# Data ---------------------------------------------------------------------------------------


def write_data(
    home: Path, kinds: Sequence[tuple[DataParams, str]], clips: int, cache: Path
) -> None:
    """Write the synthetic stand-ins of one folder, where several kinds may lie together.

    Two clips are as television and as phones have them, 1920 x 1080 and 1080 x 1920 pixels: what
    real sets hold, and what token budgets must bear.

    Args:
        home: The rehearsal's root.
        kinds: Parameters of data sets that share the folder, each with its kind's name.
        clips: Of each.
        cache: Where the generated clips are kept.
    """
    from emolib.datasets.fake import write_fake

    root = home / inside(kinds[0][0].root)
    world = cache / f"clips-{clips}"
    for _, kind in kinds:
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            layout = "mer2024-labelled" if kind == "folder" else kind
            draft = write_fake(layout, Path(scratch) / "set", clips, world=world)
            if kind == "folder":  # videos and nothing else
                draft = draft / "video-labeled"
            shutil.copytree(draft, root, dirs_exist_ok=True)
    models.mark(root, ", ".join(kind for _, kind in kinds))
    for video, size in zip(sorted(root.rglob("*.mp4")), _SHAPES, strict=False):
        kept = cache / "resized" / f"{sha_file(video)[:16]}-{size[0]}.mp4"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            resize(video, kept, *size)
        video.unlink()
        shutil.copyfile(kept, video)


def resize(video: Path, target_file: Path, width: int, height: int) -> None:
    """Copy a video at another size; its audio stays as it is."""
    import av

    draft = target_file.with_suffix(f".{os.getpid()}.mp4")
    with av.open(str(video)) as source, av.open(str(draft), "w") as target:
        seen = source.streams.video[0]
        shown: Any = target.add_stream("libx264", rate=seen.average_rate)
        shown.width, shown.height, shown.pix_fmt = width, height, "yuv420p"
        shown.options = {"preset": "ultrafast", "crf": "30"}
        heard = source.streams.audio[0] if source.streams.audio else None
        copied = target.add_stream_from_template(heard) if heard else None
        for packet in source.demux([s for s in (seen, heard) if s]):
            if packet.stream is heard:
                if packet.dts is not None:
                    packet.stream = copied
                    target.mux(packet)
                continue
            for frame in packet.decode():
                small: Any = frame
                target.mux(shown.encode(small.reformat(width=width, height=height)))
        target.mux(shown.encode())
    draft.replace(target_file)


# Servers ------------------------------------------------------------------------------------


class Servers:
    """Stand-ins of the servers that a profile's models are behind.

    A server that can be had (``launch``, or commands in the data file of assets) gets one; one
    that cannot be had is not there in the rehearsal either.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.absent: dict[str, str] = {}
        self._ports: dict[str, int] = {}
        self._served: dict[str, list[str]] = {}
        self._launched: set[str] = set()

    def rewrite(self, values: dict[str, Any]) -> None:
        """Let a model's mapping name a server of the rehearsal; others stay as they are."""
        if values.get("engine") != "server":
            return
        model = ModelParams.model_validate_json(json.dumps(values), strict=True)
        known = next((a for a in assets.assets().values() if model.model in a.serves), None)
        port = self._ports.setdefault(model.base_url, _free_port())
        values["base_url"] = f"http://127.0.0.1:{port}/v1"
        values.pop("api_key_env", None)
        if model.launch:
            self._check(model)
            # Ours come last, because the last of several ports counts.
            own = _arguments([model.model], port)
            values["launch"] = [sys.executable, server.__file__, *model.launch[1:], *own]
            self._launched.add(model.base_url)
        elif known is None or known.get:
            self._served.setdefault(model.base_url, []).append(model.model)
        else:
            self.absent[model.model] = known.note or "no command starts it"

    def _check(self, model: ModelParams) -> None:
        port = model.base_url.removesuffix("/v1").rpartition(":")[2]
        if port not in model.launch:
            self.faults.append(
                f"launch of {model.model}: no argument is its base_url's port {port}"
            )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve what nobody launches."""
        with contextlib.ExitStack() as held:
            for url, names in self._served.items():
                if url not in self._launched:
                    held.enter_context(server.StandInServer(names, _sentences(), self._ports[url]))
            yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sentences() -> list[str]:
    first, number, labels = words.ANSWER
    return [f"{first[0]}{number[0]}{label}" for label in labels]


def _arguments(names: Sequence[str], port: int) -> list[str]:
    given = ["--port", str(port)]
    for name in names:
        given += ["--model", name]
    for text in _sentences():
        given += ["--answer", text]
    return given
