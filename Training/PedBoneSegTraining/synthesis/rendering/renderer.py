"""One anatomy, one exam's key → an MR volume and its label map, with the numbers that made them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from PedBoneSegLib.volume import Volume

from ..anatomy.draw import Draw
from . import artifacts
from .acquisition import AXES, PIXEL_MM, Acquisition, blank_mask, covered, draw_acquisition, lay_out, sample
from .contrasts import contrast, draw_contrast
from .settings import RenderSettings
from .texture import Matter, signals

MOST_VOXELS = 6_000_000


@dataclass
class Rendering:
    """image and labels share `volume.grid`; labels are uint8 [i, j, k], values of the joint's table."""

    volume: Volume
    labels: np.ndarray
    parameters: dict


def draw_parameters(
    key: tuple,
    settings: RenderSettings,
    preset: str | None = None,
    planes: Sequence[str] = tuple(AXES),
    pixel_mm: tuple[float, float] = PIXEL_MM,
) -> dict:
    """Everything that one acquisition of an anatomy is made by, JSON-able, without making it."""
    name, numbers = draw_contrast(Draw(*key, "contrast"), preset)
    effects = {name: getattr(settings, name).draw(Draw(*key, name)) for name in _INTENSITY}
    acquisition = draw_acquisition(key, settings, planes, pixel_mm)
    return {
        "contrast": name,
        "numbers": numbers,
        "acquisition": acquisition.to_dict(),
        "effects": effects,
        "white": 10 ** Draw(*key, "white").uniform(2.3, 3.6),
    }


_INTENSITY = (
    "bias_field",
    "coil_falloff",
    "skin_gain",
    "edge_loss",
    "chemical_shift",
    "wrap",
    "metal",
    "blur",
    "gibbs",
    "zero_fill",
    "motion",
    "ghosting",
    "noise",
    "slice_gain",
    "gamma",
    "saturation",
)


def render(
    anatomy, matter: Matter, key: tuple, parameters: dict, *, most_voxels: int = MOST_VOXELS, name: str = "synthetic"
) -> Rendering:
    """The acquisition that `parameters` (from `draw_parameters` with the same key) describe."""
    effects = parameters["effects"]
    randoms = {name: Draw(*key, name, "detail") for name in effects}
    acquisition = Acquisition(**parameters["acquisition"])
    layout = lay_out(acquisition, anatomy, most_voxels)
    along_phase = 0 if acquisition.phase_rows else 1
    extra = [0, 0]
    if effects["wrap"] is not None:
        extra[along_phase] = int(effects["wrap"] * layout.size[1 + along_phase])
    box = covered(layout, anatomy, tuple(extra))
    seen = contrast(parameters["contrast"], parameters["numbers"])
    parts, labels = sample(
        layout, anatomy, signals(matter, seen, box, effects["chemical_shift"] is not None), box, tuple(extra)
    )
    if effects["chemical_shift"] is not None:
        image = parts[0] + artifacts.shift_fat(
            parts[1], effects["chemical_shift"], layout.spacing[1], not acquisition.phase_rows
        )
    else:
        image = parts[0]
    image = artifacts.fold(image, tuple(extra), randoms["wrap"]).contiguous()
    for effect in (
        artifacts.bias_field,
        artifacts.coil_falloff,
        artifacts.skin_gain,
        artifacts.edge_loss,
        artifacts.slice_gain,
    ):
        if (strength := effects[effect.__name__]) is not None:
            effect(image, strength, randoms[effect.__name__])
    if effects["metal"] is not None:
        artifacts.metal(image, effects["metal"], layout.spacing, randoms["metal"])
    image = artifacts.spectrum(image, layout.spacing[1:], acquisition.phase_rows, effects, randoms)
    image = artifacts.tone(image, effects["gamma"], effects["saturation"])
    if acquisition.blank:
        blank = blank_mask(acquisition, layout.size[1:], image.device)
        image, labels = image.masked_fill_(blank, 0), labels.masked_fill_(blank, 0)
    values = (image * parameters["white"]).round_().clamp_(0, 32767).to(torch.int16)
    grid = layout.grid
    volume = Volume(values.permute(2, 1, 0).cpu().numpy(), grid, name, modality="MR", sequence=parameters["contrast"])
    return Rendering(volume, labels.permute(2, 1, 0).cpu().numpy(), parameters)
