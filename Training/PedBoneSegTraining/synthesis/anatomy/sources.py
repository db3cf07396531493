"""Where joints come from: each source turns an exam's number into an anatomy."""
from typing import Protocol

import torch

from . import JOINTS
from .assemble import assemble, space_for
from .model import Anatomy
from .parameters import exam_parameters


class AnatomySource(Protocol):
    name: str

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        """What is drawn for exam i; a function of these arguments alone."""

    def build(self, parameters: dict, device="cpu", spacing: float | None = None) -> Anatomy:
        """The voxel map of drawn parameters."""


class Parametric:
    """Bones modelled in this package from spheres, sticks and curves."""

    name = "parametric"

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        return {"source": self.name} | exam_parameters(seed, joint, i, age)

    @torch.no_grad()
    def build(self, parameters: dict, device="cpu", spacing: float | None = None) -> Anatomy:
        module = JOINTS[parameters["joint"]]
        return assemble(module.build(parameters), module.BONES, parameters, space_for(parameters, device, spacing))
