"""Where joints come from: each source turns an exam's number into an anatomy."""

from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from PedBoneSegLib.errors import BadInput

from . import JOINTS, labelmaps, meshes, people, sampled
from .assemble import assemble, space_for
from .draw import Draw
from .model import Anatomy, Joint
from .parameters import exam_parameters


class AnatomySource(Protocol):
    name: str

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        """What is drawn for exam i; a function of these arguments alone."""

    def build(self, parameters: dict, device="cpu", spacing: float | None = None) -> Anatomy:
        """The voxel map of drawn parameters."""


class Parametric:
    """Bones modeled in this package from spheres, sticks and curves."""

    name = "parametric"

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        return {"source": self.name} | exam_parameters(seed, joint, i, age)

    @torch.no_grad()
    def build(self, parameters: dict, device="cpu", spacing: float | None = None) -> Anatomy:
        names = JOINTS[parameters["joint"]].BONES
        return assemble(self.joint(parameters), names, parameters, space_for(parameters, device, spacing))

    def joint(self, parameters: dict) -> Joint:
        return JOINTS[parameters["joint"]].build(parameters)


class Sampled(Parametric):
    """Modeled joints, some of whose bones have their shapes from elsewhere."""

    def __init__(self, name: str, load):
        self.name, self._load, self._fields = name, load, {}

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        drawn = exam_parameters(seed, joint, i, age)
        d = Draw("sampled", seed, joint, i)
        drawn["blend"] = d.uniform(0, 0.6) if d.chance(0.5) else 0.0
        drawn["warp"]["amplitude"] = round(1.4 * drawn["warp"]["amplitude"], 5)
        return {"source": self.name} | drawn

    def joint(self, parameters: dict) -> Joint:
        name = parameters["joint"]
        if name not in self._fields:
            self._fields[name] = self._load(name)
        return sampled.with_fields(super().joint(parameters), self._fields[name], parameters)


class People(Parametric):
    """Modeled joints whose bones have the shapes of one of many people (people.py)."""

    name = "people"

    def __init__(self, chosen: tuple[people.Person, ...]):
        self.people = chosen

    def parameters(self, seed: int, joint: str, i: int, age: float | None = None) -> dict:
        drawn = exam_parameters(seed, joint, i, age)
        d = Draw("people", seed, joint, i)
        drawn["blend"] = d.uniform(0, 0.4) if d.chance(0.4) else 0.0
        return {"source": self.name} | drawn | people.draw_people(self.people, joint, d)

    def joint(self, parameters: dict) -> Joint:
        fields = people.fields(self.people, parameters["joint"], parameters)
        return sampled.with_fields(super().joint(parameters), fields, parameters)


def mesh_source(folder: Path) -> Sampled:
    """Bones from a folder of meshes (meshes.py); joints that it lacks are an error when drawn."""
    return Sampled("meshes", partial(meshes.load, Path(folder)))


def labelmap_source(path: Path, joint: str, labels: dict[str, int] | None = None, side: str = "right") -> Sampled:
    """Bones of one joint from a label map (labelmaps.py)."""
    return Sampled("labelmap", partial(_load_labelmap, Path(path), joint, labels, side))


def shape_source(path: Path, joint: str) -> Parametric:
    """The source that `path` is: a folder holds people (*.npz) or meshes, a file is a label map of `joint`.

    What follows a '#' chooses among people (`shapes/people#unseen`), or names the values of a label map
    (`knee.nrrd#femur=5,tibia=6,side=left`).
    """
    name, _, rest = str(path).partition("#")
    if not Path(name).exists():
        raise BadInput(f"the shapes {name} do not exist", "give a folder of people, one of meshes, or a label map")
    if found := people.people_in(Path(name)):
        chosen = people.choose(found, rest)
        if not any(person.has(joint) for person in chosen):
            raise BadInput(f"the shapes {path} have nobody with bones of the {joint}", "choose others")
        return People(chosen)
    if Path(name).is_dir():
        return mesh_source(Path(name))
    values = dict(pair.partition("=")[::2] for pair in rest.split(",") if pair)
    side = values.pop("side", "right")
    if side not in ("left", "right") or not all(v.isdecimal() for v in values.values()):
        raise BadInput(f"the shapes {path}: '{rest}' names no labels", "write #femur=5,tibia=6,side=right")
    return labelmap_source(Path(name), joint, {k: int(v) for k, v in values.items()} or None, side)


def _load_labelmap(path: Path, joint: str, labels: dict[str, int] | None, side: str, name: str):
    """A module's own function, so that the source can be sent to another process."""
    if name != joint:
        raise BadInput(f"{path}: a {joint}, not a {name}", "give every joint its own source")
    return labelmaps.load(path, joint, labels, side)
