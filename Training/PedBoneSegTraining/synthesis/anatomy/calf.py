"""The middle of the calf: the shafts of tibia and fibula among their muscles, no end of a bone in view.

No joint of the model: it teaches and tests what is *not* one. All of it is the knee's anatomy, looked at further down.
"""

from dataclasses import replace

from . import knee
from .knee import REST, draw, frames
from .model import Joint

__all__ = ["ANCHOR", "BONES", "CENTER", "FIELD", "NEIGHBORS", "REST", "build", "draw", "frames"]
ANCHOR = knee.ANCHOR
BONES = ()
NEIGHBORS = knee.BONES
FIELD = (150.0, 150.0, 80.0)
CENTER = (10.0, -18.0, -125.0)


def build(parameters: dict) -> Joint:
    return replace(knee.build(parameters), name="calf")
