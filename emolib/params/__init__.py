"""Typed parameters: schemas, YAML loading, messages that name file, key, value and choices."""

from emolib.params.loading import load, merge
from emolib.params.schemas import DataParams, Decoding, ModelParams, Schema

__all__ = ["DataParams", "Decoding", "ModelParams", "Schema", "load", "merge"]
