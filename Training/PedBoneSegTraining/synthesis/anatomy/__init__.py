"""Synthetic joints of children: labelled 3-D maps of bones and what surrounds them."""
from . import ankle, knee, shoulder
from .model import OTHER_BONE, Anatomy
from .tissues import BONE_TISSUES, Tissue

JOINTS = {"ankle": ankle, "knee": knee, "shoulder": shoulder}
