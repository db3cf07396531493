"""The MR renderer: an anatomy becomes slices with a protocol, a contrast and the faults of a scanner."""

from .contrasts import HELD_OUT_PRESETS, PRESETS
from .renderer import MOST_VOXELS, Rendering, draw_parameters, render
from .settings import Effect, RenderSettings
from .texture import Matter, draw_matter, draw_strengths

__all__ = [
    "HELD_OUT_PRESETS",
    "MOST_VOXELS",
    "PRESETS",
    "Effect",
    "Matter",
    "RenderSettings",
    "Rendering",
    "draw_matter",
    "draw_parameters",
    "draw_strengths",
    "render",
]
