"""Which exams there are: exam i of a joint is a function of (seed, joint, i) alone, whatever else is made.

An exam has one anatomy and as many acquisitions ("variants") as are asked for; a file has variant 0. The same recipe
serves the files that `pedboneseg synthesize` writes and the slices that training draws without files.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from PedBoneSegLib.errors import BadInput

from .anatomy.draw import Draw, digest
from .anatomy.sources import AnatomySource, Parametric
from .rendering import (
    MOST_VOXELS,
    Matter,
    Rendering,
    RenderSettings,
    draw_matter,
    draw_parameters,
    draw_strengths,
    render,
)
from .rendering.acquisition import AXES, PIXEL_MM

VERSION = 3  # of the images: raised when the same draw would give another image
FROZEN = Path(__file__).with_name("cohorts.json")


@dataclass(frozen=True)
class Recipe:
    """How the exams of one joint are made: all but their number. Small, and can be sent to another process."""

    joint: str
    seed: int
    sources: tuple[AnatomySource, ...] = (Parametric(),)  # each exam takes one of them at random
    settings: RenderSettings = RenderSettings()
    preset: str | None = None  # every exam in this sequence
    planes: Sequence[str] = tuple(AXES)
    pixel_mm: tuple[float, float] = PIXEL_MM
    most_voxels: int = MOST_VOXELS

    def parameters(self, i: int, variant: int = 0) -> dict:
        """All that is drawn for an exam, JSON-able; nothing is made yet."""
        source = self._source(i)
        key = self._key(i)
        return {
            "version": VERSION,
            "anatomy": source.parameters(self.seed, self.joint, i),
            "tissue": draw_strengths(key, self.settings),
            "image": draw_parameters((*key, variant), self.settings, self.preset, self.planes, self.pixel_mm),
        }

    @torch.no_grad()
    def body(self, i: int, device: torch.device | str = "cpu") -> tuple[object, Matter]:
        """The exam's anatomy and what it is made of: the costly part that all of its acquisitions share."""
        source = self._source(i)
        anatomy = source.build(source.parameters(self.seed, self.joint, i), device)
        return anatomy, draw_matter(anatomy, self._key(i), self.settings)

    @torch.no_grad()
    def acquire(self, i: int, variant: int, body: tuple[object, Matter]) -> Rendering:
        """One acquisition of `body`, the exam's own."""
        parameters = self.parameters(i, variant)
        rendering = render(
            *body,
            (*self._key(i), variant),
            parameters["image"],
            most_voxels=self.most_voxels,
            name=f"synthetic {self.joint} {self.seed}/{i}/{variant}",
        )
        rendering.parameters = parameters
        rendering.volume.side = parameters["anatomy"].get("side")
        return rendering

    def _key(self, i: int) -> tuple:
        return "image", VERSION, self.seed, self.joint, i

    def _source(self, i: int) -> AnatomySource:
        return Draw("source", self.seed, self.joint, i).choice(self.sources)


FIRST_RESERVED_SEED = 2**31  # seeds from here on belong to the frozen cohorts; `check_seed` keeps all others below


def check_seed(seed: int) -> int:
    """The seed, if training or a user's cohort may have it: a held-out exam is made by no other seed."""
    if not 0 <= seed < FIRST_RESERVED_SEED:
        raise BadInput(f"seed {seed} is not between 0 and {FIRST_RESERVED_SEED - 1}", "choose another")
    return seed


@dataclass(frozen=True)
class Frozen:
    """A cohort that no training sees. `shapes`: the kind of source each joint takes, for those that need a folder."""

    name: str
    seed: int
    exams: int
    joints: tuple[str, ...] = ("ankle", "knee", "shoulder")
    preset: str | None = None

    def recipe(self, joint: str, sources: tuple[AnatomySource, ...] = (Parametric(),)) -> Recipe:
        return Recipe(joint, self.seed, sources, preset=self.preset)

    def hashes(self) -> dict[str, str]:
        """Per joint, a hash of the parameters of all its exams."""
        return {
            joint: digest({"exams": [self.recipe(joint).parameters(i) for i in range(self.exams)]})
            for joint in self.joints
        }


# The held-out shape source of pilots (knee: the label map; ankle and shoulder: the meshes) lies outside the repository:
# `held-out` with these sources given to `recipe` is that cohort.
COHORTS = {
    cohort.name: cohort
    for cohort in (
        Frozen("held-out", FIRST_RESERVED_SEED, 24),
        Frozen("held-out-sequence", FIRST_RESERVED_SEED + 1, 12, preset="STIR"),
        Frozen("reserved", FIRST_RESERVED_SEED + 2, 96),  # for temperature, signatures and thresholds
        Frozen("not-a-joint", FIRST_RESERVED_SEED + 3, 24, joints=("hip", "thigh", "calf", "elbow")),
    )
}


def frozen_hashes() -> dict[str, dict[str, str]]:
    """What the repository records of the frozen cohorts."""
    return json.loads(FROZEN.read_text())


if __name__ == "__main__":  # python -m PedBoneSegTraining.synthesis.cohort: freezes the cohorts anew
    FROZEN.write_text(json.dumps({name: cohort.hashes() for name, cohort in COHORTS.items()}, indent=1) + "\n")
