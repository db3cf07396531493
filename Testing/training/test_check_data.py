"""`check-data`: each fault is planted in a data set of its own, and found, named, and alone."""

import json

import numpy as np
import pytest
from exam_phantoms import describe, phantom, write_dataset, write_volume
from PedBoneSegTraining.program.commands import main

from PedBoneSegLib.anatomy import joint_table

BONES = joint_table("knee").labels


def findings(capsys, *folders) -> tuple[int, list[dict]]:
    code = main(["check-data", "--json", *map(str, folders)])
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] == (code == 0)
    return code, document["findings"]


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "Dataset102_Knee", "knee", 2)


def change(folder, image=None, labels=None, **place):
    """Rewrites case knee_01 with its image or labels changed by a function."""
    pixels, truth = phantom("knee", 1)
    if image:
        write_volume(folder / "imagesTr" / "knee_01_0000.nii.gz", image(pixels), **place)
    if labels:
        write_volume(folder / "labelsTr" / "knee_01.nii.gz", labels(truth.copy()), **place)


def test_sound_data_pass(folder, capsys):
    assert findings(capsys, folder) == (0, [])
    assert main(["check-data", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines() == [
        "Dataset102_Knee: knee, 2 cases, spacing 2–5 mm; femur 2, tibia 2, fibula 2, patella 2",
        "0 errors, 0 warnings: ready for training",
    ]


def test_a_plain_nnunet_folder_needs_its_joints_name_alone(folder, tmp_path, capsys):
    described = json.loads((folder / "dataset.json").read_text())
    del described["pedboneseg"]
    (folder / "dataset.json").write_text(json.dumps(described))
    assert main(["check-data", str(folder)]) == 2
    text = capsys.readouterr().out
    assert "names no joint; give --joint NAME" in text and text.endswith(
        "1 error, 0 warnings: training would be wrong\n"
    )
    other = write_dataset(tmp_path / "Dataset101_Ankle", "ankle", 1)  # names its own joint, which --joint leaves alone
    assert main(["check-data", str(folder), str(other), "--joint", "knee"]) == 0


def swapped(labels):
    femur, tibia = labels == BONES["femur"], labels == BONES["tibia"]
    labels[femur], labels[tibia] = BONES["tibia"], BONES["femur"]
    return labels


def grown_together(labels):
    femur = np.argwhere(labels == BONES["femur"])
    middle = np.median(femur, axis=0)
    upper = femur[femur[:, 2] > middle[2]]
    labels[tuple(upper.T)] = BONES["tibia"]
    labels[tuple(femur[femur[:, 2] <= middle[2]].T)] = BONES["femur"]
    return labels


def stray(labels):
    labels[0, 2, 2] = BONES["patella"]
    return labels


def unknown(labels):
    labels[0, 0, 0] = 9
    return labels


def without(bone):
    return lambda labels: np.where(labels == BONES[bone], 0, labels)


FAULTS = [  # image, labels, level, code
    (None, unknown, "error", "label"),
    (None, without("patella"), "warning", "empty"),
    (None, lambda labels: labels * 0, "error", "empty"),
    (None, swapped, "error", "place"),
    (None, stray, "warning", "pieces"),
    (None, lambda labels: labels[:-1], "error", "geometry"),
    (lambda image: image * 0 + 5, None, "error", "intensity"),
    (lambda image: image * 10 - 3000, None, "warning", "intensity"),
    (lambda image: (image > 50).astype(np.float32), None, "warning", "intensity"),
]


@pytest.mark.parametrize("image, labels, level, code", FAULTS)
def test_each_fault_is_found_in_its_case_alone(folder, capsys, image, labels, level, code):
    change(folder, image, labels)
    exit_code, found = findings(capsys, folder)
    assert exit_code == (2 if level == "error" else 0)
    assert (level, code) in {(each["level"], each["code"]) for each in found}
    assert {each["case"] for each in found} == {"knee_01"}


def test_bones_in_the_air_and_bones_grown_together(folder, capsys):
    def without_patella(image):
        where = np.argwhere(phantom("knee", 1)[1] == BONES["patella"])
        lowest, highest = np.maximum(where.min(0) - 3, 0), where.max(0) + 4
        image[tuple(map(slice, lowest, highest))] = 5
        return image

    change(folder, image=without_patella)
    code, found = findings(capsys, folder)
    assert code == 2 and [each["message"] for each in found] == ["the patella lies in the air"]
    change(folder, image=lambda image: image, labels=grown_together)
    assert any(each["code"] == "overlap" and "tibia" in each["message"] for each in findings(capsys, folder)[1])


def test_odd_spacing_and_shifted_labels(folder, capsys):
    change(folder, image=lambda image: image, labels=lambda labels: labels, spacing=(20.0, 2.0, 2.0))
    code, found = findings(capsys, folder)
    assert code == 0 and [each["code"] for each in found] == ["spacing"]
    change(folder, image=lambda image: image)
    code, found = findings(capsys, folder)
    assert code == 2 and found[0]["code"] == "geometry" and "mm apart" in found[0]["message"]


def test_a_side_that_the_bones_contradict(folder, capsys):
    """The phantom's fibula lies straight behind; moved towards the patient's left it is that of a left knee."""

    def left(array):
        moved = np.where(array == BONES["fibula"], 0, array)
        where = np.argwhere(array == BONES["fibula"]) + [3, 0, 0]
        moved[tuple(where[where[:, 0] < array.shape[0]].T)] = BONES["fibula"]
        return moved

    change(folder, labels=left)
    for side, expected in (("left", []), ("right", ["side"])):
        describe(folder, "knee", 2, {"sides": {"knee_01": side}})
        assert [each["code"] for each in findings(capsys, folder)[1]] == expected


def test_the_same_exam_twice_is_found_across_folders(folder, tmp_path, capsys):
    second = write_dataset(tmp_path / "Other", "knee", 1)
    code, found = findings(capsys, folder, second)
    assert code == 2
    assert [(each["code"], each["case"]) for each in found] == [("twice", "knee_00")]
    assert "Other/knee_00" in found[0]["message"]


def test_a_bone_that_nobody_ever_drew_must_be_declared(folder, capsys):
    for number in (0, 1):
        truth = phantom("knee", number)[1]
        write_volume(folder / "labelsTr" / f"knee_0{number}.nii.gz", without("patella")(truth))
    code, found = findings(capsys, folder)
    assert code == 2 and ("error", "empty", "") in {(each["level"], each["code"], each["case"]) for each in found}
    describe(folder, "knee", 2, {"unlabelled": {"knee_00": ["patella"], "knee_01": ["patella"]}})
    assert findings(capsys, folder) == (0, [])


def test_a_bone_declared_unlabelled_that_has_voxels(folder, capsys):
    describe(folder, "knee", 2, {"unlabelled": {"knee_00": ["patella"]}})
    code, found = findings(capsys, folder)
    assert code == 2 and [(each["code"], each["case"]) for each in found] == [("unlabelled", "knee_00")]


def test_faults_of_a_whole_data_set_and_of_a_file(folder, capsys, tmp_path):
    describe(folder, "knee", 2, channel_names={"0": "T1", "1": "T2"})
    (tmp_path / "nothing").mkdir()
    code, found = findings(capsys, folder, tmp_path / "nothing")
    assert code == 2 and [each["code"] for each in found] == ["dataset", "dataset"]
    describe(folder, "knee", 2)
    path = folder / "imagesTr" / "knee_01_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    code, found = findings(capsys, folder)
    assert code == 2 and [(each["code"], each["case"]) for each in found] == [("unreadable", "knee_01")]


def test_the_page_is_one_page(tmp_path, capsys):
    folder = write_dataset(tmp_path / "Many", "knee", 30)
    for number in range(30):
        write_volume(folder / "labelsTr" / f"knee_{number:02d}.nii.gz", unknown(phantom("knee", number)[1]))
    assert main(["check-data", str(folder)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 6 and any("and 24 more" in line for line in lines)
