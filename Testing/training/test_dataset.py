"""nnU-Net v2 raw folders: matching by bone name, unlabelled bones, sides, splits, and every refusal."""

import json

import numpy as np
import pytest
from exam_phantoms import describe, phantom, tiny_study, write_dataset, write_volume
from PedBoneSegTraining.configuration import Data, from_dict
from PedBoneSegTraining.data.dataset import fingerprint, load_case, read_dataset, split_cases
from PedBoneSegTraining.data.domains import open_domains

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput

KNEE = joint_table("knee")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "Dataset102_Knee", "knee", 3)


@pytest.fixture
def folder(original, tmp_path):
    """A copy to spoil: dataset.json is its own, the images are the original's."""
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).symlink_to(original / name)
    (tmp_path / "dataset.json").write_text((original / "dataset.json").read_text())
    return tmp_path


def test_labels_are_matched_by_name_in_whatever_order_and_spelling(tmp_path):
    _, truth = phantom("knee", 0)
    values = {"background": 0, "TIBIA": 9, "Patella": 2, "fibula": 5, "femur": 1, "meniscus": 7}
    drawn = np.zeros_like(truth)
    for name, value in values.items():
        if name.lower() in KNEE.labels:
            drawn[truth == KNEE.labels[name.lower()]] = value
    drawn[0, 0, 0] = 7
    write_volume(tmp_path / "imagesTr" / "one_0000.nii.gz", phantom("knee", 0)[0])
    write_volume(tmp_path / "labelsTr" / "one.nii.gz", drawn)
    describe(tmp_path, "knee", 1, {"sides": {"one": "left"}}, labels=values)
    dataset = read_dataset(tmp_path)
    loaded = load_case(dataset, dataset.cases[0])
    assert dataset.foreign == ("meniscus",)
    assert np.array_equal(loaded.labels, truth)  # the meniscus has become background
    assert loaded.known.tolist() == [True] * 5
    assert loaded.volume.side == "left"


def test_unlabelled_bones_are_unknown_and_bones_without_a_name_are_unlabelled_everywhere(folder):
    labels = {name: value for name, value in KNEE.labels.items() if name != "fibula"}
    describe(folder, "knee", 3, {"unlabelled": {"knee_01": ["Patella"]}}, labels={"background": 0, **labels})
    dataset = read_dataset(folder)
    known = {case.name: case.unlabelled for case in dataset.cases}
    assert known == {"knee_00": {"fibula"}, "knee_01": {"fibula", "patella"}, "knee_02": {"fibula"}}
    assert any("fibula" in notice for notice in dataset.notices)


@pytest.mark.parametrize(
    "entries, ours, words",
    [
        ({"channel_names": {"0": "T1", "1": "T2"}}, {}, "2 channels"),
        ({"labels": {"background": 0, "femur": [1, 2]}}, {}, "not one value for one bone"),
        ({"labels": {"background": 0, "femur": 1, "ignore": 2}}, {}, "not one value for one bone"),
        ({"labels": {"background": 0, "femur": 1, "Femur": 2}}, {}, "twice"),
        ({"labels": {"background": 0, "humerus": 1}}, {}, "none of which is a bone of the knee"),
        ({}, {"joint": "shoulder"}, "none of which"),
        ({"pedboneseg": {}}, None, "names no joint; give --joint NAME"),
        ({}, {"joint": "elbow"}, "no table of bones"),
        ({}, {"sides": {"knee_00": "Left"}}, "left or right"),
        ({}, {"sides": {"knee_09": "left"}}, "not there"),
        ({}, {"unlabelled": {"knee_00": ["femurr"]}}, "femurr"),
        ({"file_ending": ".nrrd"}, {}, "no images"),
    ],
)
def test_a_description_that_cannot_be_right_is_refused(folder, entries, ours, words):
    describe(folder, "knee", 3, ours, **entries)
    with pytest.raises(BadInput, match=words):
        read_dataset(folder)


def test_nnunets_first_form_of_labels_is_read(folder):
    describe(folder, "knee", 3, labels={str(value): name for name, value in {"background": 0, **KNEE.labels}.items()})
    assert read_dataset(folder).values == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


def test_another_grid_another_value_and_a_missing_file_are_refused(tmp_path):
    image, labels = phantom("knee", 0)
    write_volume(tmp_path / "imagesTr" / "one_0000.nii.gz", image)
    describe(tmp_path, "knee", 1)
    with pytest.raises(BadInput, match="is missing"):
        read_dataset(tmp_path)
    write_volume(tmp_path / "labelsTr" / "one.nii.gz", labels, origin=(0.0, 3.0, 0.0))
    dataset = read_dataset(tmp_path)
    with pytest.raises(BadInput, match="3 mm apart"):
        load_case(dataset, dataset.cases[0])
    write_volume(tmp_path / "labelsTr" / "one.nii.gz", labels[:-1])
    with pytest.raises(BadInput, match="voxels"):
        load_case(dataset, dataset.cases[0])
    labels[0, 0, 0] = 77
    write_volume(tmp_path / "labelsTr" / "one.nii.gz", labels)
    with pytest.raises(BadInput, match="77"):
        load_case(dataset, dataset.cases[0])


def splits(exams: int, seed: int = 0, folds=None, **shares):
    from types import SimpleNamespace

    cases = tuple(SimpleNamespace(name=f"c{number:02d}", reserved=False) for number in range(exams))
    data = Data(**{"validation": 0.2, "reserved": 0.2, **shares})
    return split_cases(SimpleNamespace(folder="f", cases=cases, folds=folds or ()), data, seed)


def test_shares_part_the_exams():
    ten, again = splits(10), splits(10)
    assert ten == again and splits(40) != splits(40, seed=1)
    assert sizes(ten) == [8, 2, 0, 0]  # two in reserve would do nothing
    assert len({*ten.train, *ten.validation}) == 10
    assert sizes(splits(10, selection=0.3)) == [5, 2, 3, 0]
    forty = splits(40)
    assert sizes(forty) == [24, 8, 0, 8] and len({*forty.train, *forty.validation, *forty.reserved}) == 40


def sizes(split) -> list[int]:
    return [len(group) for group in (split.train, split.validation, split.selection, split.reserved)]


def leave_one_out(exams: int) -> tuple[dict, ...]:
    names = [f"c{number:02d}" for number in range(exams)]
    return tuple({"train": tuple(n for n in names if n != name), "val": (name,)} for name in names)


@pytest.mark.parametrize("exams", [15, 90])
def test_leave_one_out_leaves_one_out(exams):
    """Every exam is looked at in exactly one fold; a reserve comes out of what is left to train on."""
    looked_at = []
    for fold in range(exams):
        split = splits(exams, folds=leave_one_out(exams), fold=fold, reserved=0.1)
        looked_at += split.validation
        assert sizes(split) == ([14, 1, 0, 0] if exams == 15 else [80, 1, 0, 9])
    assert sorted(looked_at) == [f"c{number:02d}" for number in range(exams)]


def test_a_joint_with_fewer_folds_trains_on_all_of_its_exams():
    assert sizes(splits(4, folds=leave_one_out(4), fold=9)) == [4, 0, 0, 0]


@pytest.mark.parametrize("exams", [1, 2, 3])
def test_the_smallest_data_sets_can_train(exams):
    split = splits(exams, validation=0.1, reserved=0.1)
    assert len(split.train) == exams
    assert len(splits(exams, validation=0.4, reserved=0.4).train) >= 1


def test_the_data_sets_own_splits_and_reserved_cases_decide(folder):
    describe(folder, "knee", 3, {"reserved": ["knee_00"]})
    (folder / "splits.json").write_text(
        json.dumps(
            [
                {"train": ["knee_01"], "val": ["knee_02"]},
                {"train": ["knee_00", "knee_02"], "val": ["knee_01"]},
            ]
        )
    )
    dataset = read_dataset(folder)
    first, second = (split_cases(dataset, Data(fold=fold), 0) for fold in (0, 1))
    assert (first.train, first.validation, first.reserved) == (("knee_01",), ("knee_02",), ("knee_00",))
    assert (second.train, second.validation, second.reserved) == (("knee_02",), ("knee_01",), ("knee_00",))
    table = tiny_study({"knee": [folder]}, data={"fold": 2})
    with pytest.raises(BadInput, match="up to 2 folds, none is 2"):
        open_domains(from_dict(table))
    describe(folder, "knee", 3, {"reserved": ["knee_02"]})
    with pytest.raises(BadInput, match="fold 0 validates on are reserved"):
        split_cases(read_dataset(folder), Data(fold=0), 0)
    (folder / "splits.json").write_text(json.dumps([{"train": ["knee_01"], "val": ["knee_01"]}]))
    with pytest.raises(BadInput, match="validates on it"):
        read_dataset(folder)


def test_several_folders_make_one_domain_and_held_out_cases_are_never_seen(original, tmp_path):
    second = write_dataset(tmp_path / "more", "knee", 2, seed=5)
    table = tiny_study({"knee": [original, second]})
    table["domains"]["knee"]["hold_out"] = ["knee_02"]
    study = open_domains(from_dict(table))["knee"]
    assert [(dataset.folder.name, case.name) for dataset, case in study.cases("train")] == [
        ("Dataset102_Knee", "knee_00"),
        ("Dataset102_Knee", "knee_01"),
        ("more", "knee_00"),
        ("more", "knee_01"),
    ]
    table["domains"]["knee"]["hold_out"] = ["knee_99"]
    with pytest.raises(BadInput, match="knee_99"):
        open_domains(from_dict(table))


def test_the_fingerprint_sees_one_changed_byte(folder):
    before = fingerprint(read_dataset(folder))
    images = {f"imagesTr/knee_0{number}_0000.nii.gz" for number in range(3)}
    assert set(before) == {"dataset.json"} | images | {f"labelsTr/knee_0{number}.nii.gz" for number in range(3)}
    describe(folder, "knee", 3, {"sides": {"knee_00": "left"}})
    after = fingerprint(read_dataset(folder))
    assert {name for name in before if before[name] != after[name]} == {"dataset.json"}
