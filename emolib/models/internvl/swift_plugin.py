"""ms-swift's model type and template for converted InternVL-Chat folders.

In this process: ``register()``. For ms-swift's own commands::

    plugin=$(python -m emolib.models.internvl)
    swift infer --model CONVERTED --external_plugins "$plugin"

``args.json`` in a converted folder names the model type, so neither ``--model_type`` nor
``--template`` is needed; without the plugin ms-swift stops and says that it does not know the
type, instead of prompting the model in another model's format.

Settings, as ms-swift's templates take them: ``MAX_NUM`` (most tiles of an image, or ``auto``:
the finest tiling with which the sample fits ``max_length``) and ``IMAGE_LAYOUT`` (``joint`` or
``separate``); ``chat_template_kwargs: {"max_num": ...}`` of one row or request wins.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from swift.model import ModelGroup, ModelMeta, register_model
from swift.model.models.internlm import InternVLHfLoader
from swift.template import TemplateMeta, register_template
from swift.template.base import MaxLengthError, Template
from swift.template.templates.internvl import InternvlhfTemplate
from swift.template.utils import findall

from emolib.errors import DataError
from emolib.models.internvl import prompting
from emolib.models.internvl.budget import Size, Tiling, TokenBudgetError

AUTO = "auto"


class InternVLChatLoader(InternVLHfLoader):
    """The native model with the image processor it was trained with."""

    def get_processor(self, *args: Any, **kwargs: Any) -> Any:
        """Load the processor; its images are resized by PIL, as in training."""
        from emolib.engines.swift_setup import prepare_processor

        return prepare_processor(super().get_processor(*args, **kwargs))


class InternVLChatTemplate(InternvlhfTemplate):
    """``internlm2-chat`` prompts: see :mod:`emolib.models.internvl.prompting`.

    Raises:
        DataError: the folder has no chat format, or image marks and images disagree.
        MaxLengthError: a sample is longer than ``max_length``; nothing is ever cut.
    """

    placeholder_tokens = ["<IMG_CONTEXT>"]  # noqa: RUF012  ms-swift's interface

    def __init__(
        self, processor: Any, template_meta: Any, default_system: str | None = None, *args: Any,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        self._own_system = default_system is not None
        super().__init__(processor, template_meta, default_system, *args, **kwargs)

    def init_processor(self, processor: Any) -> None:
        """Take the chat format from the model's configuration."""
        if processor is None or self._processor_inited:
            return
        dialect = prompting.from_config(processor.model_info.config)
        layout = os.environ.get("IMAGE_LAYOUT", dialect.layout)
        if layout not in ("joint", "separate"):
            raise DataError(f"IMAGE_LAYOUT = {layout!r}; choose joint or separate")
        self.dialect = dataclasses.replace(dialect, layout=layout)
        if self.use_chat_template:
            meta = _meta(dialect)
            for name in ("prefix", "prompt", "chat_sep", "suffix", "system_prefix"):
                setattr(self.template_meta, name, getattr(meta, name))
            if not self._own_system:
                self.template_meta.default_system = dialect.system
        super().init_processor(processor)

    def _preprocess_inputs(self, inputs: Any) -> None:
        if inputs.videos or inputs.audios:
            raise DataError("this model takes images: give a video's frames, in time order")
        layout, block = self.dialect.layout, ("<img>", "</img>")
        if self.mode == "vllm":  # vLLM's processor writes the marks, around every image
            layout, block = "separate", ("", "")
        users = [m for m in inputs.messages if m["role"] == "user"]
        left = len(inputs.images)
        if left and not any("<image>" in str(m["content"]) for m in users):
            users[0]["content"] = "<image>" * left + users[0]["content"]
        for message in inputs.messages:
            text = message["content"]
            if message["role"] == "user":
                message["content"], taken = prompting.lay_out(text, left, layout, block)
                left -= taken
            elif isinstance(text, str):
                message["content"] = prompting.broken_marks(text)
        if left:
            raise DataError(f"{left} of {len(inputs.images)} images have no <image> mark")
        if inputs.system:
            inputs.system = prompting.broken_marks(inputs.system)
        super()._preprocess_inputs(inputs)

    def replace_tag(self, media_type: str, index: int, inputs: Any) -> list[Any]:
        """One placeholder an image; its marks and line break are in the text already."""
        return ["<IMG_CONTEXT>"] if self.mode == "vllm" else [[-100]]

    def _tokenize(self, context: Any, **kwargs: Any) -> Any:
        if not isinstance(context, str) or prompting.BREAK not in context:
            return super()._tokenize(context, **kwargs)
        ids: list[int] = []
        for piece in context.split(prompting.BREAK):
            ids += super()._tokenize(piece, **kwargs) if piece else []
        return ids

    def _encode(self, inputs: Any) -> dict[str, Any]:
        encoded = Template._encode(self, inputs)
        ids, labels, scale = encoded["input_ids"], encoded["labels"], encoded["loss_scale"]
        spots = findall(ids, -100)
        if len(spots) != len(inputs.images):
            raise DataError(f"{len(spots)} image places for {len(inputs.images)} images")
        tiling, other = self.tiling(), len(ids) - len(spots)
        sizes = [(image.width, image.height) for image in inputs.images]
        top = self._max_num(inputs, tiling, sizes, other)
        tiles: list[int] = []
        if inputs.images:
            pixels, tiles = self.cut(inputs.images, top)
            encoded["pixel_values"] = pixels.to(self.model_info.torch_dtype)
            if tiles != tiling.tiles(sizes, top):
                raise DataError(f"{tiles} tiles made, {tiling.tiles(sizes, top)} counted")
        token = self.config.image_token_id
        encoded["input_ids"], encoded["labels"], encoded["loss_scale"] = self._extend_tokens(
            ids, labels, scale, spots, lambda i: [token] * (tiling.tokens * tiles[i])
        )
        return encoded

    def cut(self, images: list[Any], top: int) -> tuple[Any, list[int]]:
        """Tile images at ``max_num = top``: pixels [tiles, 3, side, side], tiles per image."""
        processor = self.processor.image_processor
        lowest = min(processor.min_patches, top)
        made = processor(
            images=images, max_patches=top, min_patches=lowest, return_tensors="pt"
        )  # fmt: skip
        return made["pixel_values"], [int(n) for n in made["num_patches"]]

    def tiling(self) -> Tiling:
        """The model's tiling as the token budget sees it."""
        images = self.processor.image_processor
        size, top = images.size, images.max_patches if images.crop_to_patches else 1
        return Tiling(
            tokens=self.processor.image_seq_length,
            tile=size["height"] if isinstance(size, dict) else size.height,
            min_num=min(images.min_patches, top),
            max_num=top,
            layout=self.dialect.layout,
        )

    def _max_num(self, inputs: Any, tiling: Tiling, sizes: list[Size], other: int) -> int:
        """Tiling of one sample, checked against ``max_length``."""
        wish = inputs.chat_template_kwargs.get("max_num") or os.environ.get("MAX_NUM")
        limit = self.max_length
        if wish and wish != AUTO and not (str(wish).isdigit() and int(wish) > 0):
            raise DataError(f"max_num = {wish!r}; give a number of tiles or {AUTO}")
        try:
            if wish == AUTO:
                return tiling.fit(sizes, other, limit)[0] if limit else tiling.max_num
            top = int(wish) if wish else tiling.max_num
            if limit:
                tiling.check(sizes, other, limit, top)
            return top
        except TokenBudgetError as error:
            raise MaxLengthError(str(error)) from None


def _meta(dialect: prompting.Dialect) -> TemplateMeta:
    end = dialect.end
    return TemplateMeta(
        prompting.MODEL_TYPE,
        prefix=[],
        system_prefix=["<|im_start|>system\n{{SYSTEM}}" + end],
        prompt=["<|im_start|>user\n{{QUERY}}" + end + "<|im_start|>assistant\n"],
        chat_sep=[end],
        suffix=[end],
        default_system=dialect.system,
        template_cls=InternVLChatTemplate,
        auto_add_bos=True,
    )


def register() -> None:
    """Make ms-swift know converted folders; safe to call again."""
    register_template(_meta(prompting.DIALECTS["v1.5"]), exist_ok=True)
    register_model(
        ModelMeta(
            prompting.MODEL_TYPE,
            [ModelGroup([])],
            InternVLChatLoader,
            template=prompting.MODEL_TYPE,
            model_arch="llava_hf",
            # Not InternVLForConditionalGeneration: ms-swift could no longer tell -hf folders.
            architectures=["InternVLChatNative"],
            additional_saved_files=["args.json", "conversion.json"],
            is_multimodal=True,
            tags=["vision"],
        ),
        exist_ok=True,
    )


register()
