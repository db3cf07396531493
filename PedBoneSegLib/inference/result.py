"""What a segmentation gives: the labels, what they were made with, and where they should be checked.

numpy and SimpleITK are imported where they are used, so that these classes can be imported without waiting.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk

    from ..anatomy import JointTable
    from ..volume import Grid, Notice

Verdict = Literal["joint", "ambiguous", "unlike"]

LEVELS = 254  # 8-bit uncertainty: this level stands for the probability 1
NOT_LOOKED_AT = 255  # the network did not look at this voxel


@dataclass(frozen=True)
class Detection:
    """Which joint an image shows, and whether it is like the images that the model was made for.

    verdict  "joint": the image shows `joint`; "ambiguous": another joint is nearly as likely; "unlike": the image is
             unlike anything the model knows. None if the model has no signatures to decide by.
    joint    the most likely joint; None where the verdict is "unlike" or None
    scores   a distance for each domain of the model, the smallest (most likely) first; above 1 counts as unlike
    """

    verdict: Verdict | None = None
    joint: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def in_distribution(self) -> bool | None:
        """Whether the image is like images that the model knows; None without a verdict."""
        return None if self.verdict is None else self.verdict != "unlike"

    @property
    def score(self) -> float | None:
        """The smallest score; None where there are none."""
        return min(self.scores.values(), default=None)

    @property
    def ranking(self) -> str:
        """For messages: "knee 0.52, ankle 0.55", the most likely first."""
        return ", ".join(f"{domain} {score:.2f}" for domain, score in self.scores.items())


@dataclass(frozen=True)
class ReviewSlice:
    """A slice that a person should look at.

    index  counts from 0 along the review's axis of the image
    score  the number of its voxels that are expected to be wrong
    share  the part of all expected errors that has been seen after this slice and those before it in the list
    """

    index: int
    score: float
    share: float


@dataclass(frozen=True)
class Review:
    """The slices in the order in which they should be checked. `axis` is 0, 1 or 2 for i, j or k of the image."""

    axis: int
    slices: tuple[ReviewSlice, ...]


@dataclass
class SegmentationResult:
    """The labels of an image on the image's own voxels, and what is known about them.

    Example:
        bones = pedboneseg.load().segment("knee.nii.gz", joint="knee")
        bones.volumes_ml["femur"]                   # 71.3
        femur = bones.labels == bones.table.labels["femur"]
        bones.save("knee.seg.nrrd")                 # opens in 3D Slicer with names and colors

    labels       uint8 [i, j, k]: 0 is background, the other values are those of `table.labels`
    grid         where the voxels are in the patient: size, spacing (mm), origin and direction (LPS)
    domain       the part of the model that was used, for example "knee"
    table        the joint's bones: label values, names, colors, codes
    side         "left", "right" or None: given by the caller or told by the file; the image itself cannot tell
    device, precision, seconds: where, with which numbers, and how long the model calculated
    warnings     what the user should know before trusting the result; each has a `code` and a `message`
    detection    which joint the image shows; None where the model has no signatures of the domain
    review       the slices in the order in which they should be checked; None where the model has no calibration
    uncertainty  uint8 [i, j, k]: 254 × the probability that the label is wrong, 255 where the network did not look;
                 None unless asked for. `doubt` is the same as numbers from 0 to 1.
    probabilities  uint8 [bone, i, j, k]: 255 × the probability of each bone, before the clean-up; None unless asked for
    exam_statistics  the share of the exam's own statistics in the network's normalization; 0 for the domain's alone
    """

    labels: "np.ndarray"
    grid: "Grid"
    domain: str
    table: "JointTable"
    side: str | None
    device: str
    precision: str
    seconds: float
    warnings: "list[Notice]" = field(default_factory=list)
    detection: Detection | None = None
    review: Review | None = None
    uncertainty: "np.ndarray | None" = field(default=None, repr=False)
    probabilities: "np.ndarray | None" = field(default=None, repr=False)
    exam_statistics: float = 0.0

    @property
    def joint(self) -> str:
        return self.table.joint

    @property
    def affine(self) -> "np.ndarray":
        """4×4, from voxel indices (i, j, k, 1) to RAS millimeters, as nibabel has it."""
        import numpy as np

        return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.grid.affine)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """The volume of each bone in milliliters; 0 for a bone that was not found."""
        import numpy as np

        counts = {name: int(np.count_nonzero(self.labels == label)) for name, label in self.table.labels.items()}
        return {name: count * self.grid.voxel_ml for name, count in counts.items()}

    @property
    def doubt(self) -> "np.ndarray | None":
        """float32 [i, j, k]: the probability that the label is wrong, NaN where the network did not look. A new array
        at each call; None if the segmentation was called with `doubt=False`."""
        import numpy as np

        if self.uncertainty is None:
            return None
        doubt = np.asarray(self.uncertainty, np.float32) / LEVELS
        doubt[self.uncertainty == NOT_LOOKED_AT] = np.nan
        return doubt

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the labels. The ending chooses the format: .seg.nrrd (3D Slicer, with names, colors and codes),
        .nii.gz, .nii or .nrrd. An existing file is replaced only with `overwrite`."""
        from ..formats.names import check_output
        from ..formats.writing import write_labels

        check_output(os.fspath(path), overwrite=overwrite)
        write_labels(os.fspath(path), self.labels, self.grid, self.table, self.side)

    def save_uncertainty(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes `uncertainty` as .nii.gz, .nii or .nrrd."""
        self._save_map(path, self.uncertainty, ("uncertainty",), overwrite)

    def save_probabilities(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes `probabilities` as .nii.gz, .nii or .nrrd with one component for each bone."""
        self._save_map(path, self.probabilities, self.table.names, overwrite)

    def to_sitk(self) -> "sitk.Image":
        """The labels as a SimpleITK image with the same geometry."""
        from ..formats.in_memory import to_sitk

        return to_sitk(self.labels, self.grid)

    def _save_map(
        self, path: str | os.PathLike[str], array: "np.ndarray | None", names: tuple[str, ...], overwrite: bool
    ) -> None:
        from ..errors import BadInput
        from ..formats.names import check_output, map_suffixes
        from ..formats.writing import write_map

        if array is None:
            remedy = "segment with doubt=True" if names == ("uncertainty",) else "segment with probabilities=True"
            raise BadInput(f"{os.fspath(path)}: this result does not have these values", remedy)
        check_output(os.fspath(path), overwrite=overwrite, suffixes=map_suffixes())
        write_map(os.fspath(path), array.reshape(-1, *self.grid.size), self.grid, names)
