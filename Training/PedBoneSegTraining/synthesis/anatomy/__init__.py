"""Synthetic joints of children: labelled 3-D maps of bones and what surrounds them."""
from . import knee
from .model import OTHER_BONE, Anatomy
from .tissues import BONE_TISSUES, Tissue

JOINTS = {"knee": knee}
