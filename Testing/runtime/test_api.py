"""The front door: every form of an image, what comes back, what is refused, and the package that pip installs."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from grids import rotation
from tiny import make_tiny_bundle

from PedBoneSegLib import api
from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput, BadModel

ROOT = Path(__file__).parents[2]
SIZE, SPACING, ORIGIN = (8, 40, 36), (3.5, 0.8, 0.9), (12.0, -30.0, 55.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return api.load(make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An oblique image, flipped along one axis, as SimpleITK holds it and on disk."""
    array = np.random.default_rng(0).integers(0, 900, SIZE).astype(np.int16)
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection((rotation(3) * [1, -1, 1]).ravel().tolist())
    path = tmp_path_factory.mktemp("image") / "knee.nii.gz"
    sitk.WriteImage(image, str(path))
    return image, path


@pytest.fixture(scope="module")
def bones(model, image):
    return model.segment(image[1], "knee")


def forms(image, path):
    loaded = nibabel.load(path)
    array = np.asanyarray(loaded.dataobj)
    return {
        "text": str(path), "path": path, "SimpleITK": image, "nibabel": loaded,
        "array": (array, loaded.affine),
        "big-endian, C order": (np.ascontiguousarray(array).astype(">i2"), loaded.affine),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["text", "path", "SimpleITK", "nibabel", "array", "big-endian, C order"])
def test_every_form_of_an_image_gives_the_same_labels_in_the_same_place(model, image, bones, form):
    found = model.segment(forms(*image)[form], "knee")
    assert found.labels.dtype == np.uint8 and found.labels.shape == SIZE and found.labels.any()
    np.testing.assert_array_equal(found.labels, bones.labels)
    np.testing.assert_allclose(found.affine, nibabel.load(image[1]).affine, atol=1e-4)
    np.testing.assert_allclose(found.affine, bones.affine, atol=1e-4)


def test_an_array_of_booleans_or_a_single_slice_is_an_image(model):
    mask = np.zeros((30, 30, 1), bool)
    mask[5:20, 5:20] = True
    assert model.segment((mask, np.diag([1, 1, 4, 1])), "knee").labels.shape == (30, 30, 1)


def test_a_dicom_folder(model, tmp_path):
    pytest.importorskip("pydicom")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    pixels = np.random.default_rng(1).integers(0, 900, (40, 36)).astype(np.int16)
    for number in range(4):
        slice_ = sitk.GetImageFromArray(pixels[None])
        keys = {
            "0008|0060": "MR", "0020|000e": "1.2.3", "0020|0013": str(number), "0020|0032": f"0\\0\\{4 * number}",
            "0020|0037": "1\\0\\0\\0\\1\\0", "0008|0018": f"1.2.3.{number}",
        }  # fmt: skip
        for key, value in keys.items():
            slice_.SetMetaData(key, value)
        writer.SetFileName(str(tmp_path / f"{number}.dcm"))
        writer.Execute(slice_)
    assert model.segment(tmp_path, "knee").labels.shape == (36, 40, 4)


def test_what_comes_back(model, bones):
    assert (bones.joint, bones.domain, bones.side, bones.device) == ("knee", "knee", None, "cpu")
    volumes = {
        name: (bones.labels == label).sum() * np.prod(SPACING) / 1000 for name, label in bones.table.labels.items()
    }
    assert bones.volumes_ml == pytest.approx(volumes) and list(bones.volumes_ml) == list(joint_table("knee").names)
    assert model.joints["knee"] == joint_table("knee").names and "tiny 1 on cpu" in repr(model)


def test_doubt_is_a_probability_and_nan_where_nobody_looked(model, image, bones):
    doubt = bones.doubt
    assert doubt.dtype == np.float32 and doubt.shape == SIZE
    np.testing.assert_array_equal(np.isnan(doubt), bones.uncertainty == 255)
    looked = ~np.isnan(doubt)
    assert looked.any() and (doubt[looked] >= 0).all() and (doubt[looked] <= 1).all()
    np.testing.assert_allclose(doubt[looked], bones.uncertainty[looked] / 254, rtol=1e-6)
    without = model.segment(image[1], "knee", doubt=False)
    assert without.doubt is None and without.probabilities is None
    np.testing.assert_array_equal(without.labels, bones.labels)


def test_probabilities_in_memory_and_on_disk(model, image, tmp_path):
    memory = model.segment(image[1], "knee", probabilities=True)
    disk = model.segment(image[1], "knee", probabilities=True, scratch=tmp_path)
    assert isinstance(disk.probabilities, np.memmap) and memory.probabilities.shape == (4, *SIZE)
    np.testing.assert_array_equal(memory.probabilities, disk.probabilities)
    memory.save_probabilities(tmp_path / "p.nrrd")
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.nrrd")))
    np.testing.assert_array_equal(written.transpose(3, 2, 1, 0), memory.probabilities)
    memory.save_uncertainty(tmp_path / "u.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(nibabel.load(tmp_path / "u.nii.gz").dataobj), memory.uncertainty)


def test_what_is_saved_lies_on_the_image(image, bones, tmp_path):
    bones.save(tmp_path / "knee.nii.gz")
    saved = nibabel.load(tmp_path / "knee.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), bones.labels)
    np.testing.assert_allclose(saved.affine, nibabel.load(image[1]).affine, atol=1e-5)
    as_sitk = bones.to_sitk()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(as_sitk).transpose(2, 1, 0), bones.labels)
    for method in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(as_sitk, method)(), getattr(image[0], method)(), atol=1e-5)
    with pytest.raises(BadInput, match="exists already"):
        bones.save(tmp_path / "knee.nii.gz")
    bones.save(tmp_path / "knee.nii.gz", overwrite=True)


def test_a_result_and_its_file_measure_the_same(bones, tmp_path):
    bones.save(tmp_path / "knee.seg.nrrd")
    measured, again = api.measure(bones), api.measure(tmp_path / "knee.seg.nrrd")
    assert measured.joint == again.joint == "knee" and list(measured) == list(joint_table("knee").names)
    for bone, values in measured.items():
        assert values["volume_ml"] == pytest.approx(bones.volumes_ml[bone])
        assert values["volume_ml"] == pytest.approx(again[bone]["volume_ml"], rel=1e-5)
    found = api.measure(bones, surfaces=tmp_path / "meshes")
    assert all(path.is_file() for path in found.surfaces.values())


def test_progress_is_told_and_stops_the_work(model, image):
    steps = []
    model.segment(image[1], "knee", progress=lambda fraction, stage: steps.append((fraction, stage)))
    assert steps[0] == (0.0, "reading") and steps == sorted(steps, key=lambda step: step[0]) and steps[-1][0] < 1

    def stop(fraction, stage):
        if stage == "segmenting":
            raise api.Cancelled()

    with pytest.raises(api.Cancelled):
        model.segment(image[1], "knee", progress=stop)


A = np.eye(4)


@pytest.mark.parametrize(("given", "said"), [
    (None, "the image is of the type NoneType; give a path, a DICOM folder, a SimpleITK or nibabel image, or a pair"),
    (np.zeros((3, 4, 5)), r"of the type ndarray with the shape \(3, 4, 5\); give .* a pair \(array"),
    ((np.zeros((3, 4)), A), r"2 dimensions \(shape \(3, 4\)\); give three"),
    ((np.zeros((3, 4, 5, 2)), A), "4 dimensions"),
    ((np.zeros((3, 4, 5), complex), A), "type complex128; give real numbers"),
    ((np.array([[["a"]]]), A), "give real numbers"),
    ((np.zeros((3, 4, 5)), np.eye(3)), r"affine of the array has the shape \(3, 3\).*4×4"),
    ((np.zeros((3, 4, 5)), "RAS"), "affine of the array has the shape"),
    ((np.zeros((3, 4, 5)), np.diag([1, 0, 1, 1])), "spacing of zero"),
    ((np.zeros((0, 4, 5)), A), "no voxels"),
    ("nowhere.nii.gz", "nowhere.nii.gz: there is no such file"),
    (sitk.Image(4, 4, sitk.sitkUInt8), "SimpleITK image has the size"),
    (sitk.Image([4, 4, 4], sitk.sitkVectorUInt8, 3), "3 channels; give three dimensions and one channel"),
])  # fmt: skip
def test_a_wrong_image_is_refused_by_what_was_given_and_what_is_taken(model, given, said):
    with pytest.raises(BadInput, match=said):
        model.segment(given, "knee")
    with pytest.raises(BadInput, match=said):
        model.detect(given)


def test_other_wrong_arguments(model, image):
    for options, said in [
        ({"joint": "hip"}, "does not know the joint 'hip'.*ankle, knee, shoulder"),
        ({"joint": 3}, "the joint is of the type int; give auto or one of ankle, knee, shoulder"),
        ({"joint": "knee", "side": "L"}, "the side is 'L'; give left or right"),
        ({}, "--joint ankle|knee|shoulder"),
    ]:
        with pytest.raises(api.PedBoneSegError, match=said):
            model.segment(image[1], **options)
    with pytest.raises(BadInput, match="leave them out for an image in memory"):
        model.segment(image[0], "knee", frame=0)
    with pytest.raises(BadInput, match="the segmentation is of the type int; give a file or a result"):
        api.measure(3)
    with pytest.raises(BadModel, match="the model is of the type int; give a name or a path"):
        api.load(3)
    with pytest.raises(BadModel, match="no model 'none'"):
        api.load("none")
    with pytest.raises(BadInput, match="no device 'tpu'"):
        api.load(device="tpu")


# ------------------------------------------------------------------------------------- the package that pip installs


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the contents of the wheel."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "runs", "*.egg-info")
    for name in ("PedBoneSegLib", "Training"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    command = "import setuptools.build_meta as build; build.build_wheel('.')"
    subprocess.run([sys.executable, "-c", command], cwd=source, check=True, capture_output=True, timeout=120)
    zipfile.ZipFile(next(source.glob("*.whl"))).extractall(target)
    return target


def run(installed, code, folder):
    """Runs code as a user of the installed package, in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "MPLBACKEND": "agg", "PYTHONUTF8": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_name_that_pip_installs_is_the_front_door_typed_and_quickly_imported(installed, tmp_path):
    code = """
import sys
import pedboneseg
heavy = {"numpy", "scipy", "torch", "SimpleITK", "safetensors", "vtk"} & set(sys.modules)
print(pedboneseg.__file__, heavy or "nothing heavy")
print(*pedboneseg.__all__)
assert all(getattr(pedboneseg, name) for name in pedboneseg.__all__)
"""
    first, names = run(installed, code, tmp_path).splitlines()
    assert first == f"{installed / 'pedboneseg' / '__init__.py'} nothing heavy"
    assert set(names.split()) == {*api.__all__, "__version__"}
    for package in ("pedboneseg", "PedBoneSegLib"):
        assert (installed / package / "py.typed").is_file()
    assert not (installed / "PedBoneSegLib" / "pedboneseg").exists()


def test_the_pages_example_runs_as_it_is_printed(installed, tmp_path):
    """All blocks of docs/python.md, in the order in which they are read; `knee.nii.gz` is the sample."""
    shutil.copy(ROOT / "PedBoneSegLib" / "samples" / "knee.nii.gz", tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) > 4
    run(installed, "\n".join(blocks), tmp_path)
    assert (tmp_path / "knee.seg.nrrd").is_file()


def test_the_notebook_runs(installed, tmp_path):
    notebook = json.loads((ROOT / "docs" / "python.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 4 and notebook["nbformat"] == 4
    run(installed, "\n".join(cells), tmp_path)
