"""NRRD, attached (.nrrd) and detached (.nhdr): read by ITK, which shows shear and damage here; and headers to write."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Grid
from .header import refuse_channels, refuse_type

_FRAME_KINDS = {"list", "time", "stub", "none", "???"}  # of an axis along which image follows image
_RANGE = "NRRD_kinds[pixel]"  # where ITK keeps the kind of an axis that is not in space


@dataclass(frozen=True)
class Nrrd:
    """What a file says of itself; `fields` are its own key-value pairs."""

    path: Path
    grid: Grid
    frames: int
    fields: dict[str, str]

    def voxels(self, frame: int) -> np.ndarray:
        """One frame [i, j, k]."""
        import SimpleITK as sitk

        image = _reader(self.path).Execute()
        array = sitk.GetArrayViewFromImage(image)
        array = array[..., frame] if array.shape[-1:] == (self.frames,) and _RANGE in self.fields else array
        array = array[frame] if array.ndim == 4 else array
        return np.array(array.reshape(self.grid.size[::-1]).T, order="F")


def parse(path: Path) -> Nrrd:
    import SimpleITK as sitk

    sitk.ProcessObject.GlobalWarningDisplayOff()
    with open(path, "rb") as stream:
        if stream.read(7) != b"NRRD000":
            raise BadInput(f"{path.name} is not an image of its kind", "give a NIfTI, NRRD or MetaImage file")
    reader = _reader(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ValueError(reason(error)) from None
    fields = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    kind, channels, axes = fields.get(_RANGE, "").lower(), reader.GetNumberOfComponents(), reader.GetDimension()
    if channels > 1 and kind not in _FRAME_KINDS:
        refuse_channels(path, channels, "color" in kind)
    if "integer" not in (type_name := sitk.GetPixelIDValueAsString(reader.GetPixelID())) and "float" not in type_name:
        refuse_type(path, type_name)
    if not 2 <= axes <= 4 or (axes == 4 and channels > 1):
        raise BadInput(f"{path.name} has {axes} dimensions", "export one plain 3-D volume")
    size, spacing = (list(part) + [1] for part in (reader.GetSize(), reader.GetSpacing()))
    direction = np.eye(max(3, axes))
    direction[:axes, :axes] = np.reshape(reader.GetDirection(), (axes, axes))
    origin = [*reader.GetOrigin(), 0.0]
    grid = Grid(tuple(size[:3]), tuple(spacing[:3]), tuple(origin[:3]), tuple(map(tuple, direction[:3, :3].tolist())))
    return Nrrd(path, grid, size[3] if axes == 4 else channels, fields)


def _reader(path: Path):
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO")
    return reader


def reason(error: RuntimeError) -> str:
    """The last line of what ITK says, without the place in its own sources."""
    return str(error).strip().splitlines()[-1].split("): ")[-1].removeprefix("[nrrd] ")


def encode(
    grid: Grid, components: int, keys: dict[str, str], kind: str = "unsigned char", encoding: str = "gzip"
) -> bytes:
    """A header for voxels, components fastest and the lowest byte first, as ITK and Slicer write it."""
    many = components > 1
    steps = ["none"] * many + [_vector(step) for step in grid.affine[:3, :3].T]
    lines = [
        "NRRD0004",
        f"type: {kind}",
        f"dimension: {3 + many}",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, [components] * many + list(grid.size))),
        "space directions: " + " ".join(steps),
        "kinds: " + " ".join(["vector"] * many + ["domain"] * 3),
        *["endian: little"] * (kind != "unsigned char"),
        f"encoding: {encoding}",
        "space origin: " + _vector(grid.origin),
        *(f"{key}:={' '.join(value.splitlines())}" for key, value in keys.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _vector(numbers: np.ndarray | tuple[float, ...]) -> str:
    return "(" + ",".join(repr(float(number)) for number in numbers) + ")"
