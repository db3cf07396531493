"""What the user should know about an image before trusting its result; the clean-up and the memory add their own."""

import numpy as np

from ..models.manifest import DomainCard
from ..volume import Notice, Volume
from .detection import DESCRIPTIONS
from .result import Detection
from .slices import SliceStack

# A CT is recognized by the air around the body, which has about −1000; MR images have no negative values.
AIR_HU, AIR_SHARE = -500, 0.02


def image_notices(volume: Volume, stack: SliceStack) -> list[Notice]:
    """What is wrong with the image itself."""
    notices = []
    if reason := _not_mr(volume):
        notices.append(Notice("not-mr", f"{reason}; the model was made for MR, so the result means nothing"))
    if stack.non_finite and not any(notice.code == "non-finite" for notice in volume.warnings):
        message = f"{stack.non_finite} voxels are not finite (NaN or infinite) and were read as the darkest value"
        notices.append(Notice("non-finite", message))
    if stack.field_cut:
        message = f"the body is longer than {stack.settings.field_mm:g} mm; only its middle was looked at"
        notices.append(Notice("field-cut", message))
    if not len(stack.occupied):
        notices.append(Notice("no-signal", "the volume has no signal: there is nothing to segment"))
    return notices


def detection_notices(detection: Detection | None, card: DomainCard) -> list[Notice]:
    """What the detection says against the domain that was used."""
    if detection is None or detection.verdict is None or card.name not in detection.scores:
        return []
    if detection.verdict in DESCRIPTIONS:
        return [Notice(detection.verdict, f"{DESCRIPTIONS[detection.verdict]} ({detection.ranking})")]
    if detection.joint != card.joint:
        message = f"this looks like the {detection.joint}, it was segmented as the {card.joint} ({detection.ranking})"
        return [Notice("wrong-joint", message)]
    return []


def _not_mr(volume: Volume) -> str:
    """Why the image is not an MR image, in a few words; empty if nothing says so.

    The signatures cannot tell: the network was trained on contrasts drawn at random and takes a CT for one of them.
    """
    if volume.modality not in (None, "MR"):
        return f"the file says that it is of the modality {volume.modality}"
    air = np.count_nonzero(volume.array < AIR_HU) if volume.array.dtype.kind in "if" else 0
    return "many values lie far below zero, as a CT's do" if air > volume.array.size * AIR_SHARE else ""
