import os
import resource
import subprocess
import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from grids import grids, make_grid, random_labels, rotation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from PedBoneSegLib.anatomy import JointTable, joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.names import check_output, map_suffixes
from PedBoneSegLib.formats.reading import read_volume
from PedBoneSegLib.formats.registry import written_suffixes
from PedBoneSegLib.formats.segments import read_segmentation
from PedBoneSegLib.formats.writing import disk_array, write_labels, write_map

KNEE = joint_table("knee")
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
fast = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def itk_geometry(path):
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


# ---- the input's grid comes back -------------------------------------------------------------------------------------


@fast
@given(grids(), st.sampled_from(written_suffixes()))
def test_labels_come_back_on_their_grid(tmp_path, grid, suffix):
    path = tmp_path / f"out{len(suffix)}{suffix}"  # ITK takes the voxels of a.nii.gz from a.nii where both are there
    labels = random_labels(grid.size, 4)
    write_labels(path, labels, grid, KNEE, "left")
    single = 1e-6 if ".nii" in suffix else 1e-15  # NIfTI-1 holds single precision
    again = read_volume(path)
    np.testing.assert_array_equal(again.array, labels)
    np.testing.assert_allclose(again.grid.affine, grid.affine, rtol=single, atol=100 * single)
    size, spacing, origin, direction = itk_geometry(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, labels)
    assert size == grid.size
    np.testing.assert_allclose(spacing, grid.spacing, rtol=2 * single)
    np.testing.assert_allclose(origin, grid.origin, rtol=single, atol=100 * single)
    np.testing.assert_allclose(direction, np.ravel(grid.direction), atol=4 * single)


@fast
@given(grids(), st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1), (2, 3), (4, 1)]), st.booleans(), st.sampled_from("<>"))
def test_a_nifti_inputs_placement_comes_back_to_the_bit(tmp_path, grid, codes, differ, order):
    """Whichever of the header's placements a reader prefers: it finds the same one in the result."""
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(random_labels(grid.size, 9).astype(np.int16), RAS @ grid.affine, header)
    other = RAS @ make_grid(grid.size, grid.spacing, (1, 2, 3), rotation(7)).affine if differ else RAS @ grid.affine
    image.set_qform(other, codes[0])
    image.set_sform(RAS @ grid.affine, codes[1])
    nibabel.save(image, tmp_path / "in.nii")
    volume = read_volume(tmp_path / "in.nii")
    write_labels(tmp_path / "out.nii.gz", random_labels(grid.size, 4), volume.grid, KNEE)
    one, two = nibabel.load(tmp_path / "in.nii"), nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(one.affine, two.affine)
    np.testing.assert_array_equal(one.header.get_qform(), two.header.get_qform())
    assert (one.header["qform_code"], one.header["sform_code"]) == (two.header["qform_code"], two.header["sform_code"])
    assert itk_geometry(tmp_path / "in.nii") == itk_geometry(tmp_path / "out.nii.gz")


@fast
@given(grids(), st.sampled_from([".nrrd", ".mha"]))
def test_an_itk_inputs_grid_comes_back(tmp_path, grid, suffix):
    image = sitk.GetImageFromArray(random_labels(grid.size, 9).astype(np.float32).T)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(np.ravel(grid.direction).tolist())
    sitk.WriteImage(image, str(tmp_path / f"in{suffix}"))
    write_labels(tmp_path / "out.nrrd", random_labels(grid.size, 4), read_volume(tmp_path / f"in{suffix}").grid, KNEE)
    one, two = itk_geometry(tmp_path / f"in{suffix}"), itk_geometry(tmp_path / "out.nrrd")
    assert one[0] == two[0]
    for ours, theirs in zip(two[1:], one[1:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14, atol=1e-14)


def test_a_grid_that_is_no_longer_the_files_is_not_written_with_the_files_header(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 9, 7), np.int16), np.eye(4)), tmp_path / "in.nii")
    grid = read_volume(tmp_path / "in.nii").grid
    moved = type(grid)(grid.size, grid.spacing, (40.0, 50.0, 60.0), grid.direction, grid.nifti)
    write_labels(tmp_path / "out.nii", random_labels(grid.size, 4), moved, KNEE)
    np.testing.assert_allclose(read_volume(tmp_path / "out.nii").grid.origin, (40, 50, 60))


def test_the_same_labels_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_labels(tmp_path / f"{name}.nii.gz", random_labels((3, 9, 7), 4), make_grid(), KNEE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_an_axis_too_long_for_nifti_is_refused(tmp_path):
    with pytest.raises(BadInput, match="write .nrrd instead"):
        write_labels(tmp_path / "a.nii", np.zeros((40_000, 1, 1), np.uint8), make_grid((40_000, 1, 1)), KNEE)
    assert not list(tmp_path.iterdir())


def test_labels_that_do_not_fit_the_grid_are_a_bug():
    with pytest.raises(ValueError, match="does not fit"):
        write_labels("a.nii", np.zeros((9, 3, 7), np.uint8), make_grid(), KNEE)
    with pytest.raises(ValueError, match="does not fit"):
        write_labels("a.nii", np.zeros((3, 9, 7), np.int16), make_grid(), KNEE)


# ---- maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", map_suffixes())
@pytest.mark.parametrize("count", [1, 4])
def test_maps_hold_a_component_a_bone(tmp_path, suffix, count):
    size, path = (3, 9, 37), tmp_path / f"map{suffix}"
    grid = make_grid(size, direction=rotation(2))
    components = disk_array(tmp_path, (count, *size))
    components[:] = np.random.default_rng(0).integers(0, 256, components.shape)
    write_map(path, components, grid, KNEE.names[:count])
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == count and image.GetPixelIDTypeAsString().endswith(
        "unsigned integer"
    )
    array = sitk.GetArrayFromImage(image).reshape(*size[::-1], count)
    np.testing.assert_array_equal(array.T, components)
    np.testing.assert_allclose(image.GetDirection(), np.ravel(grid.direction), atol=1e-6)
    if ".nii" in suffix:
        loaded = nibabel.load(path)
        assert loaded.shape == ((*size, 1, count) if count > 1 else size)
        assert loaded.header["descrip"].item().decode() == " ".join(KNEE.names[:count])
    if suffix == ".nrrd" and count > 1:
        assert [image.GetMetaData(f"Component{index}") for index in range(4)] == list(KNEE.names)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_an_array_on_disk_starts_empty_and_leaves_nothing(tmp_path):
    array = disk_array(tmp_path, (3, 5, 7))
    assert array.shape == (3, 5, 7) and not array.any()
    array[1] = 255
    assert array.sum() == 5 * 7 * 255
    assert not list(tmp_path.iterdir())


# ---- full disks and other obstacles ----------------------------------------------------------------------------------

WRITERS = {
    "labels": "write_labels(path, np.random.default_rng(0).integers(0, 4, (60, 60, 60)).astype(np.uint8), grid, table)",
    "map": "write_map(path, np.random.default_rng(0).integers(0, 255, (2, 60, 60, 60)).astype(np.uint8), grid, 'ab')",
    "disk": "disk_array(Path(path).parent, (100, 100, 100))",
}


@pytest.mark.parametrize("suffix", written_suffixes())
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_no_file(tmp_path, writer, suffix):
    """A limit on file sizes stands for the full disk; it holds for root too."""
    code = f"""
import numpy as np
from pathlib import Path
from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.writing import disk_array, write_labels, write_map
from PedBoneSegLib.volume import Grid
path, table = {str(tmp_path / f"out{suffix}")!r}, joint_table("knee")
grid = Grid((60, 60, 60), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
try:
    {WRITERS[writer]}
except BadInput as error:
    print(error)
"""
    limit = 20_000
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert result.stderr == ""
    assert str(tmp_path) in result.stdout and "File too large; free some space" in result.stdout
    assert result.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_stood_there_before_survives_a_failure(tmp_path):
    path = tmp_path / "out.nii"
    path.write_text("mine")
    with pytest.raises(BadInput):
        write_labels(path, np.zeros((40_000, 1, 1), np.uint8), make_grid((40_000, 1, 1)), KNEE)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    "output, fault",
    [
        ("out.txt", "ending is none that can be written; use one of .nii.gz, .nii, .seg.nrrd, .nrrd"),
        ("out", "ending is none that can be written"),
        ("out.mha", "ending is none that can be written"),
        ("in.nii", "is the input itself"),
        ("sub/../in.nii", "is the input itself"),
        ("link.nii", "is the input itself"),
        ("old.nii", "exists already; give another name, or --overwrite"),
        ("gone/out.nii", "there is no such folder"),
        ("old.nii/out.nii", "is a file, not a folder"),
        ("folder.nii", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_work_starts(tmp_path, output, fault):
    for name in ("in.nii", "old.nii"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("sub", "folder.nii"):
        (tmp_path / name).mkdir()
    (tmp_path / "link.nii").symlink_to(tmp_path / "in.nii")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput) as refusal:
        check_output(tmp_path / output, tmp_path / "in.nii")
    assert fault in str(refusal.value)
    if output != "old.nii":
        with pytest.raises(BadInput):
            check_output(tmp_path / output, tmp_path / "in.nii", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before
    check_output(tmp_path / "new.nii", tmp_path / "in.nii")
    check_output(tmp_path / "old.nii", tmp_path / "in.nii", overwrite=True)


def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere
        pytest.skip("this user may write everywhere")
    with pytest.raises(BadInput, match="is not writable"):
        check_output(folder / "out.nii")


def test_a_map_is_no_segmentation(tmp_path):
    with pytest.raises(BadInput, match="ending"):
        check_output(tmp_path / "map.seg.nrrd", suffixes=map_suffixes())


# ---- segmentations as Slicer reads and writes them -------------------------------------------------------------------


@pytest.fixture(scope="module")
def slicer():
    return pytest.importorskip("slicer")


@pytest.fixture
def scene(slicer):
    return slicer.vtkMRMLScene()


def load(slicer, scene, path):
    node, storage = slicer.vtkMRMLSegmentationNode(), slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return node, storage


def segment_array(slicer, segment):
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    image.DeepCopy(segment.GetRepresentation("Binary labelmap"))
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions(), order="F")
    return array == segment.GetLabelValue(), image


@pytest.mark.parametrize("side", ["right", "left", None])
@pytest.mark.parametrize("turn", [np.eye(3), rotation(4), rotation(4) * [1, 1, -1]])
def test_slicer_shows_names_colors_terminology_and_the_exact_place(tmp_path, slicer, scene, side, turn):
    import vtk

    grid = make_grid((12, 9, 7), (0.5, 0.75, 3.0), direction=turn)
    labels = random_labels(grid.size, 2)  # no fibula, no patella
    write_labels(tmp_path / "knee.seg.nrrd", labels, grid, KNEE, side)
    core = load(slicer, scene, tmp_path / "knee.seg.nrrd")[0].GetSegmentation()
    assert [core.GetNthSegmentID(index) for index in range(core.GetNumberOfSegments())] == list(KNEE.names)
    modifier = {"right": "SCT^24028007^Right", "left": "SCT^7771000^Left", None: "^^"}[side]
    for bone in KNEE.bones:
        segment = core.GetSegment(bone.name)
        assert segment.GetName() == (f"{side.capitalize()} {bone.name}" if side else bone.name.capitalize())
        np.testing.assert_allclose(segment.GetColor(), np.array(bone.color) / 255, atol=1e-6)
        entry = f"SCT^123037004^Anatomical Structure~SCT^{bone.type.value}^{bone.type.meaning}~{modifier}~"
        assert entry in segment.GetTerminology()
        status = vtk.reference("")
        assert segment.GetTag("Segmentation.Status", status) and status.get() == "inprogress"
        assert segment.GetLabelValue() == bone.label
    mask, image = segment_array(slicer, core.GetSegment("tibia"))
    np.testing.assert_array_equal(mask, labels == 2)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    np.testing.assert_allclose(RAS @ to_ras, grid.affine, rtol=1e-12, atol=1e-12)


def test_what_slicer_saves_again_is_read_with_its_bones(tmp_path, slicer, scene):
    grid = make_grid((12, 9, 7), direction=rotation(4))
    labels = np.zeros(grid.size, np.uint8)
    labels[3:8, 2:5, 1:6], labels[9:11, 2:8, 3:4], labels[0, 0, 0] = 1, 2, 3
    write_labels(tmp_path / "in.seg.nrrd", labels, grid, KNEE, "right")
    node, storage = load(slicer, scene, tmp_path / "in.seg.nrrd")
    node.GetSegmentation().RemoveSegment("fibula")
    node.GetSegmentation().ReorderSegments(["patella", "tibia", "femur"])
    node.GetSegmentation().GetSegment("femur").SetName("my own name")
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    assert storage.WriteData(node)
    again, new_grid, table, side = read_segmentation(tmp_path / "out.seg.nrrd")
    assert (table, side) == (KNEE, "right")
    offset = np.linalg.inv(grid.affine) @ [*new_grid.origin, 1]  # Slicer crops to what is there
    starts = offset[:3].round().astype(int)
    box = tuple(slice(start, start + extent) for start, extent in zip(starts, again.shape, strict=True))
    expected = np.where(labels == 3, 0, labels)
    np.testing.assert_array_equal(again, expected[box])
    assert (again > 0).sum() == (expected > 0).sum()


def make_segmentation(slicer, path, segments, shape=(6, 5, 4)):
    """segments: (name, terminology or "", mask)"""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    scene, node = slicer.vtkMRMLScene(), slicer.vtkMRMLSegmentationNode()
    scene.AddNode(node)
    for name, entry, mask in segments:
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(shape)
        scalars = numpy_to_vtk(mask.astype(np.uint8).ravel(order="F"), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
        image.GetPointData().SetScalars(scalars)
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.AddRepresentation("Binary labelmap", image)
        if entry:
            segment.SetTerminology(entry)
        node.GetSegmentation().AddSegment(segment)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def boxes(shape=(6, 5, 4)):
    one, two = np.zeros(shape, bool), np.zeros(shape, bool)
    one[:3], two[4:] = True, True
    return one, two


def test_a_hand_made_segmentation_is_known_by_codes_or_names(tmp_path, slicer):
    one, two = boxes()
    talus = "list~SCT^123037004^Anatomical Structure~SCT^67453005^Talus~SCT^7771000^Left~~^^~^^"
    make_segmentation(slicer, tmp_path / "a.seg.nrrd", [("left CALCANEUS", "", one), ("Segment_1", talus, two)])
    labels, _, table, side = read_segmentation(tmp_path / "a.seg.nrrd")
    assert (table.joint, side) == ("ankle", "left")
    assert (labels == 1).sum() == one.sum() and (labels == 2).sum() == two.sum()
    with pytest.raises(BadInput, match="none of the bones humerus, scapula"):
        read_segmentation(tmp_path / "a.seg.nrrd", "shoulder")


def test_segments_of_no_known_joint_keep_their_own_names(tmp_path, slicer):
    one, two = boxes()
    make_segmentation(slicer, tmp_path / "a.seg.nrrd", [("Right ulna", "", one), ("Radius / r.", "", two)])
    labels, _, table, side = read_segmentation(tmp_path / "a.seg.nrrd")
    assert table.names == ("ulna", "Radius   r") and side is None
    assert (labels == 1).sum() == one.sum() and (labels == 2).sum() == two.sum()


def test_both_sides_in_one_segmentation_stay_apart(tmp_path, slicer):
    one, two = boxes()
    make_segmentation(slicer, tmp_path / "a.seg.nrrd", [("Left femur", "", one), ("Right femur", "", two)])
    labels, _, table, side = read_segmentation(tmp_path / "a.seg.nrrd")
    assert table.names == ("left femur", "right femur") and side is None
    assert (labels == 1).sum() == one.sum() and (labels == 2).sum() == two.sum()
    with pytest.raises(BadInput, match="two segments that are the femur"):
        read_segmentation(tmp_path / "a.seg.nrrd", "knee")


def test_layers_that_overlap_are_refused(tmp_path, slicer):
    one, _ = boxes()
    make_segmentation(slicer, tmp_path / "a.seg.nrrd", [("femur", "", one), ("tibia", "", one)])
    with pytest.raises(BadInput, match="overlapping segments"):
        read_segmentation(tmp_path / "a.seg.nrrd")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_plain_label_map_needs_its_joint(tmp_path, suffix):
    path, labels = tmp_path / f"a{suffix}", random_labels((3, 9, 7), 4)
    write_labels(path, labels, make_grid(), KNEE, "right")
    with pytest.raises(BadInput, match="does not name its bones; say .* with --joint"):
        read_segmentation(path)
    again, grid, table, side = read_segmentation(path, "knee")
    np.testing.assert_array_equal(again, labels)
    assert (table, side) == (KNEE, None)
    own = JointTable("elbow", KNEE.bones)
    assert read_segmentation(path, own)[2] is own
    with pytest.raises(BadInput, match="holds the values 0, 1, 2, 3, 4; the labels of the shoulder are 0 to 2"):
        read_segmentation(path, "shoulder")


def test_labels_stored_as_floats_are_labels_and_an_image_is_not(tmp_path):
    nibabel.save(nibabel.Nifti1Image(random_labels((3, 9, 7), 4).astype("f4"), np.eye(4)), tmp_path / "a.nii")
    assert read_segmentation(tmp_path / "a.nii", "knee")[0].dtype == np.uint8
    nibabel.save(nibabel.Nifti1Image(np.full((3, 9, 7), 1.5, "f4"), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(BadInput, match="holds the values 1.5"):
        read_segmentation(tmp_path / "b.nii", "knee")
    for name, fault in (("gone.nii", "no such file"), ("a.txt", "is not a segmentation")):
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(BadInput, match=fault):
            read_segmentation(tmp_path / name, "knee")


@pytest.mark.parametrize(
    "key, value, fault",
    [
        ("Segment1_LabelValue", "two", "damaged header"),
        ("Segment1_Layer", "3", "lacks the layer of 'tibia'"),
        ("Segment1_Layer", "-1", "lacks the layer of 'tibia'"),
        ("Segment1_Color", "red", "damaged header"),
    ],
)
def test_a_damaged_segmentation_is_refused(tmp_path, key, value, fault):
    path = tmp_path / "a.seg.nrrd"
    write_labels(path, random_labels((3, 9, 7), 4), make_grid(), KNEE, "left")
    header, voxels = path.read_bytes().split(b"\n\n", 1)
    lines = [f"{key}:={value}".encode() if line.startswith(key.encode()) else line for line in header.split(b"\n")]
    path.write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
    with pytest.raises(BadInput, match=fault):
        read_segmentation(path)


@pytest.mark.parametrize("first", ["nrrd", "nifti", "metaimage"])
def test_formats_have_one_order_whichever_is_imported_first(first):
    code = f"import PedBoneSegLib.formats.kinds.{first}; from PedBoneSegLib.formats.registry import formats; "
    code += "print([known.name for known in formats()])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "['MetaImage', 'NIfTI', 'NRRD']"
