"""A DICOM series as one volume: classic (a slice a file) and enhanced (frames in one file).

The geometry comes from our own walk through the elements, which knows the few that are wanted and passes over all
others, the patient's name among them. The pixels are decoded by GDCM (in SimpleITK).
"""

import mmap
import struct
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..volume import Grid, Volume
from .header import choose_frame

_TAGS = {
    0x00020010: "syntax", 0x00080060: "modality", 0x0020000E: "series", 0x00180024: "sequence",
    0x00189005: "pulse_sequence", 0x00200060: "laterality", 0x00200062: "image_laterality",
    0x00209072: "frame_laterality", 0x00200013: "instance", 0x00200032: "position", 0x00200037: "orientation",
    0x00280030: "spacing", 0x00180050: "thickness", 0x00180088: "gap", 0x00280010: "rows", 0x00280011: "columns",
    0x00280008: "frames", 0x00280002: "samples", 0x00280004: "photometric",
}  # fmt: skip
_NESTED = {
    0x52009229: "shared", 0x52009230: "per_frame", 0x00209113: "plane_position", 0x00209116: "plane_orientation",
    0x00289110: "pixel_measures", 0x00209071: "frame_anatomy",
}  # fmt: skip
_PIXELS, _ITEM, _ENDS, _UNDEFINED = 0x7FE00008, 0xFFFEE000, (0xFFFEE00D, 0xFFFEE0DD), 0xFFFFFFFF
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_MOST_FRAMES = 100_000
_NO_IMAGES = {"SEG", "PR", "SR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "DOC", "REG"}


@dataclass(frozen=True)
class _Slice:
    file: Path
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


def is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_series(path: Path, series: str | None = None, frame: int | None = None) -> Volume:
    """Reads the one series of a folder (not below it) or file, or the one named by its UID."""
    found: dict[str, list[tuple[dict, list[_Slice]]]] = defaultdict(list)
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        elements, slices = _read_file(file) if is_dicom(file) else ({}, [])
        if slices:
            found[_text(elements, "series")].append((elements, slices))
    if not found:
        raise BadInput(f"{path} holds no DICOM images", "give a NIfTI, NRRD or MetaImage file or a DICOM folder")
    if series is None and len(found) > 1:
        listing = ", ".join(f"{uid} ({_describe(files)})" for uid, files in found.items())
        raise BadInput(f"{path} holds {len(found)} DICOM series: {listing}", "choose one with --series UID")
    if series is not None and series not in found:
        raise BadInput(f"{path} has no DICOM series {series}", "it has " + ", ".join(found))
    files = found[series or next(iter(found))]
    first, sides = files[0][0], {_side(elements) for elements, _ in files}
    colors = ("PALETTE", "RGB", "YBR")
    if _numbers(first, "samples", [1]) != [1] or _text(first, "photometric").startswith(colors):
        raise BadInput(f"{path.name} holds color images", "give the MR series itself, not a rendering of it")
    places = _places([piece for _, slices in files for piece in slices], path.name)
    chosen = choose_frame(path.name, len(places[0]), frame)
    slices = [place[chosen] for place in places]
    return Volume(
        grid=_grid(slices, path.name),
        array=_pixels(slices, path.name),
        name=path.name if path.is_dir() else path.stem,
        side=sides.pop() if len(sides) == 1 else None,
        modality=_text(first, "modality") or None,
        sequence=_text(first, "sequence", "pulse_sequence") or None,
    )


# ---- elements --------------------------------------------------------------------------------------------------------


def _read_file(file: Path) -> tuple[dict, list[_Slice]]:
    """The wanted elements by our own names: bytes, or a list of such dictionaries for a nested one; and the slices,
    none where the file is no image."""
    try:
        with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            length = struct.unpack_from("<I", data, 140)[0] + 144 if data[132:136] == b"\2\0\0\0" else 132
            meta, start = _walk(data, 132, length, True)
            syntax = _text(meta, "syntax")
            if syntax in (_BIG_ENDIAN, _DEFLATED):
                raise BadInput(f"{file.name} is stored in a way that is no longer used ({syntax})", "export it again")
            elements, _ = _walk(data, start, len(data), syntax != _IMPLICIT)
        for group in ("shared", "per_frame"):
            elements[group] = [_flat(item) for item in elements.get(group, [])]
        is_image = {"series", "rows", "columns"} <= elements.keys() and _text(elements, "modality") not in _NO_IMAGES
        return elements, _slices(file, elements) if is_image else []
    except (struct.error, ValueError, OverflowError, OSError, RecursionError) as error:
        raise BadInput(f"{file.name} is a damaged DICOM file ({error})", "copy or export it again") from error


def _walk(data: mmap.mmap, at: int, end: int, explicit: bool, top: bool = True) -> tuple[dict, int]:
    """The wanted elements from `at` to `end`, to the delimiter of an item, or (at the top) to the pixels."""
    elements: dict = {}
    while at + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", data, at)
        tag, kind, at = group << 16 | element, b"", at + 8
        if tag in _ENDS or (top and tag >= _PIXELS):
            break
        if explicit and tag != _ITEM:
            kind = data[at - 4 : at - 2]
            length = struct.unpack_from("<H", data, at - 2)[0]
            if kind in _LONG:
                length, at = struct.unpack_from("<I", data, at)[0], at + 4
        if tag in _NESTED or length == _UNDEFINED:
            stop = end if length == _UNDEFINED else min(end, at + length)
            items, at = _items(data, at, stop, explicit and kind != b"UN", tag in _NESTED)
            if tag in _NESTED:
                elements[_NESTED[tag]] = items
            continue
        if at + length > end:
            raise ValueError("it is truncated")
        if tag in _TAGS:
            elements[_TAGS[tag]] = data[at : at + length]
        at += length
    return elements, at


def _items(data: mmap.mmap, at: int, end: int, explicit: bool, wanted: bool) -> tuple[list[dict], int]:
    """A sequence's items. Where they are not wanted, those of a stated length are passed over unseen."""
    items = []
    while at + 8 <= end:
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if group << 16 | element != _ITEM:  # the delimiter of the sequence
            break
        stop = end if length == _UNDEFINED else min(end, at + length)
        if wanted or length == _UNDEFINED:
            item, after = _walk(data, at, stop, explicit, top=False)
            items.append(item)
        at = after if length == _UNDEFINED else at + length
    return items, at


def _flat(item: dict) -> dict:
    """A functional group's elements, those of its nested sequences (of one item each) included."""
    flat = {}
    for key, value in item.items():
        flat |= _flat(value[0]) if isinstance(value, list) and value else {key: value} if value else {}
    return flat


def _text(elements: dict, *keys: str) -> str:
    """The first of these that is there; empty where none is."""
    return next((text for key in keys if (text := elements.get(key, b"").decode("latin-1").strip("\0 "))), "")


def _numbers(elements: dict, key: str, default: list[float]) -> list[float]:
    raw = elements.get(key, b"")
    if key in ("rows", "columns", "samples"):
        return [float(struct.unpack("<H", raw)[0])] if raw else default
    return [float(part) for part in _text(elements, key).split("\\") if part.strip()] or default


def _side(elements: dict) -> str | None:
    frame = (elements["shared"] + elements["per_frame"] + [{}])[0]
    letters = _text(elements, "image_laterality"), _text(elements, "laterality"), _text(frame, "frame_laterality")
    return next(({"L": "left", "R": "right"}[letter] for letter in letters if letter in ("L", "R")), None)


def _describe(files: list[tuple[dict, list[_Slice]]]) -> str:
    """What helps to choose a series and tells nothing of the patient."""
    elements, slices = files[0]
    plane = ("sagittal", "coronal", "axial")[np.abs(np.cross(*slices[0].orientation)).argmax()]
    images = f"{sum(len(each) for _, each in files)} images of {' × '.join(map(str, slices[0].shape))}"
    parts = (_text(elements, "modality"), _text(elements, "sequence", "pulse_sequence"), plane, images)
    return " ".join(filter(None, parts))


# ---- geometry and pixels ---------------------------------------------------------------------------------------------


def _slices(file: Path, elements: dict) -> list[_Slice]:
    shared, pieces = (elements["shared"] or [{}])[0], []
    count = int(_numbers(elements, "frames", [1])[0])
    if not 1 <= count <= _MOST_FRAMES:
        raise ValueError(f"{count} frames")
    for index in range(count):
        own = elements | shared | (elements["per_frame"][index] if index < len(elements["per_frame"]) else {})
        position, orientation, spacing = (_numbers(own, key, []) for key in ("position", "orientation", "spacing"))
        if (len(position), len(orientation), len(spacing)) != (3, 6, 2):
            fault = f"{file.name} does not say where its pixels are in the patient"
            raise BadInput(fault, "export the MR series itself")
        if not np.isfinite([*position, *orientation, *spacing]).all():
            raise ValueError("its geometry is not a number")
        pieces.append(_Slice(
            file, index, (int(_numbers(own, "instance", [0])[0]), index), np.array(position),
            np.reshape(orientation, (2, 3)), tuple(spacing[::-1]),
            _numbers(own, "gap", _numbers(own, "thickness", [1.0]))[0],
            (int(_numbers(own, "columns", [0])[0]), int(_numbers(own, "rows", [0])[0])),
        ))  # fmt: skip
    return pieces


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


def _pixels(slices: list[_Slice], name: str) -> np.ndarray:
    import SimpleITK as sitk

    sitk.ProcessObject.GlobalWarningDisplayOff()
    planes, files = [], {}
    for piece in slices:
        try:
            if piece.file not in files:
                files = {piece.file: sitk.GetArrayFromImage(sitk.ReadImage(str(piece.file)))}  # one file at a time
        except RuntimeError as error:
            raise BadInput(f"{piece.file.name} of {name} cannot be decoded", "copy or export it again") from error
        planes.append(files[piece.file].reshape(-1, *piece.shape[::-1])[piece.index].T)
    return np.asfortranarray(np.stack(planes, axis=2))
