"""Synthetic joints of children: labeled 3-D maps of bones and what surrounds them."""

from . import ankle, calf, elbow, hip, knee, shoulder, thigh
from .model import OTHER_BONE, Anatomy
from .tissues import BONE_TISSUES, Tissue

__all__ = ["BONE_TISSUES", "JOINTS", "OTHER_BONE", "Anatomy", "Tissue"]

# anatomy → the module that models it. Ankle, knee and shoulder are segmented; hip, thigh and calf may teach what is
# none of these; nobody trains on the elbow, so that it can test what has never been seen
JOINTS = {
    "ankle": ankle,
    "knee": knee,
    "shoulder": shoulder,
    "hip": hip,
    "thigh": thigh,
    "calf": calf,
    "elbow": elbow,
}
