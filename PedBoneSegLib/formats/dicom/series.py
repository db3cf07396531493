"""The slices of a DICOM series in their order: classic (a slice a file) and enhanced (frames in one file)."""

import struct
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import BadInput
from ...volume import Grid, Volume
from ..header import choose_frame
from ..opening import reason
from .elements import DicomFile, Elements, is_dicom, read_elements, text_of
from .pixels import count_frames, read_frames

_NO_IMAGES = {"SEG", "PR", "SR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "DOC", "REG"}


@dataclass(frozen=True)
class _Slice:
    file: DicomFile
    index: int  # the frame within the file
    order: tuple[int, int]  # instance number and frame: the scanner's own order
    position: np.ndarray
    orientation: np.ndarray  # 2×3: along a row, along a column
    spacing: tuple[float, float]  # between columns, between rows
    depth: float  # as the file says, used where there is but one slice
    shape: tuple[int, int]  # columns, rows

    @property
    def height(self) -> float:
        """Along the normal, in mm."""
        return float(self.position @ np.cross(*self.orientation))


def read_series(path: Path, series: str | None, frame: int | None, max_voxels: int) -> Volume:
    """Reads the one series of a folder (not below it) or file, or the one named by its UID."""
    found: dict[str, list[tuple[DicomFile, list[_Slice]]]] = defaultdict(list)
    try:
        entries = sorted(path.iterdir()) if path.is_dir() else [path]
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {reason(error)}", "check the path and its rights") from error
    for entry in entries:
        if is_dicom(entry):
            file = read_elements(entry)
            if slices := _slices(file):
                found[text_of(file.elements, "series")].append((file, slices))
    if not found:
        raise BadInput(f"{path} holds no DICOM images", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")
    if series is None and len(found) > 1:
        listing = ", ".join(f"{uid} ({_describe(files)})" for uid, files in found.items())
        raise BadInput(f"{path} holds {len(found)} DICOM series: {listing}", "choose one with --series UID")
    if series is not None and series not in found:
        raise BadInput(f"{path} has no DICOM series {series}", "it has " + ", ".join(found))
    files = found[next(iter(found)) if series is None else series]
    first, sides = files[0][0].elements, {_side(file) for file, _ in files}
    if any(_is_color(file) for file, _ in files):
        raise BadInput(f"{path.name} holds color images", "give the MR series itself, not a rendering of it")
    places = _places([piece for _, slices in files for piece in slices], path.name)
    chosen = choose_frame(path.name, len(places[0]), frame)
    slices = [place[chosen] for place in places]
    grid = _grid(slices, path.name)
    return Volume(
        array=read_frames([(piece.file, piece.index) for piece in slices], path.name, max_voxels),
        grid=grid,
        name=path.name if path.is_dir() else path.stem,
        side=sides.pop() if len(sides) == 1 else None,
        modality=text_of(first, "modality") or None,
        sequence=text_of(first, "sequence", "pulse_sequence") or None,
    )


def _side(file: DicomFile) -> str | None:
    texts = [text_of(file.elements, key) for key in ("image_laterality", "laterality")]
    texts.append(text_of(file.frame(0), "frame_laterality"))
    return next(({"L": "left", "R": "right"}[letter] for letter in texts if letter in ("L", "R")), None)


def _describe(files: list[tuple[DicomFile, list[_Slice]]]) -> str:
    """What helps to choose a series and tells nothing of the patient."""
    file, slices = files[0]
    plane = ("sagittal", "coronal", "axial")[np.abs(np.cross(*slices[0].orientation)).argmax()]
    images = f"{sum(len(pieces) for _, pieces in files)} images of {' × '.join(map(str, slices[0].shape))}"
    parts = (text_of(file.elements, "modality"), text_of(file.elements, "sequence", "pulse_sequence"), plane, images)
    return " ".join(filter(None, parts))


# ---- geometry --------------------------------------------------------------------------------------------------------


def _slices(file: DicomFile) -> list[_Slice]:
    """The slices of a file; none where it is no image."""
    if not {"series", "rows", "columns"} <= file.elements.keys() or text_of(file.elements, "modality") in _NO_IMAGES:
        return []
    try:
        count = 1 if _is_color(file) else count_frames(file)
        return [_slice(file, index, file.frame(index)) for index in range(count)]
    except (struct.error, ValueError, OverflowError) as error:
        raise BadInput(f"{file.path.name} is a damaged DICOM file ({error})", "copy or export it again") from error


def _is_color(file: DicomFile) -> bool:
    colors = ("PALETTE", "RGB", "YBR")
    return file.numbers("samples", [1]) != [1] or text_of(file.elements, "photometric").startswith(colors)


def _slice(file: DicomFile, index: int, elements: Elements) -> _Slice:
    position, orientation, spacing = (file.numbers(key, [], elements) for key in ("position", "orientation", "spacing"))
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
        fault = f"{file.path.name} does not say where its pixels are in the patient"
        raise BadInput(fault, "export the MR series itself")
    depth = file.numbers("gap", file.numbers("thickness", [1.0], elements), elements)[0]
    if not np.isfinite([*position, *orientation, *spacing, depth]).all():
        raise ValueError("its geometry is not a number")
    return _Slice(
        file, index, (int(file.numbers("instance", [0], elements)[0]), index), np.array(position),
        np.reshape(orientation, (2, 3)), (spacing[1], spacing[0]), depth,
        (int(file.numbers("columns", [0])[0]), int(file.numbers("rows", [0])[0])),
    )  # fmt: skip


def _places(slices: list[_Slice], name: str) -> list[list[_Slice]]:
    """The slices by place, along the normal; several at each place (times, echoes) are in the scanner's order."""
    first = slices[0]
    for piece in slices:
        if np.abs(piece.orientation - first.orientation).max() > 1e-3:
            raise BadInput(f"{name} has slices in several orientations (a scout?)", "give a series of parallel slices")
        if piece.shape != first.shape or not np.allclose(piece.spacing, first.spacing, rtol=1e-4, atol=0):
            raise BadInput(f"{name} has slices of several sizes", "give a series of like slices")
    places: list[list[_Slice]] = []
    for piece in sorted(slices, key=lambda piece: (piece.height, piece.order)):
        if places and piece.height - places[-1][0].height < 1e-2:
            places[-1].append(piece)
        else:
            places.append([piece])
    if len({len(place) for place in places}) > 1:
        raise BadInput(f"{name} has more images at some places than at others", "give a series with each slice once")
    return [sorted(place, key=lambda piece: piece.order) for place in places]


def _grid(slices: list[_Slice], name: str) -> Grid:
    first = slices[0]
    step = np.cross(*first.orientation) * (first.depth or 1.0)
    if len(slices) > 1:
        steps = np.diff([piece.position for piece in slices], axis=0)
        step = steps.mean(0)
        lengths = np.sqrt((steps**2).sum(1))
        if np.abs(steps - step).max() > 0.05 * np.sqrt(step @ step):
            fault = f"{name} has slices {lengths.min():.2f} to {lengths.max():.2f} mm apart: some are missing"
            raise BadInput(fault, "export the whole series again")
    columns = [first.orientation[0] * first.spacing[0], first.orientation[1] * first.spacing[1], step, first.position]
    return Grid.from_affine((*first.shape, len(slices)), np.transpose(columns)).check(name)
