"""DICOM series, written with pydicom; the patient is Jane Doe everywhere, and her name must appear nowhere."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from grids import make_grid, rotation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import ARRAY, GRID, add_pixels, dataset, item, save, write_classic, write_enhanced
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.reading import is_dicom_series, read_volume
from PedBoneSegLib.formats.writing import write_labels

COMPRESSED = Path(__file__).parents[1] / "data" / "dicom"


def assert_is_the_image(volume, grid=GRID, array=ARRAY):
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.grid.affine, grid.affine, atol=1e-6)
    assert volume.grid.size == array.shape
    told = json.dumps([volume.name, volume.side, volume.modality, volume.sequence, *map(asdict, volume.warnings)])
    assert "DOE" not in told and "12345" not in told


# ---- classic series --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("turn", [np.eye(3), rotation(3), np.eye(3)[[1, 2, 0]]])
def test_a_series_is_one_volume_in_the_order_of_space(tmp_path, syntax, turn):
    grid = make_grid(ARRAY.shape, (0.5, 0.75, 3.0), direction=turn)
    folder = write_classic(tmp_path / "exam", grid=grid, syntax=syntax)
    assert is_dicom_series(folder)
    volume = read_volume(folder)
    assert_is_the_image(volume, grid)
    assert (volume.name, volume.modality, volume.sequence, volume.side) == ("exam", "MR", "*se2d1", None)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    itk = reader.Execute()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(itk).T, volume.array)
    np.testing.assert_allclose(itk.GetOrigin(), volume.grid.origin, atol=1e-6)
    np.testing.assert_allclose(itk.GetSpacing(), volume.grid.spacing, atol=1e-6)
    np.testing.assert_allclose(itk.GetDirection(), np.ravel(volume.grid.direction), atol=1e-6)


def test_slices_with_the_highest_byte_first_are_read_as_pydicom_does(tmp_path):
    folder = write_classic(tmp_path / "exam")
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.PixelData = made.pixel_array.astype(">u2").tobytes()
        made.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, made, implicit_vr=False, little_endian=False)
    assert_is_the_image(read_volume(folder))
    expected = pydicom.dcmread(folder / "IM3").pixel_array  # the first in space
    np.testing.assert_array_equal(read_volume(folder).array[:, :, 0].T, expected)


def bits_changed(folder, stored, signed, photometric="MONOCHROME2", **elements):
    """A series whose pixels use some of their bits, the others being full of an old overlay."""
    write_classic(folder, ARRAY, **elements)
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.BitsStored, made.HighBit = stored, stored - 1
        made.PixelRepresentation, made.PhotometricInterpretation = signed, photometric
        pixels = np.frombuffer(made.PixelData, "<u2")
        made.PixelData = (pixels | (0xF000 if stored < 16 else 0)).tobytes()
        made.save_as(path)
    return folder


@pytest.mark.parametrize("stored, signed", [(16, 0), (12, 0), (12, 1), (10, 1)])
@pytest.mark.parametrize("slope, intercept", [("1", "0"), ("1", "-1024"), ("2", "0"), ("0.5", "-10"), ("0", "5")])
def test_bits_signs_and_rescaling_are_read_as_itk_and_pydicom_do(tmp_path, stored, signed, slope, intercept):
    folder = bits_changed(tmp_path / "exam", stored, signed, RescaleSlope=slope, RescaleIntercept=intercept)
    array = read_volume(folder).array
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(reader.Execute()).T)
    pixels = pydicom.dcmread(folder / "IM3").pixel_array.astype(float)  # the first in space
    np.testing.assert_array_equal(array[:, :, 0].T, pixels * (float(slope) or 1.0) + float(intercept))


@pytest.mark.parametrize("stored", [12, 16])
def test_an_image_that_is_dark_where_its_numbers_are_high_is_turned_round_as_itk_does(tmp_path, stored):
    folder = bits_changed(tmp_path / "exam", stored, 0, "MONOCHROME1")
    itk = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "IM3")))
    np.testing.assert_array_equal(read_volume(folder).array[:, :, :1], itk.T)


@pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-ls", "jpeg-2000"])
def test_an_enhanced_file_in_each_compression_has_the_pixels_that_went_into_it(name):
    volume = read_volume(COMPRESSED / f"{name}.dcm")
    i, j, k = np.indices((96, 80, 2))
    np.testing.assert_array_equal(volume.array, (37 * i + 11 * j + 500 * k + (i * j) % 17) % 4096)
    np.testing.assert_allclose(volume.grid.spacing, (0.5, 0.75, 3.0))


def test_an_enhanced_file_in_run_lengths_is_read_as_pydicom_does(tmp_path):
    path = write_enhanced(tmp_path / "IM1", order=list(range(ARRAY.shape[2])), syntax=RLELossless)
    assert_is_the_image(read_volume(path))
    np.testing.assert_array_equal(read_volume(path).array, pydicom.dcmread(path).pixel_array.T)


def test_each_frame_of_an_enhanced_file_has_its_own_rescaling(tmp_path):
    path = write_enhanced(tmp_path / "IM1", order=list(range(ARRAY.shape[2])))
    made = pydicom.dcmread(path)
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        values = item(RescaleSlope=str(number + 1), RescaleIntercept="-7", RescaleType="US")
        group.PixelValueTransformationSequence = Sequence([values])
    made.save_as(path)
    np.testing.assert_array_equal(read_volume(path).array, ARRAY * np.arange(1.0, 1 + ARRAY.shape[2]) - 7)


def test_compressed_slices_are_read(tmp_path):
    array = np.random.default_rng(0).integers(0, 4000, (33, 17, 3)).astype(np.uint16)
    grid = make_grid(array.shape)
    assert_is_the_image(read_volume(write_classic(tmp_path / "exam", array, grid, syntax=RLELossless)), grid, array)


@pytest.mark.parametrize(
    "elements, side",
    [
        ({"Laterality": "L"}, "left"),
        ({"ImageLaterality": "R"}, "right"),
        ({"ImageLaterality": "B"}, None),
        ({"ImageLaterality": "U", "Laterality": "R"}, "right"),
        ({"Laterality": ""}, None),
    ],
)
def test_the_side_is_read(tmp_path, elements, side):
    assert read_volume(write_classic(tmp_path / "exam", **elements)).side == side


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    folder = write_classic(tmp_path / "exam")
    (folder / "notes.txt").write_text("x")
    (folder / "deeper").mkdir()
    save(dataset(Modality="SR", SeriesInstanceUID="1.2.3.9"), folder / "report")  # DICOM, but no image
    assert_is_the_image(read_volume(folder))


def test_a_single_file_is_a_single_slice(tmp_path):
    folder = write_classic(tmp_path / "exam", ARRAY[:, :, :1])
    volume = read_volume(folder / "IM0")
    assert volume.grid.size == (5, 8, 1) and volume.grid.spacing[2] == pytest.approx(9)
    np.testing.assert_array_equal(volume.array, ARRAY[:, :, :1])


def test_rescaled_pixels_are_scaled(tmp_path):
    volume = read_volume(write_classic(tmp_path / "exam", RescaleSlope="0.5", RescaleIntercept="-10"))
    np.testing.assert_allclose(volume.array, ARRAY * 0.5 - 10)


def test_sequences_of_any_length_form_are_passed_over(tmp_path):
    def with_sequences(**more):
        inner = item(PatientName="DOE^JANE", ImagePositionPatient=["7", "7", "7"])
        inner.ReferencedImageSequence = Sequence([item(ImageOrientationPatient=["1"] * 6)])
        made = Sequence([inner, inner])
        return {"ReferencedStudySequence": made, **more}

    for undefined in (True, False):
        folder = tmp_path / f"exam{undefined}"
        elements = with_sequences()
        for inner in elements["ReferencedStudySequence"]:
            inner.is_undefined_length_sequence_item = undefined
        write_classic(folder, **elements)
        for path in list(folder.iterdir()):
            made = pydicom.dcmread(path)
            made["ReferencedStudySequence"].is_undefined_length = undefined
            made.save_as(path)
        assert_is_the_image(read_volume(folder))


# ---- several series, several frames ----------------------------------------------------------------------------------


def test_one_of_several_series_must_be_chosen_from_a_list_without_a_name(tmp_path):
    folder = write_classic(tmp_path / "exam")
    write_classic(folder, ARRAY[::-1], SeriesInstanceUID="1.2.3.5", prefix="JN", SequenceName="pd_fs")
    with pytest.raises(BadInput) as refusal:
        read_volume(folder)
    message = str(refusal.value)
    assert "holds 2 DICOM series: 1.2.3.4 (MR *se2d1 " in message and "1.2.3.5 (MR pd_fs " in message
    assert "6 images of 5 × 8" in message and message.endswith("choose one with --series UID")
    assert "DOE" not in message and "\n" not in message
    assert_is_the_image(read_volume(folder, series="1.2.3.4"))
    assert_is_the_image(read_volume(folder, series="1.2.3.5"), array=ARRAY[::-1])
    with pytest.raises(BadInput, match="no DICOM series 9; it has 1.2.3.4, 1.2.3.5"):
        read_volume(folder, series="9")


def test_several_times_at_each_place_are_frames(tmp_path):
    folder = write_classic(tmp_path / "exam")
    write_classic(folder, ARRAY + 1, first=100, prefix="B")
    with pytest.raises(BadInput, match="holds 2 frames; choose one with --frame, 0 to 1"):
        read_volume(folder)
    assert_is_the_image(read_volume(folder, frame=0))
    assert_is_the_image(read_volume(folder, frame=1), array=ARRAY + 1)


# ---- enhanced --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("side", ["L", None])
def test_an_enhanced_file_is_one_volume_in_the_order_of_space(tmp_path, syntax, side):
    path = write_enhanced(tmp_path / "exam" / "IM1", side=side, syntax=syntax)
    for volume in (read_volume(path), read_volume(path.parent)):
        assert_is_the_image(volume)
        assert (volume.sequence, volume.side) == ("tse", {"L": "left", None: None}[side])


def test_an_enhanced_file_of_several_times_has_frames(tmp_path):
    path = write_enhanced(tmp_path / "exam" / "IM1", times=3)
    assert_is_the_image(read_volume(path, frame=2), array=ARRAY + 2)
    with pytest.raises(BadInput, match="holds 3 frames"):
        read_volume(path)


# ---- refusals --------------------------------------------------------------------------------------------------------


def sheared():
    """Slices that are stacked askew: a tilted gantry."""
    affine = GRID.affine
    affine[:3, 2] += affine[:3, 0]
    return type("Tilted", (), {"affine": affine, "direction": GRID.direction, "spacing": GRID.spacing})


def scout(folder):
    write_classic(folder)
    return write_classic(folder, grid=make_grid(ARRAY.shape, direction=rotation(9)), prefix="B")


def missing(folder):
    write_classic(folder)
    (folder / f"IM{(2 * 7 + 3) % 6}").unlink()
    return folder


def doubled(folder):
    write_classic(folder)
    return write_classic(folder, ARRAY[:, :, :2], prefix="B")


def sizes(folder):
    write_classic(folder)
    return write_classic(folder, ARRAY[:4], prefix="B")


def truncated(folder):
    write_classic(folder)
    path = folder / "IM0"
    path.write_bytes(path.read_bytes()[:-20])
    return folder


def cut_header(folder):
    write_classic(folder)
    path = folder / "IM0"
    path.write_bytes(path.read_bytes()[:300])
    return folder


def color(folder):
    folder.mkdir()
    made = dataset(ImageOrientationPatient=["1", "0", "0", "0", "1", "0"], ImagePositionPatient=["0"] * 3)
    made.PixelSpacing = ["1", "1"]
    add_pixels(made, np.zeros((4, 5, 3), np.uint8))
    save(made, folder / "IM0")
    return folder


def nowhere(folder):
    folder.mkdir()
    made = dataset()
    add_pixels(made, ARRAY[:, :, 0].T)
    save(made, folder / "IM0")
    return folder


def deflated(folder):
    return write_classic(folder, ARRAY[:, :, :1], syntax=DeflatedExplicitVRLittleEndian)


def empty(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "make, fault",
    [
        (lambda folder: write_classic(folder, grid=sheared()), "is sheared"),
        (scout, "several orientations"),
        (missing, "some are missing"),
        (doubled, "more images at some places"),
        (sizes, "several sizes"),
        (truncated, "cannot be decoded|truncated"),
        (cut_header, "damaged DICOM file|missing"),
        (color, "color images"),
        (nowhere, "does not say where its pixels are"),
        (empty, "holds no DICOM images"),
        (deflated, "stored in a way that is not read"),
    ],
)
def test_a_series_that_is_no_volume_is_refused(tmp_path, make, fault):
    with pytest.raises(BadInput, match=fault) as refusal:
        read_volume(make(tmp_path / "exam"))
    assert refusal.value.hint and "DOE" not in str(refusal.value) and "\n" not in str(refusal.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(132, 1200), st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused_and_never_a_crash(tmp_path, place, value):
    path = write_enhanced(tmp_path / "exam" / "IM1", ARRAY[:, :, :2], order=[0, 1])
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content)
    try:
        read_volume(path)
    except BadInput:
        pass


def test_no_output_carries_the_patients_name(tmp_path):
    volume = read_volume(write_classic(tmp_path / "exam", Laterality="R"))
    labels = (volume.array > 2000).astype(np.uint8)
    for suffix in (".nii", ".nrrd", ".seg.nrrd"):
        path = tmp_path / f"out{suffix}"
        write_labels(path, labels, volume.grid, joint_table("knee"), volume.side)
        content = path.read_bytes()
        assert b"DOE" not in content and b"JANE" not in content and b"12345" not in content and b"exam" not in content
        np.testing.assert_allclose(read_volume(path).grid.affine, volume.grid.affine, atol=1e-4)
