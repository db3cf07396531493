import gzip
import re
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from grids import grids, make_grid, rotation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import DIRECTIONS, RAS, nifti, voxels, write_nrrd

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.names import split_name
from PedBoneSegLib.formats.reading import find_inputs, is_dicom_series, read_volume
from PedBoneSegLib.volume import Grid

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]
fast = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def itk_image(array, grid):
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(np.ravel(grid.direction).tolist())
    return image


@fast
@given(grids(), st.sampled_from(DTYPES), st.sampled_from(SUFFIXES), st.booleans())
def test_itk_files_of_any_type_and_geometry_are_read_as_itk_does(tmp_path, grid, dtype, suffix, compress):
    array = voxels(grid.size, dtype)
    path = tmp_path / f"image{suffix}"
    (tmp_path / "image.nii").unlink(missing_ok=True)  # ITK would take the voxels of image.nii.gz from it
    sitk.WriteImage(itk_image(array, grid), str(path), useCompression=compress)
    volume = read_volume(path)
    assert volume.array.dtype == array.dtype and volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, array)
    itk = sitk.ReadImage(str(path))
    np.testing.assert_allclose(volume.grid.spacing, itk.GetSpacing(), rtol=2e-6)
    np.testing.assert_allclose(volume.grid.origin, itk.GetOrigin(), rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(np.ravel(volume.grid.direction), itk.GetDirection(), atol=2e-6)
    assert (volume.name, volume.warnings) == ("image", [])


@fast
@given(
    grids(), st.sampled_from(DTYPES), st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]), st.sampled_from("<>")
)
def test_nifti_is_read_as_nibabel_does(tmp_path, grid, dtype, kind, order):
    array = voxels(grid.size, dtype)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(dtype)
    nibabel.save(kind(array, RAS @ grid.affine, header, dtype=array.dtype), tmp_path / "image.nii.gz")
    volume, expected = read_volume(tmp_path / "image.nii.gz"), nibabel.load(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.grid.affine, RAS @ expected.affine, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi])
@pytest.mark.parametrize("hand", [1, -1])
def test_the_quaternion_form_counts_where_there_is_no_sform(tmp_path, angle, hand):
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, hand]]
    image = nifti(voxels((3, 9, 7)), make_grid(direction=turn))
    image.header.set_sform(None, 0)
    image.header.set_qform(RAS @ make_grid(direction=turn).affine, 1)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").grid.affine, make_grid(direction=turn).affine, atol=1e-5)


def test_the_sform_is_preferred_to_pixdim_and_quaternion(tmp_path):
    image = nifti(voxels((3, 9, 7)), make_grid(spacing=(1, 2, 3), direction=rotation(1)))
    image.header.set_qform(np.diag([5, 5, 5, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    grid = read_volume(tmp_path / "a.nii").grid
    np.testing.assert_allclose(grid.spacing, (1, 2, 3), rtol=1e-6)
    np.testing.assert_allclose(RAS @ grid.affine, nibabel.load(tmp_path / "a.nii").affine, atol=1e-12)


def test_without_either_form_a_nifti_lies_where_itk_puts_it(tmp_path):
    image = nibabel.Nifti1Image(voxels((3, 9, 7)), None)
    image.header["pixdim"][1:4] = 1, 2, 3
    nibabel.save(image, tmp_path / "a.nii")
    itk, grid = sitk.ReadImage(str(tmp_path / "a.nii")), read_volume(tmp_path / "a.nii").grid
    assert grid == Grid(
        (3, 9, 7), itk.GetSpacing(), itk.GetOrigin(), tuple(map(tuple, np.reshape(itk.GetDirection(), (3, 3))))
    )


def test_meters_become_millimeters(tmp_path):
    image = nifti(voxels((3, 9, 7)), make_grid(spacing=(0.001, 0.002, 0.003), origin=(0.1, 0, 0)), xyzt_units=1)
    nibabel.save(image, tmp_path / "a.nii")
    grid = read_volume(tmp_path / "a.nii").grid
    np.testing.assert_allclose(grid.spacing + grid.origin, (1, 2, 3, 100, 0, 0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("slope, intercept", [(2.5, -10.0), (0.0, 7.0), (float("nan"), 0.0)])
def test_scaled_voxels_are_read_as_nibabel_does(tmp_path, slope, intercept):
    raw = bytearray(nifti(voxels((3, 9, 7))).to_bytes())
    raw[112:120] = struct.pack("<2f", slope, intercept)
    (tmp_path / "a.nii").write_bytes(raw)
    np.testing.assert_allclose(
        read_volume(tmp_path / "a.nii").array, nibabel.load(tmp_path / "a.nii").get_fdata(), rtol=1e-6
    )


def test_a_gzip_file_of_many_members_is_read(tmp_path):
    array = voxels((30, 90, 70))
    raw = nifti(array).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(b"".join(gzip.compress(raw[at : at + 9999]) for at in range(0, len(raw), 9999)))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, array)


# ---- frames ----------------------------------------------------------------------------------------------------------


def write_frames(path, array):
    """array: [i, j, k, frame]"""
    if ".nii" in path.name:
        nibabel.save(nifti(array), path)
    elif path.name == "interleaved.nrrd":
        write_nrrd(path, array.transpose(3, 0, 1, 2), kinds="list domain domain domain", **DIRECTIONS)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array.T, isVector=False), str(path))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "interleaved.nrrd", "a.mha"])
def test_one_frame_of_several_must_be_chosen(tmp_path, name):
    array = voxels((3, 9, 7, 4))
    write_frames(tmp_path / name, array)
    for frame in range(4):
        np.testing.assert_array_equal(read_volume(tmp_path / name, frame=frame).array, array[..., frame])
    with pytest.raises(BadInput, match=f"{name} holds 4 frames; choose one with --frame, 0 to 3"):
        read_volume(tmp_path / name)
    for wrong in (4, -1):
        with pytest.raises(BadInput, match=f"no frame {wrong}"):
            read_volume(tmp_path / name, frame=wrong)


def test_a_single_frame_needs_no_choice(tmp_path):
    nibabel.save(nifti(voxels((3, 9, 7, 1))), tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").array.shape == (3, 9, 7)
    assert read_volume(tmp_path / "a.nii", frame=0).array.shape == (3, 9, 7)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_an_image_of_two_dimensions_is_a_single_slice(tmp_path, suffix):
    image = sitk.GetImageFromArray(voxels((9, 3)))
    image.SetSpacing((0.5, 2))
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(volume.array[:, :, 0].T, voxels((9, 3)))
    assert volume.grid.size == (3, 9, 1) and volume.grid.spacing == (0.5, 2, 1)


# ---- NRRD in its variants --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("data", ["", "voxels.raw"])
def test_nrrd_encodings_attached_and_detached(tmp_path, encoding, data):
    array = voxels((3, 9, 7))
    write_nrrd(tmp_path / "a.nrrd", array, encoding, data=data)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").array, array)


@pytest.mark.parametrize("skip", ["4", "-1"])
def test_nrrd_bytes_to_skip(tmp_path, skip):
    write_nrrd(tmp_path / "a.nrrd", voxels((3, 9, 7)), prefix=b"junk", **{"byte skip": skip})
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").array, voxels((3, 9, 7)))


@pytest.mark.parametrize(
    "space, expected",
    [
        ("left-posterior-superior", (1, 2, 3)),
        ("LPS", (1, 2, 3)),
        ("right-anterior-superior", (-1, -2, 3)),
        ("RAS", (-1, -2, 3)),
        ("LAS", (1, -2, 3)),
    ],
)
def test_nrrd_spaces(tmp_path, space, expected):
    fields = {"space": space, "space directions": "(1,0,0) (0,1,0) (0,0,1)", "space origin": "(1, 2, 3)"}
    write_nrrd(tmp_path / "a.nrrd", voxels((3, 9, 7)), **fields)
    assert read_volume(tmp_path / "a.nrrd").grid.origin == expected
    assert sitk.ReadImage(str(tmp_path / "a.nrrd")).GetOrigin() == expected


def test_nrrd_with_spacings_alone(tmp_path):
    write_nrrd(tmp_path / "a.nrrd", voxels((3, 9, 7)), spacings="0.5 0.25 3")
    assert read_volume(tmp_path / "a.nrrd").grid.spacing == (0.5, 0.25, 3)


PLACES = [
    {"axis mins": "1 2 3", "spacings": "1 2 3"},
    {"axis mins": "1 2 3", "spacings": "1 2 3", "centers": "node node node"},
    {"axis mins": "1 2 3", "spacings": "1 2 3", "centers": "cell cell cell"},
    {"spacings": "nan 2 3"},
    {"space": "LPS"},
    {"space dimension": "3", "space directions": "(1,0,0) (0,2,0) (0,0,3)", "space origin": "(1,2,3)"},
    {"space": "scanner-xyz", "space directions": "(0,1,0) (2,0,0) (0,0,-3)", "space origin": "(1,2,3)"},
    {"space": "3D-right-handed", "space directions": "(1,0,0) (0,2,0) (0,0,3)", "space origin": "(1,2,3)"},
    {"space": "RAS", "space directions": "(0,0,1) (0,2,0) (-3,0,0)", "kinds": "space space space"},
    {"line skip": "0", "thicknesses": "nan nan 3", "labels": '"a" "b" "c"'},
]


@pytest.mark.parametrize("fields", PLACES, ids=str)
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_nrrd_lies_where_itk_puts_it(tmp_path, fields, encoding):
    path = tmp_path / "a.nrrd"
    write_nrrd(path, voxels((3, 9, 7)), encoding, **fields)
    volume, itk = read_volume(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(itk).T)
    np.testing.assert_allclose(volume.grid.spacing, itk.GetSpacing(), rtol=1e-15)
    np.testing.assert_allclose(volume.grid.origin, itk.GetOrigin(), rtol=1e-15)
    np.testing.assert_allclose(np.ravel(volume.grid.direction), itk.GetDirection(), atol=1e-15)


def test_bzip2_and_frames_between_the_axes_are_read(tmp_path):
    array = voxels((3, 2, 9, 7))
    fields = {"space": "LPS", "space directions": "(1,0,0) none (0,2,0) (0,0,3)", "kinds": "domain list domain domain"}
    write_nrrd(tmp_path / "a.nrrd", array, "bzip2", **fields)
    for frame in range(2):
        np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd", frame=frame).array, array[:, frame])


# ---- voxels that are not finite --------------------------------------------------------------------------------------


def test_voxels_that_are_not_finite_become_the_darkest_with_a_warning(tmp_path):
    array = np.full((3, 9, 7), 5, "f4")
    array[0, 0, 0], array[1, 1, :3], array[2, 2, 2] = np.nan, (np.inf, -np.inf, np.nan), -2
    nibabel.save(nifti(array), tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert [notice.code for notice in volume.warnings] == ["non-finite"]
    assert volume.warnings[0].message.startswith("4 voxels of a.nii")
    assert volume.array[0, 0, 0] == -2 and (volume.array[1, 1, :3] == -2).all()
    assert (volume.array == 5).sum() == 3 * 9 * 7 - 5


# ---- refusals --------------------------------------------------------------------------------------------------------


def flat(column):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:, 1] = column
    return affine


def refused_files(folder):
    """(file, what the refusal says): everything that is no honest volume."""
    good = nifti(voxels((3, 9, 7))).to_bytes()
    size = len(good)

    def raw(name, content):
        (folder / name).write_bytes(content)
        return folder / name

    def edited(name, offset, form, *values):
        return raw(name, good[:offset] + struct.pack(form, *values) + good[offset + struct.calcsize(form) :])

    def itk(name, image):
        sitk.WriteImage(image, str(folder / name))
        return folder / name

    def text(name, source, old, new):
        content = (folder / source).read_bytes()
        assert old in content
        return raw(name, content.replace(old, new))

    rgb = sitk.GetImageFromArray(np.zeros((7, 9, 3, 3), np.uint8), isVector=True)
    two = sitk.GetImageFromArray(np.zeros((7, 9, 3, 2), np.int16), isVector=True)
    plain = sitk.GetImageFromArray(np.ones((7, 9, 3), np.int16))
    itk("plain.nrrd", plain), itk("plain.mha", plain)
    sheared = np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], "<f4")
    yield folder / "missing.nii", "no such file or folder"
    yield raw("photo.jpg", b"\xff\xd8\xff"), "not a volume"
    yield raw("notes", b""), "is empty"
    for suffix in SUFFIXES:
        yield raw(f"empty{suffix}", b""), "is empty"
        yield raw(f"text{suffix}", b"no image at all\n" * 50), "not a NIfTI|not an image|not a MetaImage"
        yield raw(f"binary{suffix}", bytes(range(256)) * 9), "not a NIfTI|not an image|not a MetaImage|damaged header"
    yield raw("cut.nii", good[:-1]), "truncated"
    yield raw("cut-header.nii", good[:200]), "not a NIfTI|damaged header"
    yield raw("cut.nii.gz", gzip.compress(good)[:-9]), "truncated"
    yield raw("cut-checksum.nii.gz", gzip.compress(good)[:-3]), "truncated"
    yield raw("short.nii.gz", gzip.compress(good[:-1])), "truncated"
    yield raw("wrong-checksum.nii.gz", gzip.compress(good)[:-8] + b"\1\2\3\4" + gzip.compress(good)[-4:]), "damaged"
    for source in ("plain.nrrd", "plain.mha"):
        yield raw(f"cut-{source}", (folder / source).read_bytes()[:-1]), "truncated"
    yield edited("huge.nii", 40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1), "larger than any patient"
    yield raw("huge.nii.gz", gzip.compress((folder / "huge.nii").read_bytes())), "larger than any patient"
    yield edited("large.nii", 40, "<8h", 3, 600, 600, 600, 1, 1, 1, 1), "truncated"
    yield raw("large.nii.gz", gzip.compress((folder / "large.nii").read_bytes())), "truncated"
    yield edited("no-voxels.nii", 40, "<8h", 3, 3, 0, 7, 1, 1, 1, 1), "no voxels"
    yield edited("negative.nii", 40, "<8h", 3, 3, -9, 7, 1, 1, 1, 1), "no voxels"
    yield edited("dimensions.nii", 40, "<8h", 9, 3, 9, 7, 1, 1, 1, 1), "damaged header"
    yield edited("frames.nii", 40, "<8h", 4, 3, 3, 7, 3, 1, 1, 1), "holds 3 frames"
    yield edited("vectors.nii", 40, "<8h", 5, 3, 3, 7, 1, 3, 1, 1), "3 channels"
    yield edited("rgb.nii", 70, "<2h", 128, 24), "color image"
    yield edited("complex.nii", 70, "<2h", 32, 64), "no real numbers"
    yield edited("sheared.nii", 280, "<12f", *sheared.ravel()), "sheared"
    yield edited("zero.nii", 280, "<12f", 0, 0, 0, 0, *sheared.ravel()[4:]), "spacing of zero|sheared"
    yield edited("all-zero.nii", 280, "<12f", *[0] * 12), "spacing of zero"
    yield edited("nan.nii", 280, "<12f", float("nan"), *sheared.ravel()[1:]), "not a number"
    yield edited("flat.nii", 280, "<12f", 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0), "sheared"
    yield raw("nan-spacing.nii", good[:76] + struct.pack("<4f", 1, float("nan"), 1, 1) + good[92:252]
              + struct.pack("<2h", 1, 0) + good[256:]), "not a number"  # fmt: skip
    yield raw("zero-spacing.nii", good[:76] + struct.pack("<4f", 1, 0, 1, 1) + good[92:252]
              + struct.pack("<2h", 1, 0) + good[256:]), "spacing of zero"  # fmt: skip
    for suffix in (".nii", ".nrrd", ".mha"):
        yield itk(f"color{suffix}", rgb), "color image|3 channels"
        yield itk(f"channels{suffix}", two), "2 channels"
    yield text("sheared.nrrd", "plain.nrrd", b"(0,1,0)", b"(.2,1,0)"), "sheared"
    yield text("zero.nrrd", "plain.nrrd", b"(0,1,0)", b"(0,0,0)"), "spacing of zero"
    yield text("nan.nrrd", "plain.nrrd", b"(0,1,0)", b"(0,nan,0)"), "not a number"
    yield text("block.nrrd", "plain.nrrd", b"type: short", b"type: block"), "no real numbers"
    yield text("no-sizes.nrrd", "plain.nrrd", b"sizes: 3 9 7", b"content: none"), "damaged header"
    yield text("two-sizes.nrrd", "plain.nrrd", b"sizes: 3 9 7", b"sizes: 3 9"), "damaged header"
    yield text("ascii.nrrd", "plain.nrrd", b"encoding: raw", b"encoding: txt"), "stores its voxels as 'txt'"
    yield (
        raw("no-data.nhdr", (folder / "plain.nrrd").read_bytes().replace(b"raw\n", b"raw\ndata file: gone.raw\n")),
        "gone",
    )
    yield text("sheared.mha", "plain.mha", b"= 1 0 0 0 1 0", b"= 1 0 0 .2 1 0"), "sheared"
    yield text("zero.mha", "plain.mha", b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 0 1"), "spacing of zero"
    yield text("nan.mha", "plain.mha", b"Offset = 0 0 0", b"Offset = 0 nan 0"), "not a number"
    yield text("list.mhd", "plain.mha", b"ElementDataFile = LOCAL", b"ElementDataFile = LIST"), "does not name one file"
    nibabel.save(nifti(np.full((3, 9, 7), np.nan, "f4")), folder / "all-nan.nii")
    yield folder / "all-nan.nii", "no finite voxel"
    assert size > 352


def test_what_is_no_honest_volume_is_refused_in_one_line_that_names_it(tmp_path):
    cases = list(refused_files(tmp_path))
    assert len(cases) > 60
    for path, fault in cases:
        try:
            volume = read_volume(path)
        except BadInput as refusal:
            assert re.search(fault, str(refusal)), (path.name, str(refusal))
            assert path.name in str(refusal) and refusal.hint and "\n" not in str(refusal)
        else:
            pytest.fail(f"{path.name} was read: {volume.grid}")


@fast
@given(st.sampled_from(SUFFIXES[:3] + [".mha"]), st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_damaged_file_is_read_or_refused_and_never_a_crash(tmp_path, suffix, place, value, cut):
    path = tmp_path / f"image{suffix}"
    sitk.WriteImage(itk_image(voxels((3, 9, 7)), make_grid()), str(path))
    content = bytearray(path.read_bytes())
    place %= min(len(content), 500)
    content[place] = value
    path.write_bytes(content[:place] if cut else content)
    try:
        read_volume(path)
    except BadInput:
        pass


def test_a_series_of_a_plain_file_is_a_mistake(tmp_path):
    nibabel.save(nifti(voxels((3, 9, 7))), tmp_path / "a.nii")
    with pytest.raises(BadInput, match="no DICOM"):
        read_volume(tmp_path / "a.nii", series="1.2.3")


# ---- names and folders -----------------------------------------------------------------------------------------------


def test_names_are_split_from_their_endings():
    names = ["a/knee.nii.gz", "knee.1.NII", "x.seg.nrrd", "x.nrrd", "notes.txt", "plain"]
    expected = [
        ("knee", ".nii.gz"),
        ("knee.1", ".nii"),
        ("x", ".seg.nrrd"),
        ("x", ".nrrd"),
        ("notes.txt", ""),
        ("plain", ""),
    ]
    assert [split_name(name) for name in names] == expected


def test_a_batch_folders_inputs_are_its_volumes_without_results(tmp_path):
    for name in ["b.nii", "a.nii.gz", "c.MHA", "a_bones.nii.gz", "d.seg.nrrd", "notes.txt", ".hidden.nii", "c.raw"]:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.nii").write_bytes(b"x")
    (tmp_path / "exam").mkdir()
    (tmp_path / "exam" / "IM1").write_bytes(bytes(128) + b"DICM")
    assert [path.name for path in find_inputs(tmp_path)] == ["a.nii.gz", "b.nii", "c.MHA", "exam"]
    assert (
        is_dicom_series(tmp_path / "exam") and not is_dicom_series(tmp_path) and not is_dicom_series(tmp_path / "b.nii")
    )
