"""Honest image files for tests: NIfTI, NRRD, and classic and enhanced DICOM."""

import bz2
import gzip

import nibabel
import numpy as np
from grids import make_grid, rotation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def voxels(shape, dtype="i2", seed=0):
    """Values over the type's whole range, exactly representable."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def nifti(array, grid=None, **fields):
    image = nibabel.Nifti1Image(array, RAS @ (grid or make_grid(array.shape[:3])).affine, dtype=array.dtype)
    for key, value in fields.items():
        image.header[key] = value
    return image


# ---- NRRD ------------------------------------------------------------------------------------------------------------

DIRECTIONS = {"space": "left-posterior-superior", "space directions": "none (1,0,0) (0,2,0) (0,0,3)"}


def write_nrrd(path, array, encoding="raw", prefix=b"", data="", **fields):
    packed = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[encoding](array.tobytes("F"))
    lines = ["NRRD0005", "# a comment: here", "type: int16", f"dimension: {array.ndim}", f"encoding: {encoding}"]
    lines += [f"sizes: {' '.join(map(str, array.shape))}", "endian: little", "key:=value: with := more"]
    lines += [f"{key}: {value}" for key, value in fields.items()] + ([f"data file: {data}"] if data else [])
    header = "\n".join(lines).encode() + b"\n\n"
    if data:
        path.write_bytes(header)
        (path.parent / data).write_bytes(prefix + packed)
    else:
        path.write_bytes(header + prefix + packed)


# ---- DICOM -----------------------------------------------------------------------------------------------------------

CLASSIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
ARRAY = np.random.default_rng(0).integers(0, 4000, (5, 8, 6)).astype(np.uint16)  # [i, j, k]
GRID = make_grid(ARRAY.shape, (0.5, 0.75, 3.0), direction=rotation(3))


def numbers(values):
    return [f"{value:.9g}" for value in values]


def dataset(kind=CLASSIC, syntax=ExplicitVRLittleEndian, **elements):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, syntax
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID = "DOE^JANE", "12345"
    made.StudyInstanceUID = "1.2.3"
    elements = {"Modality": "MR", "SeriesInstanceUID": "1.2.3.4", "SequenceName": "*se2d1"} | elements
    for key, value in elements.items():
        setattr(made, key, value)
    return made


def add_pixels(made, pixels):
    """pixels: [j, i] or [frame, j, i], or [j, i, 3] for colors."""
    color = pixels.dtype == np.uint8
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if color else (1, "MONOCHROME2")
    if color:
        made.PlanarConfiguration = 0
    made.Rows, made.Columns = pixels.shape[-3:-1] if color else pixels.shape[-2:]
    made.BitsAllocated = made.BitsStored = 8 * pixels.dtype.itemsize
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, 0
    made.PixelData = pixels.tobytes()


def save(made, path):
    if made.file_meta.TransferSyntaxUID == RLELossless:
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.compress(RLELossless)
    made.save_as(path, enforce_file_format=True)


def write_classic(folder, array=ARRAY, grid=GRID, first=1, prefix="IM", **elements):
    """A file a slice, in a scrambled order of names and instance numbers that does not give the order away."""
    folder.mkdir(exist_ok=True)
    axes = np.array(grid.direction).T
    for k in range(array.shape[2]):
        made = dataset(**elements)
        add_pixels(made, array[:, :, k].T)
        made.ImageOrientationPatient = numbers([*axes[0], *axes[1]])
        made.ImagePositionPatient = numbers((grid.affine @ [0, 0, k, 1])[:3])
        made.PixelSpacing = numbers(grid.spacing[1::-1])
        made.SliceThickness = "9"  # not the distance of the slices
        made.InstanceNumber = first + (k * 5) % array.shape[2]
        save(made, folder / f"{prefix}{(k * 7 + 3) % array.shape[2]}")
    return folder


def item(**elements):
    made = Dataset()
    for key, value in elements.items():
        setattr(made, key, value)
    return made


def write_enhanced(path, array=ARRAY, grid=GRID, times=1, order=None, side=None, syntax=ExplicitVRLittleEndian):
    """One file; `order` is the place of each frame, by default shuffled; a time after the other."""
    axes = np.array(grid.direction).T
    order = list(np.random.default_rng(1).permutation(array.shape[2])) if order is None else order
    made = dataset(ENHANCED, syntax, SequenceName=None, PulseSequenceName="tse")
    del made.SequenceName
    add_pixels(made, np.stack([array[:, :, k].T + time for time in range(times) for k in order]))
    made.NumberOfFrames = len(order) * times
    shared = item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=numbers(grid.spacing[1::-1]), SliceThickness="9")]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=numbers([*axes[0], *axes[1]]))]),
    )
    if side:
        shared.FrameAnatomySequence = Sequence([item(FrameLaterality=side)])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    made.PerFrameFunctionalGroupsSequence = Sequence(
        [
            item(PlanePositionSequence=Sequence([item(ImagePositionPatient=numbers((grid.affine @ [0, 0, k, 1])[:3]))]))
            for _ in range(times)
            for k in order
        ]
    )
    for element in (made["PerFrameFunctionalGroupsSequence"], made["SharedFunctionalGroupsSequence"]):
        element.is_undefined_length = syntax == ImplicitVRLittleEndian
    path.parent.mkdir(exist_ok=True)
    save(made, path)
    return path
