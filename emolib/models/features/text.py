"""Text encoders and causal language models: hidden states of the subtitle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emolib.datasets.clip import Clip
from emolib.features.statistics import spoken
from emolib.models.features.base import ModelExtractor, join_layers
from emolib.params.discriminative import FeatureParams

_LONGEST = 512  # tokens; a subtitle is a sentence


class TextExtractor(ModelExtractor):
    """The last hidden layers, joined, of every token that is not special; averaged over tokens.

    Batches are padded on the right and masked, so results do not depend on the batch.
    """

    def __init__(self, params: FeatureParams) -> None:
        super().__init__(params, "text")
        self.identity |= {"last_layers": params.last_layers, "join": params.join}
        self._tokenizer: Any = None

    def content(self, clip: Clip) -> dict[str, Any]:
        """The words."""
        return {"text": spoken(clip)}

    def load(self, clip: Clip) -> str:
        """The words."""
        return spoken(clip)

    def _open_front(self) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = self.local(AutoTokenizer, padding_side="right")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token

    def _load(self, torch_dtype: Any) -> Any:
        from transformers import AutoModel

        self._open_front()
        return self.local(AutoModel, dtype=torch_dtype)

    def extract(self, items: Sequence[str]) -> list[np.ndarray]:
        """float32 [width] or [tokens, width] a text."""
        import torch

        model = self.model()
        device = next(model.parameters()).device
        made = self._tokenizer(
            list(items),
            padding=True,
            truncation=True,
            max_length=_LONGEST,
            return_tensors="pt",
            return_special_tokens_mask=True,
        )
        special = made.pop("special_tokens_mask").bool()
        made.pop("token_type_ids", None)
        mask = made["attention_mask"].bool()
        with torch.inference_mode():
            out = model(**{k: v.to(device) for k, v in made.items()}, output_hidden_states=True)
        joined = join_layers(out.hidden_states, self.params.last_layers, self.params.join).cpu()
        rows = []
        for k in range(len(items)):
            kept = mask[k] & ~special[k]
            # A text of special tokens alone (all unknown) still has a state.
            tokens = joined[k][kept if kept.any() else mask[k]].numpy()
            rows.append(tokens if self.params.level == "frame" else tokens.mean(axis=0))
        return rows
