"""From pixels and sound to what the language model reads: the media half of AffectGPT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from emolib.models.affectgpt.placement import placed, rows_with
from emolib.models.affectgpt.towers import clip_vectors, frame_vectors


class MediaMixin:
    """Methods of :class:`emolib.models.affectgpt.modeling.AffectGPTForConditionalGeneration`."""

    config: Any
    vision_tower: Any
    image_qformer: Any
    audio_tower: Any
    video_branch: Any
    audio_branch: Any
    multi_branch: Any
    get_input_embeddings: Any

    def parts(self, names: tuple[str, ...]) -> list[nn.Module]:
        """Those of the named parts this design has."""
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def encode_frames(
        self, pixel_values_videos: torch.Tensor, video_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Frozen image tower, with its image Q-Former if it has one, frame by frame.

        Args:
            pixel_values_videos: float [n, frames, 3, height, width], normalised.
            video_mask: bool [n, frames]; only True frames are computed, others are zeros.

        Returns:
            float [n, frames, tokens, width]: the image queries, or one vector a frame.
        """
        n, frames = pixel_values_videos.shape[:2]
        pixels = pixel_values_videos.flatten(0, 1)
        keep = None if video_mask is None else video_mask.flatten().bool()
        pixels = pixels if keep is None else pixels[keep]
        with _grad_if_trained(*self.parts(("vision_tower", "image_qformer"))):
            if self.config.pooled_frames:
                states = frame_vectors(self.vision_tower, pixels)
            else:
                states = self.image_qformer.read(self.vision_tower(pixels).last_hidden_state)
        if keep is not None:
            full = states.new_zeros(n * frames, *states.shape[1:])
            full[keep] = states
            states = full
        return states.unflatten(0, (n, frames))

    def encode_clips(self, input_features: torch.Tensor) -> torch.Tensor:
        """Frozen audio tower, clip by clip.

        Args:
            input_features: float [n, clips, 1, mel bins, frames], normalised mel, or
                [n, clips, samples], normalised waveforms: what the audio tower reads.

        Returns:
            float [n, clips, audio width].
        """
        clips = input_features.flatten(0, 1)
        with _grad_if_trained(self.audio_tower):
            if self.config.waveforms:
                states = clip_vectors(self.audio_tower, clips, self.config.audio_layers)
            else:
                states = self.audio_tower(clips)
        return states.unflatten(0, input_features.shape[:2])

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Language-model embeddings of videos: float [n, video queries, LLM width].

        ``frame_features`` (from :meth:`encode_frames`) replaces the pixels.
        """
        if frame_features is None:
            frame_features = self.encode_frames(pixel_values_videos, video_mask)
        return self.video_branch(frame_features, video_mask)

    def get_audio_features(
        self,
        input_features: torch.Tensor | None = None,
        clip_features: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Language-model embeddings of audio: float [n, audio queries, LLM width].

        ``clip_features`` (from :meth:`encode_clips`) replaces the mel.
        """
        if clip_features is None:
            clip_features = self.encode_clips(input_features)
        return self.audio_branch(clip_features[:, :, None])

    def get_multi_features(
        self,
        frame_features: torch.Tensor,
        clip_features: torch.Tensor,
        video_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Language-model embeddings of samples' pre-fused video and audio.

        Args:
            frame_features: Output of :meth:`encode_frames`.
            clip_features: Output of :meth:`encode_clips`, of the same samples.
            video_mask: bool [n, frames]; None: all are real.

        Returns:
            float [n, multi tokens, LLM width].
        """
        branches = (self.video_branch, self.audio_branch)
        return self.multi_branch(branches, frame_features, video_mask, clip_features)

    def embed(
        self,
        input_ids: torch.Tensor,
        frames: torch.Tensor | None = None,
        video_mask: torch.Tensor | None = None,
        clips: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Token embeddings with the placeholder rows overwritten.

        Args:
            input_ids: int [batch, length].
            frames: Output of :meth:`encode_frames` for the rows that have a video; None: none.
            video_mask: bool [videos, frames]; None: all are real.
            clips: Output of :meth:`encode_clips` for the rows that have audio; None: none.

        Returns:
            float [batch, length, LLM width].

        Raises:
            ValueError: placeholders and media do not match.
        """
        config, ids = self.config, input_ids
        video = None if frames is None else self.get_video_features(None, video_mask, frames)
        audio = None if clips is None else self.get_audio_features(None, clips)
        multi = None
        if config.multi_token_id is not None:
            tokens = (config.video_token_id, config.audio_token_id)
            fused = rows_with(ids, config.multi_token_id)
            seen, heard = (rows_with(ids, token, config.multi_token_id) for token in tokens)
            for kind, rows, given in (("video", seen, frames), ("audio", heard, clips)):
                if rows.sum() != (0 if given is None else len(given)):
                    raise ValueError(
                        f"{0 if given is None else len(given)} {kind} inputs, but {rows.sum()} "
                        f"rows of input_ids speak of {kind}: build them with AffectGPTProcessor"
                    )
            if fused.any() and frames is not None and clips is not None:
                of_video, of_audio = fused[seen], fused[heard]
                mask = None if video_mask is None else video_mask[of_video]
                multi = self.get_multi_features(frames[of_video], clips[of_audio], mask)
            # What is given for pre-fusion alone has no placeholder of its own.
            video = None if video is None else _chosen(video, rows_with(ids, tokens[0])[seen])
            audio = None if audio is None else _chosen(audio, rows_with(ids, tokens[1])[heard])
        embeds = self.get_input_embeddings()(ids)
        media = {
            "video": (config.video_token_id, video, config.video_tokens),
            "audio": (config.audio_token_id, audio, config.audio_tokens),
            "multi": (config.multi_token_id, multi, config.multi_tokens),
        }
        for kind, (token, features, count) in media.items():
            embeds = placed(embeds, ids, kind, token, features, count)
        return embeds

    def untouched(self, has_video: bool, has_audio: bool) -> Iterator[torch.Tensor]:
        """Zeros that give trained parts without input in a batch their (zero) gradients.

        Every rank of a distributed run then reduces the same gradients whatever its batch holds.
        """
        fuses = self.config.pre_fusion != "none"
        for branch, used in ((self.video_branch, has_video), (self.audio_branch, has_audio)):
            if (fuses or not used) and _is_trained(branch):
                yield branch.zero_with_gradients()
        if fuses and _is_trained(self.multi_branch):
            yield self.multi_branch.zero_with_gradients((self.video_branch, self.audio_branch))


def _is_trained(*parts: nn.Module) -> bool:
    return any(parameter.requires_grad for part in parts for parameter in part.parameters())


def _chosen(features: torch.Tensor, rows: torch.Tensor) -> torch.Tensor | None:
    return features[rows] if rows.any() else None


def _grad_if_trained(*parts: nn.Module) -> torch.set_grad_enabled:
    """Frozen parts keep no activations."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and _is_trained(*parts))
