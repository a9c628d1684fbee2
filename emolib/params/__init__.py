"""Typed parameters: schemas per stage, YAML loading, messages that name file and key."""

from emolib.params.loading import from_notebook, load, load_profile, resolve
from emolib.params.schemas import DataParams, Decoding, ModelParams, Schema

__all__ = [
    "DataParams",
    "Decoding",
    "ModelParams",
    "Schema",
    "from_notebook",
    "load",
    "load_profile",
    "resolve",
]
