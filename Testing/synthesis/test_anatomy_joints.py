"""The modelled joints: what is bone, what touches what, what age changes, what repeats."""

from functools import cache

import numpy as np
import pytest
import torch
from PedBoneSegTraining.synthesis.anatomy import BONE_TISSUES, JOINTS, OTHER_BONE, Tissue
from PedBoneSegTraining.synthesis.anatomy.draw import digest
from PedBoneSegTraining.synthesis.anatomy.parameters import exam_parameters
from PedBoneSegTraining.synthesis.anatomy.sources import Parametric
from scipy import ndimage

from PedBoneSegLib.anatomy import joint_table, known_joints

AGES = (2.5, 6.0, 11.0, 20.0)
MODELLED = [joint for joint in JOINTS if JOINTS[joint].BONES]
CASES = [(joint, age) for joint in MODELLED for age in AGES]


def parameters(joint: str, age: float | None = None, i: int = 3, seed: int = 11) -> dict:
    drawn = Parametric().parameters(seed, joint, i, age)
    if age is not None:
        drawn["bone_age"] = age
    drawn["soft"]["other_side_mm"] = None
    drawn["center_mm"] = [c * drawn["size"] for c in JOINTS[joint].CENTER]
    return drawn


@cache
def built(joint: str, age: float):
    drawn = parameters(joint, age)
    return Parametric().build(drawn, spacing=1.25 * max(drawn["size"], 0.7))


def volumes(anatomy) -> dict[str, float]:
    return {
        n: float((anatomy.bones == k).sum()) * anatomy.spacing_mm**3 / 1000
        for k, n in enumerate(anatomy.names, start=1)
    }


@pytest.mark.parametrize("joint", known_joints())
def test_labels_are_those_of_the_table(joint):
    assert JOINTS[joint].BONES == joint_table(joint).names


@pytest.mark.parametrize("joint, age", CASES)
def test_every_bone_is_one_body(joint, age):
    anatomy = built(joint, age)
    for label, name in enumerate(anatomy.names, start=1):
        mask = (anatomy.bones == label).numpy()
        if not mask.any():
            assert name == "patella" and age < 4  # the one bone that a small child has not got
            continue
        parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.max() > 0.99 * sizes.sum(), f"{name} falls apart: {sorted(sizes)[::-1][:4]}"


@pytest.mark.parametrize("joint, age", CASES)
def test_no_bone_touches_another(joint, age):
    """Not even at a corner: between two bones there is always a voxel of something else."""
    bones = built(joint, age).bones
    for label in bones.unique().tolist():
        if label:
            grown = torch.nn.functional.max_pool3d((bones == label).float()[None, None], 3, 1, 1)[0, 0] > 0
            met = bones[grown & (bones != label) & (bones != 0)].unique().tolist()
            assert not met, f"label {label} touches {met}"


@pytest.mark.parametrize("joint, age", CASES)
def test_bone_is_cortex_marrow_and_plate_and_nothing_else(joint, age):
    anatomy = built(joint, age)
    is_bone = torch.isin(anatomy.tissue, torch.tensor([int(t) for t in BONE_TISSUES], dtype=torch.uint8))
    assert torch.equal(is_bone, anatomy.bones > 0)
    assert int(anatomy.labels.max()) <= len(anatomy.names)
    others = anatomy.bones > OTHER_BONE
    assert not anatomy.labels[others].any()
    assert torch.equal(anatomy.depth < 0, anatomy.bones > 0)
    assert not anatomy.group[anatomy.tissue != Tissue.MUSCLE].any() and anatomy.group.any()


@pytest.mark.parametrize("joint", MODELLED)
def test_cartilage_and_soft_tissue_are_there(joint):
    child, adult = built(joint, 6.0), built(joint, 20.0)
    for anatomy in (child, adult):
        present = set(anatomy.tissue.unique().tolist())
        assert {
            Tissue.SKIN,
            Tissue.FAT,
            Tissue.MUSCLE,
            Tissue.FASCIA,
            Tissue.CARTILAGE,
            Tissue.FLUID,
            Tissue.LIGAMENT,
            Tissue.VESSEL,
            Tissue.CORTEX,
            Tissue.MARROW,
        } <= present
    assert (child.tissue == Tissue.PLATE).any() and (child.tissue == Tissue.UNOSSIFIED).any()
    assert not (adult.tissue == Tissue.PLATE).any() and not (adult.tissue == Tissue.UNOSSIFIED).any()


@pytest.mark.parametrize(
    "joint, bone, low, high",
    [
        ("knee", "patella", 10, 28),
        ("ankle", "talus", 25, 52),
        ("ankle", "calcaneus", 42, 90),
        ("shoulder", "scapula", 40, 130),
    ],
)
def test_adult_volumes_are_those_of_anatomy(joint, bone, low, high):
    """Millilitres; the scapula is partly out of view."""
    assert low < volumes(built(joint, 20.0))[bone] < high


@pytest.mark.parametrize("joint", MODELLED)
def test_children_grow(joint):
    for name in JOINTS[joint].BONES:
        grown = [volumes(built(joint, age))[name] for age in AGES]
        assert grown == sorted(grown) and grown[-1] > 3 * grown[0], f"{name}: {grown}"


def test_ossification_follows_age():
    def has_heel_plate(age):
        anatomy = built("ankle", age)
        heel = anatomy.bones == 1 + anatomy.names.index("calcaneus")
        return bool((heel & (anatomy.tissue == Tissue.PLATE)).any())

    assert [has_heel_plate(age) for age in AGES] == [False, False, True, False]
    assert volumes(built("knee", 2.5))["patella"] == 0 < volumes(built("knee", 6.0))["patella"]
    knee = built("knee", 2.5)  # the young femur's end is mostly cartilage
    assert (knee.tissue == Tissue.UNOSSIFIED).sum() > 0.2 * (knee.bones == 1).sum()


def test_plates_are_thin_and_nearly_across_the_shaft():
    anatomy = built("knee", 11.0)
    plate = ((anatomy.tissue == Tissue.PLATE) & (anatomy.bones == 1)).numpy()
    places = np.argwhere(plate) * anatomy.spacing_mm
    _, spread, axes = np.linalg.svd(places - places.mean(0), full_matrices=False)
    thickness = spread[2] / np.sqrt(len(places))
    assert thickness < 3 and spread[1] / np.sqrt(len(places)) > 6
    assert abs(axes[2][2]) > 0.85


def test_muscles_fill_the_limb_away_from_the_joint_and_leave_the_bones_alone():
    drawn = parameters("knee", 11.0)
    empty, filled = (
        Parametric().build(drawn | {"soft": drawn["soft"] | {"bulk": 1.0, "fat_mm": 0.0, "filled_mm": mm}}, spacing=2.4)
        for mm in (0.0, 24.0)
    )
    assert torch.equal(empty.bones, filled.bones)

    def fat(anatomy, part: slice) -> float:
        tissue = anatomy.tissue[:, :, part]
        return float((tissue == Tissue.FAT).sum() / ((tissue == Tissue.MUSCLE) | (tissue == Tissue.FAT)).sum())

    height = empty.tissue.shape[2]
    shaft, joint = slice(height * 9 // 10, height), slice(height * 9 // 20, height * 11 // 20)
    assert fat(filled, shaft) < 0.7 * fat(empty, shaft)
    assert fat(filled, joint) > 0.8 * fat(empty, joint)


def test_a_right_limb_is_a_left_one_mirrored():
    drawn = parameters("ankle", 9.0)
    left = Parametric().build(drawn | {"side": "left"}, spacing=2.0)
    right = Parametric().build(drawn | {"side": "right"}, spacing=2.0)
    assert torch.equal(left.tissue, right.tissue.flip(0)) and torch.equal(left.bones, right.bones.flip(0))
    assert not torch.equal(left.tissue, right.tissue)
    fibula = torch.nonzero(left.bones == OTHER_BONE + 1)[:, 0].float().mean()
    tibia = torch.nonzero(left.bones == 1 + left.names.index("tibia"))[:, 0].float().mean()
    assert fibula > tibia  # x runs to the left, and a left fibula lies left of the tibia


def test_the_other_limb_carries_the_same_labels():
    drawn = parameters("knee", 6.0) | {"side": "left"}
    drawn["center_mm"] = [-0.5 * drawn["field"]["extent_mm"][0], 0.0, 0.0]
    drawn["soft"]["other_side_mm"] = 6.0
    both = Parametric().build(drawn, spacing=1.6)
    _, count = ndimage.label((both.bones == 1).numpy())
    assert count == 2 and both.bones.shape == both.tissue.shape == both.depth.shape


def test_the_map_is_a_function_of_its_parameters():
    drawn = parameters("knee", 7.0)
    one, two = (Parametric().build(drawn, spacing=2.4) for _ in range(2))
    assert torch.equal(one.tissue, two.tissue) and torch.equal(one.group, two.group)
    other = Parametric().build(parameters("knee", 7.0, i=4), spacing=2.4)
    assert one.tissue.shape != other.tissue.shape or not torch.equal(one.tissue, other.tissue)


def test_an_exam_does_not_depend_on_what_else_is_drawn():
    alone = digest(exam_parameters(5, "knee", 17))
    for i in range(3):
        exam_parameters(5, "ankle", i)
    assert digest(exam_parameters(5, "knee", 17)) == alone
    assert len({digest(exam_parameters(5, j, i)) for j in JOINTS for i in range(20)}) == 20 * len(JOINTS)


@pytest.mark.parametrize("joint, bones", [("thigh", {101}), ("calf", {103, 104})])
@pytest.mark.parametrize("i", [0, 3])
def test_a_shaft_is_no_joint(joint, bones, i):
    """Only shafts in view: no cartilage, no plate, nothing to be labelled."""
    anatomy = Parametric().build(parameters(joint, 9.0, i), spacing=2.0)
    assert set(anatomy.bones.unique().tolist()) == {0} | bones and not anatomy.labels.any()
    assert not torch.isin(anatomy.tissue, torch.tensor([Tissue.CARTILAGE, Tissue.PLATE, Tissue.UNOSSIFIED])).any()


@pytest.mark.parametrize("joint", JOINTS)
def test_parameters_are_the_same_on_every_machine(joint):
    """A change here makes other exams: raise parameters.VERSION with it."""
    assert digest(exam_parameters(0, joint, 0))[:16] == FROZEN[joint]


FROZEN = {
    "ankle": "a120fee9eaa0beef",
    "knee": "17da0d59e6e53018",
    "shoulder": "235e20aa17d71710",
    "hip": "c19595571b676a05",
    "thigh": "e792fd7dd2bf1d81",
    "calf": "f2330c531097af91",
    "elbow": "5958ccb3ede0ca6f",
}
