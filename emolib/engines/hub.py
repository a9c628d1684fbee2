"""Models of the Hugging Face hub: found in this machine's cache, fetched once when allowed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emolib.assets import Asset, assets, published, state
from emolib.errors import MissingModelError

# What a model needs beside its weights: configuration, tokenizer, processor, chat template.
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
# The first that the repository has; the same weights in two formats are fetched once.
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_NESTED = "*/*"  # other formats and training states lie in subfolders; engines read none
_OFFLINE_BY_USER = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def snapshot(
    name: str, *, download: bool, code: bool = False, check: Callable[[Path], None] | None = None
) -> Path:
    """Find a model's folder in the Hugging Face cache, or fetch what is missing of it.

    A complete folder is used as it is and the network is not asked. An interrupted download
    continues.

    Args:
        name: Id on the hub, "owner/name".
        download: Fetch what is not in the cache.
        code: Fetch the folder's Python files, too.
        check: Called with the folder before any weight is fetched; raises to refuse the model.

    Returns:
        The folder, inside the cache.

    Raises:
        MissingModelError: not in the cache and ``download`` is off, or the hub does not give it,
            or it does not fit on the disk.
    """
    problem = "not in the Hugging Face cache of this machine"
    folder = _cached(name)
    if folder is not None:
        found = state(
            Path("/"), Asset(name, "weights", name, holds=("config.json", "weights")), str(folder)
        )
        if found.word == "there":
            return folder
        problem = f"incomplete in the Hugging Face cache ({found.detail})"
    if not download:
        raise MissingModelError(
            f"{name} is no folder, and {problem}. Fetch it once ({size(name)}): add --download to "
            f"emolib predict, allow_download: true to a parameter file, or run hf download {name}"
        )
    if _OFFLINE_BY_USER:
        raise MissingModelError(
            f"{name} is {problem}, and HF_HUB_OFFLINE is set: unset it to download ({size(name)})"
        )
    return _fetch(name, (*_SMALL, *(("*.py",) if code else ())), check)


def size(name: str) -> str:
    """Size of a published model as text, e.g. "15.9 GB"; "size unknown" where none is recorded."""
    known = next((a.bytes for a in assets().values() if a.hub == name and a.bytes), 0)
    known = known or 1e9 * published()["models"].get(name, {}).get("size_gb", 0)
    return f"{known / 1e9:.1f} GB" if known else "size unknown"


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=["config.json"]))
    except LocalEntryNotFoundError:
        return None
    except ValueError as error:  # not an id
        raise MissingModelError(f"{name}: no such model folder, and no hub id: {error}") from None


def _fetch(name: str, small: tuple[str, ...], check: Callable[[Path], None] | None) -> Path:
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        with _online():
            folder = Path(_download(name, small))
            if check is not None:
                check(folder)
            for pattern in _WEIGHTS:
                files = _download(name, (pattern,), dry_run=True)
                if not files:
                    continue
                wanted = sum(f.file_size or 0 for f in files if f.will_download)
                cache = Path(constants.HF_HUB_CACHE)
                free = shutil.disk_usage(cache).free
                if wanted > free:
                    raise MissingModelError(
                        f"{name} needs {wanted / 1e9:.1f} GB and {cache} has {free / 1e9:.1f} GB "
                        "free: make room, or set HF_HOME to a folder on a larger disk"
                    )
                print(f"{name}: fetching {wanted / 1e9:.1f} GB into {cache}", file=sys.stderr)
                return Path(_download(name, (pattern,)))
    except MissingModelError:
        raise
    except GatedRepoError as error:
        raise MissingModelError(
            f"{name}: its authors give it to those who accept their terms: do so on its page "
            f"(https://huggingface.co/{name}), then hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise MissingModelError(f"{name}: the hub has no such model, or it is private") from error
    except (OSError, httpx.HTTPError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise MissingModelError(
            f"{name} could not be fetched: {reason[0]}. What has arrived is kept; the same command "
            "continues"
        ) from error
    raise MissingModelError(f"{name} has no weights of a kind that is read here: {_WEIGHTS}")


def _download(name: str, patterns: tuple[str, ...], **options: Any) -> Any:
    from huggingface_hub import snapshot_download

    return snapshot_download(
        name, allow_patterns=list(patterns), ignore_patterns=[_NESTED], **options
    )


@contextmanager
def _online() -> Iterator[None]:
    """Let the hub's library reach the network, which an engine opened before may have forbidden."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
