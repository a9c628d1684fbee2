"""The MERBench networks: attention over modalities, over features, and low-rank fusion.

Source: described in the MER2024 baseline (MERTools 89120b7, ``MER2024/toolkit/models``); the
code is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


class InputDropout(nn.Module):
    """Dropout with a random generator of its own.

    Networks trained side by side in threads stay reproducible, and 16-bit numbers from NumPy
    cost a tenth of torch's Bernoulli draws, which for wide inputs are half of the training.

    Args:
        p: Share of numbers set to zero, in [0, 1); the rest is scaled by 1 / (1 - p).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.cut = round(p * 2**16)
        self.bits = np.random.SFC64(int(torch.randint(2**31, ()).item()))

    def forward(self, x: Tensor) -> Tensor:
        """Drop while training, pass otherwise."""
        if not self.training or not self.cut:
            return x
        drawn = self.bits.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
        kept = torch.from_numpy(drawn >= self.cut).view(x.shape).to(x.device)
        return (x * kept).mul_(2**16 / (2**16 - self.cut))


class Encoder(nn.Module):
    """Dropout on the input, then three linear layers with ReLU: [batch, width] -> [batch, h]."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            InputDropout(dropout),
            *(nn.Linear(width, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
        )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode utterance-level features; ``lengths`` plays no part."""
        return self.layers(x)


class SequenceEncoder(nn.Module):
    """One-layer LSTM, its last real state, dropout, linear: [batch, steps, width] -> [batch, h]."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.dropout = InputDropout(dropout)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode frame-level features; steps from ``lengths`` on are padding."""
        states, _ = self.lstm(x)
        last = states[:, -1] if lengths is None else states[torch.arange(len(x)), lengths - 1]
        return self.out(self.dropout(last))


def _encoders(
    widths: Sequence[int], sequences: Sequence[bool], hidden: int, dropout: float
) -> nn.ModuleList:
    kinds = [SequenceEncoder if sequence else Encoder for sequence in sequences]
    return nn.ModuleList(
        kind(width, hidden, dropout) for kind, width in zip(kinds, widths, strict=True)
    )


class AttentionFusion(nn.Module):
    """One encoder an input, weighted by attention over all of them.

    The published networks ``attention`` (three inputs: audio, text, video) and
    ``attention_topn`` (one input a feature) differ in nothing but the number of inputs.

    Args:
        widths: Width of each input.
        hidden: h.
        dropout: On the inputs.
        classes: Class outputs.
        valence: Also predict one number.
        normalise: Softmax over the scores; the published code uses them as they are.
        sequences: Which inputs are sequences; none when empty.
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: int,
        dropout: float,
        classes: int = 6,
        *,
        valence: bool = False,
        normalise: bool = True,
        sequences: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        kinds = sequences or [False] * len(widths)
        self.encoders = _encoders(widths, kinds, hidden, dropout)
        self.attention = Encoder(len(widths) * hidden, hidden, dropout)
        self.scores = nn.Linear(hidden, len(widths))
        self.normalise = normalise
        self.classes = nn.Linear(hidden, classes)
        self.valence = nn.Linear(hidden, 1) if valence else None

    def forward(
        self, inputs: Sequence[Tensor], lengths: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Class logits [batch, classes] and valence [batch] or None."""
        states = [
            encoder(x, n) for encoder, x, n in zip(self.encoders, inputs, lengths, strict=True)
        ]
        scores = self.scores(self.attention(torch.cat(states, dim=1)))
        if self.normalise:
            scores = scores.softmax(dim=1)
        fused = (torch.stack(states, dim=2) @ scores.unsqueeze(2)).squeeze(2)
        valence = None if self.valence is None else self.valence(fused).squeeze(1)
        return self.classes(fused), valence


class LowRankFusion(nn.Module):
    """The outer product of all inputs' states, in a sum of ``rank`` factors each.

    Args:
        widths: Width of each input.
        hidden: h.
        dropout: On the inputs.
        classes: Class outputs.
        rank: Factors of the weight tensor.
        valence: Also predict one number.
        sequences: Which inputs are sequences; none when empty.

    Source: Liu et al., Efficient Low-rank Multimodal Fusion (ACL 2018); the full tensor is
    Zadeh et al., Tensor Fusion Network (EMNLP 2017).
    """

    def __init__(
        self,
        widths: Sequence[int],
        hidden: int,
        dropout: float,
        classes: int = 6,
        *,
        rank: int = 4,
        valence: bool = False,
        sequences: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        kinds = sequences or [False] * len(widths)
        self.encoders = _encoders(widths, kinds, hidden, dropout)
        out = max(1, hidden // 2)
        self.factors = nn.ParameterList(
            nn.Parameter(torch.empty(rank, hidden + 1, out)) for _ in widths
        )
        for factor in self.factors:
            nn.init.normal_(factor, std=(hidden + 1) ** -0.5)
            # The constant's row at 1: the product starts near a sum, and gradients reach all.
            with torch.no_grad():
                factor[:, -1] = 1.0
        self.weights = nn.Parameter(torch.full((rank,), rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(out))
        self.classes = nn.Linear(out, classes)
        self.valence = nn.Linear(out, 1) if valence else None

    def forward(
        self, inputs: Sequence[Tensor], lengths: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor | None]:
        """Class logits [batch, classes] and valence [batch] or None."""
        product: Tensor | None = None
        for encoder, factor, x, n in zip(self.encoders, self.factors, inputs, lengths, strict=True):
            state = encoder(x, n)
            one = torch.cat([state, state.new_ones(len(state), 1)], dim=1)
            part = torch.einsum("bi,rio->bro", one, factor)
            product = part if product is None else product * part
        assert product is not None
        fused = torch.einsum("bro,r->bo", product, self.weights) + self.bias
        valence = None if self.valence is None else self.valence(fused).squeeze(1)
        return self.classes(fused), valence


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
