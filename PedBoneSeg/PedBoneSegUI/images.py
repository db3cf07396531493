"""A volume of the scene as a file for the worker, and back: geometry, transforms, sequences, the side it tells."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

CHUNK = 2 * 2**20  # bytes written per turn of the event loop, so that the application never stutters

_NRRD_TYPES = {
    "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32", "uint32": "uint32",
    "int64": "int64", "uint64": "uint64", "float32": "float", "float64": "double",
}  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """A voxel grid: its size [i, j, k] and the 4x4 matrix from voxel indices to RAS mm, transforms left out."""

    size: tuple[int, int, int]
    matrix: tuple[tuple[float, ...], ...]

    @classmethod
    def ofVolume(cls, volume) -> "Geometry":
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        rows = tuple(tuple(matrix.GetElement(row, column) for column in range(4)) for row in range(4))
        return cls(tuple(volume.GetImageData().GetDimensions()), rows)

    def isLike(self, other: "Geometry") -> bool:
        return self.size == other.size and np.allclose(self.matrix, other.matrix, atol=1e-3)

    @property
    def spacing(self) -> np.ndarray:
        return np.linalg.norm(np.array(self.matrix)[:3, :3], axis=0)

    @property
    def slowestAxis(self) -> int:
        """The axis across which the slices were taken: the one with the coarsest spacing, the last among equals."""
        return int(max(range(3), key=lambda axis: (round(self.spacing[axis], 3), axis)))


def refusal(volume) -> str:
    """Why the volume cannot be segmented, as a sentence; empty if it can be."""
    image = volume.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        return _("The volume is empty.")
    if image.GetNumberOfScalarComponents() != 1:
        return _("The volume has several components (color?); choose one with a single value per voxel.")
    geometry = Geometry.ofVolume(volume)
    axes = np.array(geometry.matrix)[:3, :3]
    if not np.isfinite(np.array(geometry.matrix)).all() or (geometry.spacing == 0).any():
        return _("The volume's geometry is damaged (no spacing or no direction).")
    axes = axes / geometry.spacing
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        return _("The volume's axes are sheared (gantry tilt?); resample it on a right-angled grid first.")
    return ""


def nrrdHeader(geometry: Geometry, dtype: np.dtype) -> bytes:
    lps = np.diag([-1.0, -1.0, 1.0]) @ np.array(geometry.matrix)[:3]
    vectors = ["({})".format(",".join(f"{value:.17g}" for value in lps[:, column])) for column in range(4)]
    return "\n".join((
        "NRRD0004",
        f"type: {_NRRD_TYPES[dtype.name]}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: {} {} {}".format(*geometry.size),
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {vectors[3]}",
        "", "",
    )).encode()  # fmt: skip


class FileWriting:
    """Writes an array [k, j, i] as NRRD, a chunk per turn of the event loop; `onEnd(sentence)`, empty if all is well.

    The array is copied first: the user may change the volume meanwhile.
    """

    def __init__(self, array: np.ndarray, geometry: Geometry, path: Path, onEnd: Callable[[str], None]) -> None:
        array = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C", copy=True)
        self._bytes, self._position, self._onEnd, self._stream = memoryview(array).cast("B"), 0, onEnd, None
        self._header, self._path, self._cancelled = nrrdHeader(geometry, array.dtype), path, False
        qt.QTimer.singleShot(0, self._turn)

    def cancel(self) -> None:
        self._cancelled = True
        self._close()

    def _turn(self) -> None:
        if self._cancelled:
            return
        try:
            if self._stream is None:
                self._stream = open(self._path, "wb")
                self._stream.write(self._header)
            self._stream.write(self._bytes[self._position : self._position + CHUNK])
            self._position += CHUNK
            if self._position < len(self._bytes):
                qt.QTimer.singleShot(0, self._turn)
                return
            self._stream.flush()
            self._close()
        except OSError as error:
            self._close()
            self._onEnd(_("The temporary file could not be written ({reason}).").format(reason=error.strerror))
            return
        self._onEnd("")

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError:  # a full disk shows itself here again; it has been told
                pass


def readFile(path: Path, className: str = "vtkMRMLLabelMapVolumeNode"):
    """A volume node, not in the scene, with the voxels and geometry of a file or a DICOM series' folder.

    RuntimeError if it cannot be read. Not by Slicer's storage nodes: they turn a left-handed grid into a right-handed
    one, and the result would no longer lie voxel on voxel.
    """
    import SimpleITK

    if Path(path).is_dir():
        image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    else:
        image = SimpleITK.ReadImage(str(path))
    node = slicer.mrmlScene.CreateNodeByClass(className)
    node.UnRegister(None)
    slicer.util.updateVolumeFromArray(node, SimpleITK.GetArrayFromImage(image))
    axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps = np.column_stack((axes, image.GetOrigin()))
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([*(np.diag([-1.0, -1.0, 1.0]) @ lps).ravel(), 0.0, 0.0, 0.0, 1.0])
    node.SetIJKToRASMatrix(matrix)
    return node


def sideOf(volume) -> str | None:
    """"left" or "right" where DICOM or the name says so, None where neither does; never guessed from voxels."""
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
    if uids and getattr(slicer, "dicomDatabase", None):
        for tag in ("0020,0060", "0020,0062"):  # Laterality, Image Laterality
            value = slicer.dicomDatabase.instanceValue(uids[0], tag).strip().upper()
            if value in ("L", "R"):
                return {"L": "left", "R": "right"}[value]
    words = set(re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", volume.GetName() or "").lower()))
    sides = words & {"left", "right"}
    return sides.pop() if len(sides) == 1 else None


def sequenceItem(volume) -> str:
    """"item 3" where the volume shows an item of a sequence, else an empty text."""
    module = getattr(slicer.modules, "sequences", None)
    browser = module.logic().GetFirstBrowserNodeForProxyNode(volume) if module else None
    return _("item {n}").format(n=browser.GetSelectedItemNumber() + 1) if browser else ""


def sliceCenter(volume, axis: int, index: int) -> tuple[float, float, float]:
    """The middle of a slice of the volume's own grid in world RAS millimetres, parent transforms applied."""
    geometry = Geometry.ofVolume(volume)
    middle = [(size - 1) / 2 for size in geometry.size] + [1.0]
    middle[axis] = index
    point = (np.array(geometry.matrix) @ middle)[:3]
    transform = volume.GetParentTransformNode()
    if transform:
        general = vtk.vtkGeneralTransform()
        transform.GetTransformToWorld(general)
        point = general.TransformPoint(point)
    return tuple(float(value) for value in point)
