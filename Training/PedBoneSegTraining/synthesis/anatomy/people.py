"""Bones of many people: a folder with one file a person, converted beforehand so that drawing needs no mesh library.

A file is `NAME.npz`. Its arrays "JOINT.BONE" are distances to the bone's surface in the modeled bone's own millimeters
(int8, steps of 0.2 mm, [x, y, z]); its text "about" is JSON:

    {"person": …, "sources": […], "licences": [[licence, credit], …], "unseen": false, "age": null,
     "bones": {"knee.femur": {"origin": [x, y, z], "spacing": 1.1, "cut": [false, true], "size": 0.97}, …}}

`size` is the person's bone against the modeled adult's, `age` is in years (null: an adult). The stored shapes are of
the modeled adult's size, so growth starts from there whoever the person was.

`python -m PedBoneSegTraining.synthesis.convert` makes such a folder.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.files import whole_file

from . import JOINTS
from .draw import Draw
from .growth import ADULT, shaft_width
from .sampled import Field

STEP_MM = 0.2


@dataclass(frozen=True)
class Person:
    path: Path
    unseen: bool  # kept out of all training
    bones: tuple[str, ...]  # "knee.femur", …

    @property
    def name(self) -> str:
        return self.path.stem

    def has(self, joint: str) -> tuple[str, ...]:
        return tuple(bone.partition(".")[2] for bone in self.bones if bone.startswith(joint + "."))


def people_in(folder: Path) -> tuple[Person, ...]:
    """All people of a folder, by name."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        about = read_about(path)
        found.append(Person(path, about["unseen"], tuple(sorted(about["bones"]))))
    return tuple(found)


def choose(people: tuple[Person, ...], choice: str) -> tuple[Person, ...]:
    """Those that may be trained on; with `choice` "unseen" those that may not, "only=A,B" or "without=A,B" by name."""
    word, _, names = choice.partition("=")
    named = set(names.split(",")) if names else set()
    if unknown := named - {person.name for person in people}:
        raise BadInput(f"there is no person {', '.join(sorted(unknown))} among the shapes", "see the folder's files")
    if word == "only" and named:
        return tuple(person for person in people if person.name in named)
    if word == "without" and named:
        return tuple(person for person in people if person.name not in named and not person.unseen)
    if choice == "unseen":
        return tuple(person for person in people if person.unseen)
    if choice:
        raise BadInput(f"'{choice}' chooses nobody among the shapes", "write #unseen, #only=NAME or #without=NAME")
    return tuple(person for person in people if not person.unseen)


def draw_people(people: tuple[Person, ...], joint: str, d: Draw) -> dict:
    """Whose bones an exam shows: a person, and a companion (or None) for bones that the person lacks."""
    able = [person for person in people if person.has(joint)]
    person = d.choice(able)
    missing = set(JOINTS[joint].BONES + JOINTS[joint].NEIGHBORS) - set(person.has(joint))
    others = [other for other in able if missing & set(other.has(joint))]
    companion, used = (d.choice(others) if others else None), d.chance(0.75)
    return {"person": person.name, "companion": companion.name if companion and used else None}


def fields(people: tuple[Person, ...], joint: str, drawn: dict) -> dict[str, Field]:
    """The fields of the bones of those whom `draw_people` chose."""
    by_name = {person.name: person for person in people}
    found = dict(_load(by_name[drawn["person"]].path, joint))
    if drawn["companion"]:
        found = _load(by_name[drawn["companion"]].path, joint) | found
    return found


def write_person(path: Path, about: dict, shapes: dict[str, Field]) -> None:
    """`shapes` by "JOINT.BONE"; what a file says of their place is added to `about`."""
    arrays = {}
    for name, field in shapes.items():
        about["bones"][name] |= {
            "origin": [round(float(one), 3) for one in field.origin],
            "spacing": float(field.spacing[0]),
            "cut": list(field.cut),
        }
        arrays[name] = (field.distance.numpy() / STEP_MM).round().clip(-127, 127).astype(np.int8)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, about=np.array(json.dumps(about)), **arrays)


def read_about(path: Path) -> dict:
    try:
        with np.load(path, allow_pickle=False) as file:
            return json.loads(str(file["about"]))
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: not the file of a person ({error})", "convert the shapes again") from None


@lru_cache(maxsize=6)
def _load(path: Path, joint: str) -> dict[str, Field]:
    about = read_about(path)
    shaft = shaft_width(about["age"] or ADULT)
    found = {}
    with np.load(path, allow_pickle=False) as file:
        for name, place in about["bones"].items():
            its_joint, _, bone = name.partition(".")
            if its_joint == joint:
                distance = torch.from_numpy(file[name].astype(np.float32) * STEP_MM)
                spacing = np.full(3, place["spacing"])
                found[bone] = Field(distance, np.array(place["origin"]), spacing, tuple(place["cut"]), shaft)
    return found
