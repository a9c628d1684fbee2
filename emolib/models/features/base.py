"""What all model extractors share: where the model lies, how it is loaded and identified."""

from __future__ import annotations

import importlib.metadata
import pickle
from pathlib import Path
from typing import Any

from emolib.assets import weights_state
from emolib.engines.fingerprint import fingerprint
from emolib.errors import MissingDependencyError, MissingModelError
from emolib.features.table import Modality
from emolib.files import why_refused
from emolib.params.discriminative import FeatureParams


class ModelExtractor:
    """A model in a local folder; loaded when the first clip needs it.

    Nothing is downloaded and no code inside a model folder is run.

    Args:
        params: Folder, layers, level, device.
        modality: What the model reads.

    Raises:
        MissingModelError: no model in the folder.
    """

    def __init__(self, params: FeatureParams, modality: Modality) -> None:
        self.params, self.modality = params, modality
        self.folder = Path(params.model).expanduser()
        self.name = params.name or self.folder.name
        self.batch_size = params.batch_size
        self.identity: dict[str, Any] = {
            "kind": params.kind,
            "model": fingerprint(self.folder),
            "level": params.level,
            "dtype": params.dtype,
            "transformers": _major("transformers"),
        }
        self._model: Any = None

    def model(self) -> Any:
        """The model in evaluation mode on its device."""
        if self._model is None:
            import torch

            device = self.params.device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            try:
                model = self._load(torch_dtype=getattr(torch, self.params.dtype))
            except ImportError as error:
                raise MissingDependencyError(f"{self.folder}: {error}") from None
            except pickle.UnpicklingError as error:
                raise MissingModelError(f"{self.folder}: {why_refused(error)}") from None
            except (OSError, ValueError, KeyError) as error:
                raise MissingModelError(f"{self.folder}: cannot be loaded: {error}") from error
            self._model = model.to(device).eval()
        return self._model

    def check(self) -> None:
        """Open all of the model but its weights, so that a fault is known before hours of work.

        Raises:
            MissingModelError: the folder needs Python code of its own, is of a kind that
                transformers does not have, or lacks its processor, tokenizer or weights.
        """
        from transformers import AutoConfig, AutoModel

        config = self.local(AutoConfig)
        if type(config) not in AutoModel._model_mapping:
            kind = getattr(config, "model_type", type(config).__name__)
            raise MissingModelError(f"{self.folder}: transformers has no model for {kind!r}")
        self._open_front()
        if (state := weights_state(self.folder)) != "":
            raise MissingModelError(f"{self.folder}: {state}")

    def _open_front(self) -> None:
        """Open what prepares the model's input."""
        raise NotImplementedError

    def _load(self, torch_dtype: Any) -> Any:
        raise NotImplementedError

    def local(self, auto: Any, **options: Any) -> Any:
        """Open a transformers class from the folder, offline.

        Raises:
            MissingModelError: a part (processor, tokenizer) is not there or not readable.
        """
        try:
            return auto.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False, **options
            )
        except (OSError, ValueError, KeyError) as error:
            raise MissingModelError(f"{self.folder}: {auto.__name__}: {error}") from error


def _major(package: str) -> str:
    """Major and minor version: what may change a number."""
    return ".".join(importlib.metadata.version(package).split(".")[:2])


def join_layers(states: Any, last: int, how: str) -> Any:
    """Sum or mean of the last hidden layers: tuple of [..., width] -> [..., width].

    Source: the MER baselines sum the last four (MERTools 89120b7, ``feature_extraction``).
    """
    import torch

    stacked = torch.stack(tuple(states[-last:]), dim=0).float()
    return stacked.sum(dim=0) if how == "sum" else stacked.mean(dim=0)
