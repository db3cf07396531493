"""NIfTI-1 and NIfTI-2; NIfTI-1 is written. The sform is preferred, as in nibabel; it is RAS, our world is LPS."""

import itertools
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import BadInput
from ...volume import Grid, NiftiGeometry
from ..header import Header, refuse_channels, refuse_type
from ..packing import packed_blocks, raw_blocks
from ..registry import Content, register
from ..unpacking import Unpacker

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_BYTE = np.dtype("u1")
_COLORS = {128, 2304}
_VECTOR = 1007  # intent code
_LONGEST = 544  # bytes of a header, the longer one's
_FIELDS_1 = (("8h", 40), ("h", 70), ("8f", 76), ("3f", 108), ("2h", 252), ("6f", 256), ("12f", 280), ("B", 123))
_FIELDS_2 = (("8q", 16), ("h", 12), ("8d", 104), ("q2d", 168), ("2i", 344), ("6d", 352), ("12d", 400), ("i", 500))
# length, magic and its place; then dim, datatype, pixdim, vox_offset to scl_inter, codes, quaternion, sform, units
_VERSIONS = ((348, b"n+1", 344, _FIELDS_1), (540, b"n+2", 4, _FIELDS_2))
_MM = {1: 1000.0, 3: 0.001}  # xyzt_units: meters and micrometers; anything else counts as millimeters


class Nifti:
    """Voxels of several components are written one component after the other."""

    name = "NIfTI"
    reads: tuple[str, ...] = (".nii", ".nii.gz")
    writes: tuple[str, ...] = (".nii.gz", ".nii")

    def read_header(self, path: Path, stream: BinaryIO) -> Header:
        compressed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        raw = bytearray(_LONGEST)
        filled = Unpacker(stream, "gzip" if compressed else "raw").read_up_to(memoryview(raw))
        raw = raw[:filled]
        for order, (length, magic, at, places) in itertools.product("<>", _VERSIONS):
            if raw[:4] == struct.pack(order + "i", length) and raw[at : at + 3] == magic:
                dim, (kind,), pixdim, (start, slope, intercept), codes, quaternion, rows, (units,) = (
                    struct.unpack_from(order + form, raw, place) for form, place in places
                )
                break
        else:
            raise BadInput(
                f"{path.name} is not a NIfTI image", "give a NIfTI, NRRD or MetaImage file or a DICOM folder"
            )
        if not 1 <= dim[0] <= 7:
            raise ValueError(f"{dim[0]} dimensions")
        if start < length + 4:  # after the header come four bytes that announce extensions
            raise ValueError(f"the voxels begin at byte {start:g}, within the header")
        size = [dim[axis] if axis <= dim[0] else 1 for axis in range(8)]
        if kind in _COLORS or any(extent > 1 for extent in size[5:]):
            refuse_channels(path, max(size[5:]), kind in _COLORS)
        if kind not in _TYPES:
            refuse_type(path, f"NIfTI type {kind}")
        geometry = NiftiGeometry(pixdim, units, codes[0], codes[1], quaternion, rows)
        is_scaled = slope != 0 and np.isfinite([slope, intercept]).all()
        return Header(
            Grid.from_affine(tuple(size[1:4]), affine_of(geometry), geometry),
            np.dtype(order + _TYPES[kind]),
            path,
            start=0 if compressed else int(start),
            codec="gzip" if compressed else "raw",
            skip=int(start) if compressed else 0,
            frames=size[4],
            slope=slope if is_scaled else 1.0,
            intercept=intercept if is_scaled else 0.0,
        )

    def write(self, stream: BinaryIO, content: Content, suffix: str) -> None:
        header = encode(content.grid, len(content.components), content.note)
        blocks = itertools.chain([header], raw_blocks(content.components, interleaved=False))
        for block in packed_blocks(blocks) if suffix == ".nii.gz" else blocks:
            stream.write(block)


def affine_of(geometry: NiftiGeometry) -> np.ndarray:
    """Voxel indices to LPS mm: by the sform, else the qform, else (neither is set) as ITK and Slicer place it."""
    scale = _MM.get(geometry.units & 7, 1.0)
    affine = np.eye(4)
    if geometry.sform_code > 0:
        affine[:3] = np.reshape(geometry.rows, (3, 4))
    else:
        spacing = np.abs(geometry.pixdim[1:4])
        if geometry.qform_code <= 0:
            affine[:3, :3] = np.diag(spacing)
            affine[:3] *= scale
            return affine
        from scipy.spatial.transform import Rotation

        b, c, d, *offset = geometry.quaternion
        a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
        rotation = Rotation.from_quat([b, c, d, a if a > 1e-3 else 0.0])  # a half turn: what is left of a is rounding
        affine[:3, :3] = rotation.as_matrix() * spacing * [1, 1, -1 if geometry.pixdim[0] < 0 else 1]
        affine[:3, 3] = offset
    affine[:3] *= scale
    return _LPS_FROM_RAS @ affine


def encode(grid: Grid, components: int, note: str, dtype: np.dtype = _BYTE) -> bytes:
    """A NIfTI-1 header of 352 bytes for voxels of `dtype`, lowest byte first, components slowest. `note` goes into the
    description."""
    if max(grid.size) > 32767:
        raise BadInput(f"NIfTI cannot hold {max(grid.size)} voxels along an axis", "write .nrrd instead")
    place = grid.nifti
    if place is None or not np.allclose(affine_of(place), grid.affine, rtol=1e-5, atol=1e-5):
        place = _geometry_of(grid)
    dim = (5, *grid.size, 1, components, 1, 1) if components > 1 else (3, *grid.size, 1, 1, 1, 1)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *dim)
    kind = next(code for code, name in _TYPES.items() if np.dtype(name) == dtype.newbyteorder("="))
    struct.pack_into("<hhh", header, 68, _VECTOR if components > 1 else 0, kind, 8 * dtype.itemsize)
    struct.pack_into("<8f3f", header, 76, *place.pixdim[:4], 1, 1, 1, 1, 352, 1, 0)
    header[123] = place.units & 7
    text = note.encode("ascii", "replace")[:79]
    header[148 : 148 + len(text)] = text
    struct.pack_into("<2h6f12f", header, 252, place.qform_code, place.sform_code, *place.quaternion, *place.rows)
    header[344:347] = b"n+1"
    return bytes(header)


def _geometry_of(grid: Grid) -> NiftiGeometry:
    """Both forms, quaternion and matrix, for readers that know but one of them."""
    from scipy.spatial.transform import Rotation

    affine = _LPS_FROM_RAS @ grid.affine
    rotation = affine[:3, :3] / grid.spacing
    handedness = -1.0 if np.linalg.det(rotation) < 0 else 1.0
    b, c, d, _ = Rotation.from_matrix(rotation * [1, 1, handedness]).as_quat(canonical=True)
    pixdim = (handedness, *grid.spacing, 0.0, 0.0, 0.0, 0.0)
    return NiftiGeometry(pixdim, 2, 1, 1, (b, c, d, *affine[:3, 3]), tuple(affine[:3].ravel()))


register(Nifti())
