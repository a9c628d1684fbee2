"""Decode frames and sound, cut faces out, keep frames: one job a module, one file at a time."""
