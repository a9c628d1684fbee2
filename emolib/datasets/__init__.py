"""Readers: one a data set, all giving the same :class:`~emolib.datasets.clip.Clip`."""
