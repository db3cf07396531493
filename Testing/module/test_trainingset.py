"""Ring 2: a corrected segmentation becomes a training case and comes back as it was, without a name."""

import gzip
import json

import numpy as np
import pytest
import SimpleITK
import slicer
from module.bones import KNEE, blocks, fill, oblique, record
from PedBoneSegUI import bonewriting, segmentations, trainingset
from PedBoneSegUI.tasks import runToEnd

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput


@pytest.fixture
def pair(makeVolume):
    volume = makeVolume(matrix=oblique(), name="Berg^Anna 2019-03-04")
    segmentation = segmentations.createSegmentation(volume, "Anna bones")
    fill(segmentation, volume, blocks(), KNEE, "left")
    listed = [{"index": 5, "share": 0.5}, {"index": 2, "share": 0.8}]
    record(segmentation, volume, [], slices=listed, seen=[1])
    femur = segmentations.segmentOfBone(segmentation, KNEE.bone("femur"))
    bonewriting.writeMask(segmentation, femur, (blocks() == 1) & (np.arange(8) != 3)[:, None, None], volume)
    return volume, segmentation


def corrected() -> np.ndarray:
    """The femur of slice 3 was erased by hand."""
    labels = blocks()
    labels[3][labels[3] == 1] = 0
    return labels


def add(folder, pair, **more):
    segmentations.remember(pair[1], side=more.get("side", "left"), reviewed=True)
    return runToEnd(trainingset.addingCase(folder, *pair, KNEE, more.get("unlabelled", [])))[0]


def test_roundTrip(pair, tmp_path):
    folder = tmp_path / "Dataset102 Knie"
    first, second = add(folder, pair), add(folder, pair, side=None, unlabelled=["fibula"])
    volume = pair[0]
    image = SimpleITK.ReadImage(str(folder / "imagesTr" / f"{first}_0000.nii.gz"))
    labels = SimpleITK.ReadImage(str(folder / "labelsTr" / f"{first}.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), slicer.util.arrayFromVolume(volume))
    assert np.array_equal(SimpleITK.GetArrayFromImage(labels), corrected())
    assert labels.GetSize() == image.GetSize()
    for one in (image, labels):
        point = np.array(one.TransformIndexToPhysicalPoint((23, 19, 7))) * (-1, -1, 1)
        assert np.allclose(point, (oblique() @ (23, 19, 7, 1))[:3], atol=1e-3)
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["numTraining"] == 2 and dataset["labels"]["patella"] == 4 and dataset["file_ending"] == ".nii.gz"
    ours = {"joint": "knee", "sides": {first: "left"}, "unlabelled": {second: ["fibula"]}}
    assert dataset["pedboneseg"] == ours
    note = {"made_with": "default", "axis": 2, "reviewed": True, "slices_seen": [2], "slices_corrected": [3]}
    assert json.loads((folder / "reviews.json").read_text())[first] == note


def test_nobodysNameGoesIn(pair, tmp_path):
    add(tmp_path / "set", pair)
    for path in (tmp_path / "set").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            for word in (b"Anna", b"Berg", b"2019", str(tmp_path).encode()):
                assert word not in data and word.decode() not in path.name, path


def test_labelsGoByNameIntoAnExistingSet(pair, tmp_path):
    labels = {"background": 0, "patella": 1, "tibia": 2, "rib": 3, "femur": 4, "fibula": 5}
    document = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 0, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    case = add(tmp_path, pair)
    written = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "labelsTr" / f"{case}.nii.gz")))
    assert np.array_equal(written, np.array([0, 4, 2, 5, 1])[corrected()])


def test_refusalsLeaveTheFolderAsItWas(pair, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(BadInput, match="not empty"):
        add(tmp_path, pair)
    ankle = {"background": 0, **joint_table("ankle").labels}
    other = tmp_path / "ankle"
    other.mkdir()
    (other / "dataset.json").write_text(json.dumps({"labels": ankle, "file_ending": ".nii.gz"}))
    with pytest.raises(BadInput, match="no label for"):
        add(other, pair)
    assert not (other / "imagesTr").exists()
    empty = segmentations.createSegmentation(pair[0], "empty")
    with pytest.raises(BadInput, match="none of the bones"):
        runToEnd(trainingset.addingCase(tmp_path / "new", pair[0], empty, KNEE, []))
    with pytest.raises(BadInput, match="rib: no bone of the knee"):
        add(tmp_path / "new", pair, unlabelled=["rib"])
    assert not (tmp_path / "new").exists()


def test_aFailureInTheMiddleTakesTheCaseBack(pair, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainingset, "write_text", full)
    with pytest.raises(OSError):
        add(tmp_path / "set", pair)
    assert not list((tmp_path / "set").rglob("*.nii.gz"))


def test_theTrainedModelGetsANameThatIsFree(tmp_path):
    """As an own scanner of a joint that the model has, or as the joint itself where it does not know it."""

    def named(joint: str, known: list[str]) -> str:
        arguments = trainingset.trainingArguments(tmp_path, joint, "some-model", known)
        assert arguments[:3] == ["adapt", "--model", "some-model"]
        return arguments[arguments.index("--joint") + 1]

    assert named("knee", ["knee", "ankle"]) == "knee-own"
    assert named("hip", ["knee"]) == "hip"
    assert named("knee", ["knee", "knee-own"]) == "knee-own2"
