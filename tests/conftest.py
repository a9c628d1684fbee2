"""Settings for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from emolib.quarantine import VARIABLE

# Examples are judged by their result, never by their time: test machines are shared.
settings.register_profile("emolib", deadline=None)
settings.load_profile("emolib")


@pytest.fixture(autouse=True)
def _decoding_as_before() -> Iterator[None]:
    """Runs switch supervised decoding on for their process, which here goes on to other tests."""
    yield
    os.environ.pop(VARIABLE, None)
