"""Figures. Every function takes and returns a matplotlib Axes or Figure; none saves or shows."""
