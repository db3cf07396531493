"""Synthetic joints of children: labelled 3-D maps of bones and what surrounds them."""

from . import ankle, elbow, hip, knee, shoulder
from .model import OTHER_BONE, Anatomy
from .tissues import BONE_TISSUES, Tissue

__all__ = ["BONE_TISSUES", "JOINTS", "OTHER_BONE", "Anatomy", "Tissue"]

# joint → the module that models it; hip and elbow are never trained on
JOINTS = {"ankle": ankle, "knee": knee, "shoulder": shoulder, "hip": hip, "elbow": elbow}
