"""Complete checkpoints of real architectures with a few hundred thousand random weights.

They load through the same code as the published models (config, tokenizer, processor, chat
template, generation config, safetensors), so tests and the demo run every stage on a CPU in
seconds. What they answer means nothing until they are trained.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from emolib import prompts
from emolib.engines import tiny_parts
from emolib.engines.tiny_parts import (
    IMAGE_SIZE,
    PATCH,
    internvl_processor,
    llama_sizes,
    llava_processor,
    save_random,
)
from emolib.errors import ParamsError


def build_tiny(family: str, folder: Path, seed: int = 0) -> Path:
    """Write one tiny checkpoint; takes about a second once torch is imported.

    Args:
        family: "internvl" (``InternVLForConditionalGeneration``: InternViT, pixel shuffle,
            Llama; 4 visual tokens a tile), "llava" (``LlavaForConditionalGeneration``:
            CLIP, Llama; 16 visual tokens an image), "qwen2audio"
            (:mod:`emolib.engines.tiny_audio`), "affectgpt" or "affectgpt2025"
            (:mod:`emolib.models.affectgpt.tiny`).
        folder: Where the checkpoint goes. It appears complete or not at all.
        seed: Seed of the weights; same seed, same bytes.

    Returns:
        ``folder``.

    Raises:
        ParamsError: ``family`` is not known.
        FileExistsError: ``folder`` exists.
    """
    if family not in FAMILIES:
        raise ParamsError(f"tiny model {family!r} is not known; choose from {sorted(FAMILIES)}")
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; a checkpoint is never overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        FAMILIES[family](draft, seed)
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def tiny_folder(family: str, cache: Path, seed: int = 0) -> Path:
    """Return the tiny checkpoint of ``family`` under ``cache``, building it on first use.

    The folder's name carries a hash of the modules that build it and of the prompts, so a
    changed recipe is built anew. Several processes may ask at once.
    """
    if family not in FAMILIES:
        raise ParamsError(f"tiny model {family!r} is not known; choose from {sorted(FAMILIES)}")
    sources = (__file__, tiny_parts.__file__, prompts.__file__)
    recipe = b"".join(Path(source).read_bytes() for source in sources)
    if family.startswith("affectgpt"):
        from emolib.models.affectgpt import tiny

        recipe += Path(tiny.__file__).read_bytes()
    if family == "qwen2audio":
        from emolib.engines import tiny_audio

        recipe += Path(tiny_audio.__file__).read_bytes()
    folder = Path(cache) / f"tiny-{family}-{seed}-{hashlib.sha256(recipe).hexdigest()[:7]}"
    if not folder.is_dir():
        try:
            build_tiny(family, folder, seed)
        except OSError:  # another process was faster: rename onto a non-empty folder fails
            if not folder.is_dir():
                raise
    return folder


def _internvl(folder: Path, seed: int) -> None:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    visual_tokens = (IMAGE_SIZE // PATCH) ** 2 // 4
    processor, tokenizer = internvl_processor(IMAGE_SIZE, visual_tokens, 1)
    config = InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": [IMAGE_SIZE, IMAGE_SIZE],
            "patch_size": [PATCH, PATCH],
            "norm_type": "rms_norm",  # the 6B tower of V1.5
            "use_qk_norm": True,
            "layer_scale_init_value": 1.0,
            "use_mean_pooling": True,
        },
        text_config=llama_sizes(tokenizer),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=visual_tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    save_random(InternVLForConditionalGeneration, config, processor, tokenizer, folder, seed)


def _llava(folder: Path, seed: int) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    processor, tokenizer = llava_processor(IMAGE_SIZE, PATCH)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH,
            "projection_dim": 32,
        },
        text_config=llama_sizes(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    save_random(LlavaForConditionalGeneration, config, processor, tokenizer, folder, seed)


def _qwen2audio(folder: Path, seed: int) -> None:
    from emolib.engines.tiny_audio import build

    build(folder, seed)


def _affectgpt(folder: Path, seed: int) -> None:
    from emolib.models.affectgpt.tiny import build

    build(folder, seed)


def _affectgpt_2025(folder: Path, seed: int) -> None:
    from emolib.models.affectgpt.tiny import build_2025

    build_2025(folder, seed)


FAMILIES: dict[str, Callable[[Path, int], None]] = {
    "internvl": _internvl,
    "llava": _llava,
    "qwen2audio": _qwen2audio,
    "affectgpt": _affectgpt,
    "affectgpt2025": _affectgpt_2025,
}
