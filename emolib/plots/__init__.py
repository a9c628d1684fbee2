"""Figures. Every function takes and returns a matplotlib Axes or Figure; none saves or shows."""

from __future__ import annotations

import matplotlib
from matplotlib import font_manager

# Fonts that hold Chinese, in the order of preference; what is not installed is left out.
_CHINESE = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "SimHei", "Arial Unicode MS"),
)


def _set_text_style() -> None:
    """Show labels and subtitles as they are: no formulas between ``$``, Chinese where it can."""
    matplotlib.rcParams["text.parse_math"] = False
    known = set(font_manager.fontManager.get_font_names())
    fonts = [font for font in _CHINESE if font in known]
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *fonts]


_set_text_style()
