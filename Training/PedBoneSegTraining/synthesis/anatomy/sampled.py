"""Bones from elsewhere (meshes, label maps) as shapes beside the modeled ones.

A bone becomes a sampled distance field in the local millimeters of the joint's own modeled bone, so that pose, growth
plates, cartilage and soft tissue are the same mechanism for every source, and bones can be blended with modeled ones.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from . import JOINTS
from .draw import Average
from .model import Body, Bone, Frame, Joint
from .shapes import step

LONG = {"femur", "tibia", "fibula", "humerus", "radius", "ulna"}


@dataclass
class Field:
    """Signed distance in millimeters on a regular grid of a bone's local coordinates (x lateral, y anterior, z up)."""

    distance: torch.Tensor  # [x, y, z]
    origin: np.ndarray  # center of voxel 0
    spacing: np.ndarray
    cut: tuple[bool, bool] = (False, False)  # the bone goes on beyond the lowest, the highest plane
    shaft: float = 1.0  # width of the subject's shaft against the bone's ends, as a part of an adult's

    @classmethod
    def from_mask(cls, mask: np.ndarray, origin, spacing, cut=(False, False), smooth_mm: float = 0.7) -> "Field":
        spacing = np.asarray(spacing, float)
        outside = ndimage.distance_transform_edt(~mask, spacing)
        inside = ndimage.distance_transform_edt(mask, spacing)
        half = spacing.min() / 2  # the surface lies between the voxels' centers
        signed = np.where(mask, half - inside, outside - half)
        signed = ndimage.gaussian_filter(signed, smooth_mm / spacing, mode="nearest").astype(np.float32)
        return cls(torch.from_numpy(signed), np.asarray(origin, float), spacing, tuple(cut))

    @property
    def low(self) -> np.ndarray:
        return self.origin

    @property
    def high(self) -> np.ndarray:
        return self.origin + (np.array(self.distance.shape) - 1) * self.spacing

    def __call__(self, p) -> torch.Tensor:
        grid, beyond = [], 0.0
        for i in range(3):
            t = (p[i] - float(self.low[i])) / float(self.high[i] - self.low[i]) * 2 - 1
            over = p[i] - p[i].clamp(float(self.low[i]), float(self.high[i]))
            if i == 2:
                over = torch.where(over < 0, over * (not self.cut[0]), over * (not self.cut[1]))
            beyond = beyond + over**2
            grid.append(t.clamp(-1, 1))
        where = torch.stack(grid[::-1], -1)[None]  # grid_sample names the last array axis first
        values = F.grid_sample(self.distance.to(where.device)[None, None], where, align_corners=True)[0, 0]
        return values + (beyond + 1e-12).sqrt()


def average_parameters(joint: str) -> dict:
    """The joint's average adult, posed as shapes from elsewhere are expected."""
    module = JOINTS[joint]
    names = module.BONES + module.NEIGHBORS
    return {
        "pose": module.draw(Average()) | module.REST,
        "size": 1.0,
        "shaft": 1.0,
        "proportions": {n: [1.0, 1.0, 1.0] for n in names},
        "soft": {"bulk": 1.0, "seed": 0},
    }


def modelled_extent(joint: str, bone_name: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Bounding box, joint millimeters, of a bone of the model; without a name of the anchor, between its heights."""
    bottom, top = -np.inf, np.inf
    if bone_name is None:
        bone_name, bottom, top = JOINTS[joint].ANCHOR
    bone = next(b for b in JOINTS[joint].build(average_parameters(joint)).bones if b.name == bone_name)
    low, high = np.maximum(bone.low, (-np.inf, -np.inf, bottom)) - 4, np.minimum(bone.high, (np.inf, np.inf, top))
    axes = [torch.arange(float(a), float(b) + 1.0, 1.0) for a, b in zip(low, high, strict=True)]
    p = torch.meshgrid(*axes, indexing="ij")
    inside = torch.nonzero(bone.shape(p).surface < 0).numpy()
    found = bone.frame.world(low + inside.min(0)), bone.frame.world(low + inside.max(0))
    return np.minimum(*found), np.maximum(*found)


def fit(low: np.ndarray, high: np.ndarray, joint: str, scale: float | None = None) -> tuple[float, np.ndarray]:
    """Scale and shift that bring an anchor's box onto the model's: joint = scale · (given) + shift.

    The width decides the scale where none is given. Across, the middles meet; along z, the end that
    the joint faces.
    """
    to_low, to_high = modelled_extent(joint)
    scale = scale or float((to_high - to_low)[0] / (high - low)[0])
    shift = (to_low + to_high) / 2 - scale * (low + high) / 2
    end = to_low[2] - scale * low[2] if joint == "knee" else to_high[2] - scale * high[2]
    return scale, np.array([shift[0], shift[1], end])


def shaft_end(joint: str, bone_name: str) -> tuple[bool, bool]:
    """Whether the bone's shaft runs out of the field below, above."""
    if bone_name not in LONG:
        return False, False
    bone = next(b for b in JOINTS[joint].build(average_parameters(joint)).bones if b.name == bone_name)
    return bone.low[2] < -bone.high[2], bone.high[2] > -bone.low[2]


def neutral_frames(joint: str) -> dict[str, Frame]:
    return JOINTS[joint].frames(average_parameters(joint))


def with_fields(joint: Joint, fields: dict[str, Field], parameters: dict) -> Joint:
    """The modeled joint with some bones' shapes taken from fields, blended with the modeled shape."""
    blend, thin = parameters["blend"], parameters["shaft"]
    bones = []
    for bone in joint.bones:
        if bone.name in fields:
            field, long = fields[bone.name], bone.name in LONG
            low, high = field.low.copy(), field.high.copy()
            for k, cut in enumerate(field.cut):
                if cut and long:
                    (low, high)[k][2] = (bone.low, bone.high)[k][2]
            bone = replace(
                bone,
                shape=_mixed(bone, field, blend if bone.name != "scapula" else 0.0, thin, long),
                low=tuple(low),
                high=tuple(high),
            )
        bones.append(bone)
    return replace(joint, bones=bones)


def _mixed(bone: Bone, field: Field, blend: float, thin: float, long: bool):
    height, aside = _aside(bone, field) if long and any(field.cut) else (0.0, None)

    def shape(p) -> Body:
        q = p
        if aside is not None:  # the modeled shaft is bent to where the other one was cut
            share = step(p[2] if height > 0 else -p[2], 0.3 * abs(height), abs(height))
            q = (p[0] - float(aside[0]) * share, p[1] - float(aside[1]) * share, p[2])
        model = bone.shape(q)
        if long and model.ends:  # a child's shaft is thinner for its ends: read the field further out
            inward = -model.ends[0].height
            wider = 1 / (1 + (thin / field.shaft - 1) * step(inward, 5, 60))
            p = (p[0] * wider, p[1] * wider, p[2])
        share = torch.full_like(p[2], blend)
        if long and field.cut[0]:  # beyond the cut the modeled shaft goes on
            share = torch.maximum(share, 1 - step(p[2], float(field.low[2]) - 25, float(field.low[2]) + 8))
        if long and field.cut[1]:
            share = torch.maximum(share, step(p[2], float(field.high[2]) - 8, float(field.high[2]) + 25))
        surface = torch.lerp(field(p), model.surface, share)
        return Body(surface, [] if bone.name == "scapula" else model.ends, model.articular)

    return shape


def _aside(bone: Bone, field: Field) -> tuple[float, np.ndarray]:
    """Height of a field's cut, and how far its section there lies from the model's (x, y)."""
    k = -1 if field.cut[1] else 0
    height = float((field.low, field.high)[k][2])
    x, y = (torch.arange(float(bone.low[i]) - 4, float(bone.high[i]) + 4) for i in (0, 1))
    p = torch.meshgrid(x, y, torch.tensor([height]), indexing="ij")
    model = torch.nonzero(bone.shape(p).surface[..., 0] < 0).double().mean(0).numpy() + [float(x[0]), float(y[0])]
    cut = np.argwhere(field.distance[:, :, k].numpy() < 0).mean(0) * field.spacing[:2] + field.origin[:2]
    return height, cut - model
