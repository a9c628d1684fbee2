"""What must be settled before ms-swift is imported, and how a model is found and prepared.

Used by the in-process engine and by the training subprocess, so that both read a model
the same way.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import pickle
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emolib import nano
from emolib.assets import pointers
from emolib.engines import hub
from emolib.engines.gpus import device_map
from emolib.errors import EmolibError, EngineError, MissingDependencyError, MissingModelError
from emolib.files import why_refused
from emolib.params.schemas import ModelParams
from emolib.processes import search_path

TINY = "tiny:"

# ms-swift finds the model type from the architecture unless several share it; these are the
# plain chat models among them.
_MODEL_TYPES = {
    "LlavaForConditionalGeneration": "llava1_5_hf",
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
    "Qwen3VLForConditionalGeneration": "qwen3_vl",
    "Qwen3_5ForConditionalGeneration": "qwen3_5",
    "Qwen2AudioForConditionalGeneration": "qwen2_audio",
}
# Architectures that ms-swift knows several templates for; the one their own authors use.
_TEMPLATES = {"Qwen2_5_VLForConditionalGeneration": "qwen2_5_vl"}
_CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this machine.

    Attributes:
        path: Folder with config and weights.
        model_type: ms-swift's model type, or "" to let ms-swift find it.
        dtype: Stored weight type as torch names it, e.g. "bfloat16".
        template: ms-swift's template, or "" to let ms-swift find it.
    """

    path: Path
    model_type: str
    dtype: str
    template: str = ""


def environment(*, allow_download: bool = False) -> dict[str, str]:
    """Environment variables that keep ms-swift offline, on Hugging Face ids, and quiet."""
    offline = {} if allow_download else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return offline | {
        "USE_HF": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "LOG_LEVEL": "WARNING",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "SWIFT_AUDIO_LOAD_BACKEND": "soundfile_pyav",
        "ENABLE_AUDIO_OUTPUT": "False",  # Qwen-Omni's voice: never heard here, only memory
    }


def child_environment(*, allow_download: bool = False) -> dict[str, str]:
    """Give a child process this one's environment: :func:`environment`, emolib found."""
    made = environment(allow_download=allow_download) | {"PYTHONUNBUFFERED": "1"}
    return os.environ | made | {"PYTHONPATH": search_path()}


def import_swift(*, allow_download: bool = False) -> None:
    """Import ms-swift with :func:`environment` in place (some 6 s in a fresh process).

    Raises:
        MissingDependencyError: it is not installed.
    """
    for key, value in environment(allow_download=allow_download).items():
        os.environ.setdefault(key, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations between these packages
            importlib.import_module("swift.infer_engine")
            # model types of our own, which converted folders name in their args.json
            importlib.import_module("emolib.models.internvl.swift_plugin")
            importlib.import_module("emolib.engines.swift_repairs").repair_templates()
    except ImportError as error:
        raise MissingDependencyError(
            f"models in this process need ms-swift ({error}): pip install 'emolib[train]'"
        ) from error
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logger = logging.getLogger("swift")
    logger.setLevel(logging.WARNING)
    if not any(isinstance(f, _NoFalseAlarm) for f in logger.filters):
        logger.addFilter(_NoFalseAlarm())
    logging.getLogger("modelscope").setLevel(logging.ERROR)


class _NoFalseAlarm(logging.Filter):
    """Drops what ms-swift says without cause.

    That model code will run: :func:`find_model` refuses such code. That decord is missing: it
    gets frames, never a video. That Qwen2-Audio needs transformers below 4.49:
    :mod:`emolib.engines.swift_repairs` does what is missing above.
    """

    _ALARMS = (
        "trust_remote_code=True",
        'pip install "decord" -U',
        'pip install "transformers>=4.45,<4.49" -U',
    )

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return not any(alarm in said for alarm in self._ALARMS)


def find_model(params: ModelParams, cache: Path | None = None) -> ModelFolder:
    """Find the folder a model's parameters mean, building tiny ones, fetching if allowed.

    Args:
        params: ``model`` is a folder, a hub id, "tiny:FAMILY" or "nano:NAME".
        cache: Where tiny checkpoints are kept; None = ``outputs/models``.

    Raises:
        MissingModelError: no such folder, or a hub id that is not on this machine.
        EngineError: the folder wants to run Python code of its own and may not.
        MissingDependencyError: ``load_in_4bit`` without bitsandbytes.
    """
    if params.load_in_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError("load_in_4bit needs bitsandbytes: pip install 'emolib[quant]'")
    if params.model.startswith(TINY):
        from emolib.engines.tiny import tiny_folder

        cache = Path("outputs/models") if cache is None else cache
        path = tiny_folder(params.model.removeprefix(TINY), cache)
    elif params.model.startswith(nano.PREFIX):
        path = nano.folder(params.model)
    else:
        path = Path(params.model).expanduser()
        if not path.is_dir():
            path = _from_hub(params)
    if not (path / "config.json").is_file():
        raise MissingModelError(f"{path} has no config.json: not a model folder")
    if lost := pointers(path):
        raise MissingModelError(
            f"{path}: {', '.join(lost)}: Git LFS pointers, not the files themselves; run "
            "`git lfs pull` there, or fetch the folder with `hf download`"
        )
    if not params.trust_remote_code:
        _refuse_code(path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or [""])[0]
    model_type = params.model_type or _MODEL_TYPES.get(architecture, "")
    template = params.template or _TEMPLATES.get(architecture, "")
    # MiMo-VL has Qwen2.5-VL's architecture; ms-swift knows its folders by their names.
    if not params.template and (
        "mimo" in Path(params.model).name.lower() or (path / "args.json").is_file()
    ):
        template = ""
    return ModelFolder(path, model_type, _stored_dtype(config), template)


def check_type(found: ModelFolder) -> None:
    """Check that ms-swift finds one model type and one template for a folder.

    Left to itself it stops with a list of names, or, for an architecture that it does not know,
    answers in no chat format at all.

    Raises:
        EngineError: names the parameters to set and the candidates.
    """
    from swift.model.model_meta import (
        MODEL_MAPPING,
        get_matched_model_meta,
        get_matched_model_types,
    )
    from swift.template import TEMPLATE_MAPPING

    for key, value, names in (
        ("model_type", found.model_type, MODEL_MAPPING),
        ("template", found.template, TEMPLATE_MAPPING),
    ):
        if value and value not in names:
            near = difflib.get_close_matches(value, list(names), 5, 0.5)
            raise EngineError(f"{key}: ms-swift has no {value!r}; names like it: {_listed(near)}")
    if (found.path / "args.json").is_file():
        return  # it names both
    config = json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    architectures = config.get("architectures") or []
    named = get_matched_model_meta(str(found.path))  # by the name of the folder
    types = [named.model_type] if named else get_matched_model_types(architectures)
    types = [found.model_type] if found.model_type else types
    if not architectures and not found.model_type and not named:
        types = []
    metas = [named if named and named.model_type == name else MODEL_MAPPING[name] for name in types]
    templates = [[m.template] if m.template else m.candidate_templates for m in metas]
    if len(types) == 1 and (found.template or len(templates[0]) == 1):
        return
    what = architectures[0] if architectures else "no architecture in config.json"
    if not types:
        known = {a: name for name, meta in MODEL_MAPPING.items() for a in meta.architectures}
        near = difflib.get_close_matches(what, list(known), 5, 0.6)
        raise EngineError(
            f"{found.path}: ms-swift knows no model of this kind ({what}): set model_type and "
            "template in the model's parameters to those of a model with the same weights and "
            "chat format, or let a server answer (engine: server). Nearest by name: "
            + _listed(f"{known[name]} ({name})" for name in near)
        )
    choices = "".join(
        f"\n  model_type: {name}, template: {' | '.join(some)}"
        for name, some in zip(types, templates, strict=True)
    )
    raise EngineError(
        f"{found.path}: ms-swift cannot tell which of its models this is ({what}): set model_type "
        f"and template in the model's parameters to one of{choices}"
    )


def check_options(arguments: Sequence[str]) -> None:
    """Apply :func:`check_type` to the options of one of ms-swift's own commands."""

    def value(option: str) -> str:
        return arguments[arguments.index(option) + 1] if option in arguments else ""

    check_type(ModelFolder(Path(value("--model")), value("--model_type"), "", value("--template")))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def shown_name(params: ModelParams, found: ModelFolder) -> str:
    """Name a model in records: by its folder, a shipped one and one of the hub by its address."""
    return found.path.name if Path(params.model).expanduser().is_dir() else params.model


def _from_hub(params: ModelParams) -> Path:
    name = params.model
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise MissingModelError(f"{name}: no such model folder")
    code = params.trust_remote_code
    check = None if code else _refuse_code
    return hub.snapshot(name, download=params.allow_download, code=code, check=check)


def _refuse_code(path: Path) -> None:
    for name in _CONFIGS:
        file = path / name
        if file.is_file() and "auto_map" in json.loads(file.read_text(encoding="utf-8")):
            raise EngineError(
                f"{file} asks to run Python code from the model folder (auto_map). If you trust "
                "its source set trust_remote_code: true; for published InternVL-Chat folders "
                "use 'emolib convert internvl' instead"
            )


def _stored_dtype(config: dict[str, Any]) -> str:
    for part in (config, config.get("text_config") or {}, config.get("llm_config") or {}):
        if dtype := part.get("dtype") or part.get("torch_dtype"):
            return str(dtype)
    return "float32"


def load_model(params: ModelParams, found: ModelFolder, dtype: str) -> tuple[Any, Any]:
    """Load a model and its prepared processor through ms-swift.

    Args:
        params: ``attention``, ``device``, ``gpus``, ``load_in_4bit``, ``max_tiles`` and
            ``max_pixels`` are used.
        found: What :func:`find_model` gave.
        dtype: Weight type as torch names it.

    Returns:
        The model in evaluation mode and its processor.

    Raises:
        EngineError: the folder is not a model that ms-swift knows, or does not fit it.
        ParamsError: fewer GPUs are visible than the parameters ask for.
    """
    import_swift(allow_download=params.allow_download)
    import torch
    from swift.model import get_model_processor

    check_type(found)
    try:
        placed, numbers = device_map(params.device, params.gpus, torch.cuda.device_count())
        free = {n: torch.cuda.mem_get_info(n)[0] for n in numbers} if placed == "auto" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, processor = get_model_processor(
                str(found.path),
                torch_dtype=getattr(torch, dtype),
                model_type=found.model_type or None,
                attn_impl=params.attention or None,
                device_map=placed,
                max_memory=free,
                quantization_config=_four_bits(dtype) if params.load_in_4bit else None,
                use_hf=True,
            )
        return model.eval(), prepare_processor(processor, params.max_tiles, params.max_pixels)
    except EmolibError:
        raise
    except Exception as error:
        raise EngineError(f"{params.model} cannot be loaded: {one_line(error)}") from error


def _four_bits(dtype: str) -> Any:
    """NF4 with double quantization (arXiv 2305.14314, section 3); sums are formed in ``dtype``."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of what computes answers, for the record."""
    return {name: importlib.metadata.version(name) for name in packages}


def one_line(error: Exception) -> str:
    """Name a fault in one line of at most 300 characters; a refused pickle says what it wants."""
    if isinstance(error, pickle.UnpicklingError):
        return why_refused(error)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:300]


def prepare_processor(processor: Any, max_tiles: int = 0, max_pixels: int = 0) -> Any:
    """Make a processor cut images as the model was trained to see them.

    InternVL models were trained on PIL's bicubic resize; transformers' default torchvision
    resize differs from it by up to 26 grey levels, so the PIL twin is put in its place.

    Args:
        processor: What ms-swift loaded; changed in place.
        max_tiles: Most tiles one image is cut into; 0 = as the folder says.
        max_pixels: Most pixels one image is scaled to; 0 = as the folder says.

    Raises:
        EngineError: ``max_tiles`` is given and this model cuts no tiles, or ``max_pixels`` and it
            does not scale images to a number of pixels.
    """
    images: Any = getattr(processor, "image_processor", None)
    if type(images).__name__ == "GotOcr2ImageProcessor":
        from transformers import GotOcr2ImageProcessorPil

        settings = {k: v for k, v in images.to_dict().items() if not k.endswith("_type")}
        processor.image_processor = images = GotOcr2ImageProcessorPil(**settings)
    if max_tiles:
        if not hasattr(images, "max_patches"):
            raise EngineError(
                f"max_tiles = {max_tiles}, but {type(images).__name__} does not cut images into "
                "tiles: set it to 0"
            )
        images.max_patches = max_tiles
        images.min_patches = min(images.min_patches, max_tiles)
    if max_pixels:
        if not type(images).__name__.startswith("Qwen2VLImageProcessor"):
            raise EngineError(
                f"max_pixels = {max_pixels}, but {type(images).__name__} does not scale images to "
                "a number of pixels: set it to 0"
            )
        least = min(images.size["shortest_edge"], max_pixels)
        images.size = {"shortest_edge": least, "longest_edge": max_pixels}
    return processor


def prepare_every_processor(max_tiles: int = 0, max_pixels: int = 0) -> None:
    """Let ms-swift's own commands, run in this process, read models as the engines do.

    Registers our model types and puts :func:`prepare_processor` behind every processor loaded.
    """
    from swift.model.register import ModelLoader

    from emolib.engines.swift_repairs import repair_templates
    from emolib.models.internvl import swift_plugin

    swift_plugin.register()
    repair_templates()
    load = ModelLoader.get_processor

    def get_processor(self: Any, *args: Any, **kwargs: Any) -> Any:
        return prepare_processor(load(self, *args, **kwargs), max_tiles, max_pixels)

    ModelLoader.get_processor = get_processor


def free_memory() -> None:
    """Give memory of models that nobody holds any more back to the devices."""
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
