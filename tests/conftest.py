"""Settings for the whole suite."""

from hypothesis import settings

# Examples are judged by their result, never by their time: test machines are shared.
settings.register_profile("emolib", deadline=None)
settings.load_profile("emolib")
