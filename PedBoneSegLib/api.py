"""The front door: segments the bones of children's ankles, knees and shoulders in MR images.

    import pedboneseg as pbs

    model = pbs.load()
    bones = model.segment("knee.nii.gz", joint="knee")
    print(bones.volumes_ml)
    bones.save("knee.seg.nrrd")

The command line and the worker of the 3D Slicer extension use these functions too. What takes time to import (numpy,
torch, SimpleITK) is imported when it is first needed. Every failure that a user can cause is a `PedBoneSegError` whose
message names what is wrong and what to do.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import BadInput, BadModel, Cancelled, OutOfMemory, PedBoneSegError, Undecided
from .inference.result import Detection, Review, ReviewSlice, SegmentationResult
from .progress import Progress, no_progress
from .results.columns import Measurement, Measurements

if TYPE_CHECKING:
    import numpy as np

    from .anatomy import JointTable
    from .inference.predictor import Predictor
    from .models.manifest import Manifest
    from .volume import Volume

__all__ = [
    "BadInput", "BadModel", "Cancelled", "Detection", "Image", "Measurement", "Measurements", "Model", "OutOfMemory",
    "PedBoneSegError", "Review", "ReviewSlice", "SegmentationResult", "Undecided", "load", "measure",
]  # fmt: skip

# A path, a SimpleITK or nibabel image, (array [i, j, k], affine to RAS millimeters), or this library's `volume.Volume`.
Image: TypeAlias = Any

_SIDES = ("left", "right")


def load(model: str | os.PathLike[str] | None = None, *, device: str = "auto") -> "Model":
    """Loads a model.

    Args:
        model: the name of an installed model or the path of a .safetensors file; by default the bundled model.
        device: "auto" (the fastest that works here), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        BadModel: there is no such model, or its file is damaged.
        BadInput: there is no such device.

    Example:
        model = pedboneseg.load(device="cpu")
        model.joints        # {"ankle": ("tibia", …), "knee": ("femur", …), "shoulder": …}
    """
    from .inference.predictor import Predictor
    from .models import store
    from .models.bundle import Bundle

    if model is not None and not isinstance(model, str | os.PathLike):
        raise BadModel(f"the model is {_described(model)}", "give a name or a path")
    return Model(Predictor(Bundle.load(store.resolve(None if model is None else os.fspath(model))), device))


class Model:
    """A model that is loaded on a device. `load` returns it; it can segment any number of images."""

    def __init__(self, predictor: "Predictor") -> None:
        self.predictor = predictor

    @property
    def manifest(self) -> "Manifest":
        """All that the model states about itself."""
        return self.predictor.bundle.manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def card(self) -> str:
        """What the model was made from and what it may be used for, in Markdown."""
        return self.manifest.card

    @property
    def joints(self) -> dict[str, tuple[str, ...]]:
        """The bones of each joint that the model knows, in the order of their labels."""
        return {domain.joint: domain.table.names for domain in self.manifest.domains}

    @property
    def device(self) -> str:
        return str(self.predictor.device)

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.version} on {self.device}: {', '.join(self.joints)}>"

    def segment(
        self,
        image: Image,
        joint: str = "auto",
        *,
        side: str | None = None,
        series: str | None = None,
        frame: int | None = None,
        max_voxels: int | None = None,
        doubt: bool = True,
        probabilities: bool = False,
        scratch: str | os.PathLike[str] | None = None,
        progress: Progress = no_progress,
        on_detection: Callable[[Detection], None] = lambda detection: None,
    ) -> SegmentationResult:
        """Segments the bones of one image.

        Args:
            image: the path of a NIfTI, NRRD, MetaImage or DICOM file or of a DICOM folder; a SimpleITK image; a
                nibabel image; or a pair of an array [i, j, k] and its affine (4×4, voxel indices to RAS millimeters).
            joint: "ankle", "knee", "shoulder" or another that the model knows; "auto" recognizes it.
            side: "left" or "right", for names and codes; the image itself cannot tell.
            series: the UID of one of several DICOM series in a folder.
            frame: one of several frames of a file, counted from 0.
            max_voxels: refuse a file with more voxels before reading them (default 2²⁸).
            doubt: whether to keep the probability of error of each voxel, one byte each.
            probabilities: whether to keep the probability of each bone at each voxel, one byte each.
            scratch: a folder; the arrays of `doubt` and `probabilities` are then kept on its disk and not in memory.
            progress: called several times a second with the part that is done (0 to 1) and what is being done. If it
                raises `Cancelled`, the work stops.
            on_detection: called with the `Detection` before the segmentation starts, if the model can detect joints.

        Raises:
            Undecided: `joint` is "auto" and the image is ambiguous or unlike anything the model knows. Its `scores`
                rank the joints, the most likely first.
            BadInput: the image or an argument cannot be used.
            BadModel: the model does not know the joint.

        Example:
            bones = model.segment((array, affine), joint="knee")
            bones.labels.shape == array.shape
        """
        from .formats.writing import disk_array

        if side not in (None, *_SIDES):
            raise BadInput(f"the side is {side!r}", "give left or right, or leave it out")
        if not isinstance(joint, str):
            raise BadInput(f"the joint is {_described(joint)}", f"give auto or one of {', '.join(self.joints)}")
        progress(0.0, "reading")
        volume = _to_volume(image, series, frame, max_voxels)

        def new_array(components: int) -> "np.ndarray":
            import numpy as np

            shape = (components, *volume.grid.size)
            return np.zeros(shape, np.uint8) if scratch is None else disk_array(os.fspath(scratch), shape)

        return self.predictor.segment(
            volume,
            joint,
            side,
            progress=progress,
            on_detection=on_detection,
            new_probabilities=new_array if probabilities else None,
            uncertainty=new_array(1)[0] if doubt else None,
        )

    def detect(
        self,
        image: Image,
        *,
        series: str | None = None,
        frame: int | None = None,
        max_voxels: int | None = None,
        progress: Progress = no_progress,
    ) -> Detection:
        """Recognizes the joint without segmenting it. The arguments are those of `segment`. The verdict is None if the
        model has no signatures.

        Example:
            model.detect("knee.nii.gz").joint       # "knee"
        """
        progress(0.0, "reading")
        volume = _to_volume(image, series, frame, max_voxels)
        return self.predictor.detect(volume, check=lambda: progress(0.5, "looking"))


def measure(
    segmentation: str | os.PathLike[str] | SegmentationResult,
    joint: str | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    surfaces: str | os.PathLike[str] | None = None,
    max_voxels: int | None = None,
) -> Measurements:
    """Measures each bone of a segmentation: volume, surface, position, extents and axes.

    Args:
        segmentation: a result of `Model.segment`, or a file: .seg.nrrd, which names its bones, or a label map.
        joint: the joint whose label values a label map has.
        model: the model that knows the joint, if it is not one of those that come with the software.
        surfaces: a folder, which is created if need be; a surface mesh of each bone is written into it as STL (LPS,
            mm), over older ones.
        max_voxels: refuse a file with more voxels, those of all segments together, before reading them (default 2²⁸).

    Example:
        pedboneseg.measure("knee.seg.nrrd")["femur"]["volume_ml"]
    """
    from .formats.names import ensure_folder
    from .results.measure import measure_bones

    if isinstance(segmentation, SegmentationResult):
        labels, grid, table, side = segmentation.labels, segmentation.grid, segmentation.table, segmentation.side
    elif isinstance(segmentation, str | os.PathLike):
        from .formats.segments import read_segmentation

        labels, grid, table, side = read_segmentation(os.fspath(segmentation), _joint_table(joint, model), max_voxels)
    else:
        raise BadInput(f"the segmentation is {_described(segmentation)}", "give a file or a result of Model.segment")
    measurements = Measurements(table.joint, side, measure_bones(labels, grid, table))
    if surfaces is not None:
        from .results.surfaces import write_surfaces

        measurements.surfaces = write_surfaces(ensure_folder(Path(surfaces)), labels, grid, table, side)
    return measurements


def _joint_table(joint: str | None, model: str | os.PathLike[str] | None) -> "JointTable | None":
    from .anatomy import joint_table, known_joints
    from .models import store
    from .models.bundle import read_manifest

    if joint is None or (joint in known_joints() and model is None):
        return None if joint is None else joint_table(joint)
    return read_manifest(store.resolve(None if model is None else os.fspath(model))).domains_of(joint)[0].table


def _to_volume(image: Image, series: str | None, frame: int | None, max_voxels: int | None) -> "Volume":
    from .formats import in_memory
    from .formats.reading import read_volume
    from .volume import Volume

    if isinstance(image, str | os.PathLike):
        return read_volume(Path(image), series, frame, max_voxels)
    if isinstance(image, Volume):
        return image
    if series is not None or frame is not None:
        raise BadInput("series and frame choose from files", "leave them out for an image in memory")
    if isinstance(image, tuple | list) and len(image) == 2:
        return in_memory.from_array(*image)
    if hasattr(image, "dataobj") and hasattr(image, "affine"):
        return in_memory.from_nibabel(image)
    if hasattr(image, "GetDirection") and hasattr(image, "GetNumberOfComponentsPerPixel"):
        return in_memory.from_sitk(image)
    raise BadInput(
        f"the image is {_described(image)}",
        "give a path, a DICOM folder, a SimpleITK or nibabel image, or a pair (array [i, j, k], affine to RAS mm)",
    )


def _described(value: object) -> str:
    """What was given, in a few words."""
    shape = getattr(value, "shape", None)
    return f"of the type {type(value).__name__}" + (
        f" with the shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    )
