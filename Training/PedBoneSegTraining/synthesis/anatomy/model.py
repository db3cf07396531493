"""The words in which a joint is described, before and after it becomes voxels."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from .shapes import Points
from .tissues import Tissue

OTHER_BONE = 100  # labels above: bones in view that are not in the joint's table


@dataclass
class Anatomy:
    """One exam's labeled map. Arrays are [x, y, z] with x to the left, y to the back, z up (LPS), isotropic."""

    joint: str
    tissue: torch.Tensor  # uint8, values of Tissue
    bones: torch.Tensor  # uint8: 0 none, 1..n the joint's table, above OTHER_BONE a neighbor
    depth: torch.Tensor  # float32 mm: distance to the nearest bone's outer surface, negative inside, within ±12
    group: torch.Tensor  # uint8: which muscle (1, 2, …) a voxel of muscle belongs to, 0 none
    spacing_mm: float
    names: tuple[str, ...]  # bone of label 1, 2, …
    parameters: dict  # all that was drawn, JSON-able

    @property
    def labels(self) -> torch.Tensor:
        """`bones` as a training target: neighbors are background."""
        return torch.where(self.bones > OTHER_BONE, 0, self.bones)


@dataclass(frozen=True)
class Frame:
    """Where a bone is: world = origin + rotation @ (scale * local), millimeters."""

    rotation: np.ndarray
    origin: np.ndarray
    scale: np.ndarray  # along the bone's own x, y, z: local lengths are those of an adult

    @property
    def size(self) -> float:
        return float(np.prod(self.scale) ** (1 / 3))

    def world(self, point) -> np.ndarray:
        return self.origin + self.rotation @ (self.scale * np.asarray(point, float))

    def local(self, p: torch.Tensor) -> list[torch.Tensor]:
        q = [p[i] - float(self.origin[i]) for i in range(3)]
        return [sum(q[i] * float(self.rotation[i, k] / self.scale[k]) for i in range(3)) for k in range(3)]


@dataclass
class End:
    """One end of a bone that grows by a plate, or an apophysis."""

    center: str  # its row in growth.CENTERS
    height: torch.Tensor  # mm above the plate's middle, negative toward the shaft


@dataclass
class Body:
    """A bone as fields over points: the whole of it, as if every cartilage in it had ossified."""

    surface: torch.Tensor  # signed distance
    ends: list[End] = field(default_factory=list)
    articular: torch.Tensor | None = None  # above 0 where cartilage may cover it; None: where it faces another


@dataclass(frozen=True)
class Bone:
    name: str
    shape: Callable[[Points], Body]  # local points, adult millimeters
    frame: Frame
    low: tuple[float, float, float]  # a local box around the bone
    high: tuple[float, float, float]
    center: str | None = None  # growth.CENTERS row of a bone that ossifies from its middle
    cortex: tuple[float, float] = (0.7, 0.7)  # thickness at the ends and in the middle of the shaft, adult mm


@dataclass(frozen=True)
class Strand:
    """A muscle, tendon, ligament, vessel or nerve: a soft stick along a curve, in world millimeters."""

    tissue: Tissue
    path: np.ndarray  # [n, 3]
    radii: tuple[float, ...]  # one per point of the path
    flat: tuple[float, float, float] | None = None  # direction across which it is thin
    aspect: float = 1.0  # how many times thinner it is along `flat`


@dataclass
class Joint:
    """All of one exam: bones in order of precedence (where two would touch the earlier keeps its own), soft tissue."""

    name: str
    bones: list[Bone]
    contacts: list[tuple[str, str, float]]  # bones that face each other; their cartilage as a part of the knee's
    strands: list[Strand]
    # muscles fill the limb from the first height above the joint (adult mm), most from the second; the third is a share
    filled: tuple[float, float, float] = (25.0, 75.0, 1.0)
    filled_below: bool = True  # and below the joint as above it
    wrap: float = 22.0  # how far the skin bridges between muscles, adult mm
    fat: float = 1.0  # subcutaneous fat as a part of the thigh's
    torso: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] | None = None  # points → distances: wall, lung, organs
