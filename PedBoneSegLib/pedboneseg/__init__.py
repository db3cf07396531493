"""The name under which pip installs the front door: `import pedboneseg`. The code is in `PedBoneSegLib.api`.

Quick start:

    import pedboneseg as pbs

    model = pbs.load()
    bones = model.segment("knee.nii.gz", joint="knee")
    print(bones.volumes_ml)
    bones.save("knee.seg.nrrd")
"""

from PedBoneSegLib import __version__
from PedBoneSegLib.api import (
    BadInput,
    BadModel,
    Cancelled,
    Detection,
    Image,
    Measurement,
    Measurements,
    Model,
    OutOfMemory,
    PedBoneSegError,
    Review,
    ReviewSlice,
    SegmentationResult,
    Undecided,
    load,
    measure,
)

__all__ = [
    "BadInput", "BadModel", "Cancelled", "Detection", "Image", "Measurement", "Measurements", "Model", "OutOfMemory",
    "PedBoneSegError", "Review", "ReviewSlice", "SegmentationResult", "Undecided", "__version__", "load", "measure",
]  # fmt: skip
