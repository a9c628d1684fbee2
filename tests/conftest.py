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


# Files of minutes, the longest first.
LONG = (
    "test_notebooks",
    "test_rehearsal",
    "test_notebook_newer",
    "test_sft",
    "test_pipeline",
    "test_training",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: begun last, one of two processes would go through them alone."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _decoding_as_before() -> Iterator[None]:
    """Runs switch supervised decoding on for their process, which here goes on to other tests."""
    yield
    os.environ.pop(VARIABLE, None)
