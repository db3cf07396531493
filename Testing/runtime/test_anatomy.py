import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from PedBoneSegLib.anatomy import LATERALITY, JointTable, display_name, joint_table, known_joints
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.segments import terminology

HEADER = "LabelValue,Name,Color_R,Color_G,Color_B\n"


def test_the_joints_bones_have_their_labels_in_the_stated_order():
    assert known_joints() == ("ankle", "knee", "shoulder")
    assert joint_table("ankle").labels == {"calcaneus": 1, "talus": 2, "tibia": 3}
    assert joint_table("knee").labels == {"femur": 1, "tibia": 2, "fibula": 3, "patella": 4}
    assert joint_table("shoulder").labels == {"humerus": 1, "scapula": 2}


def test_the_bones_carry_their_snomed_codes():
    codes = {bone.name: bone.type.value for joint in known_joints() for bone in joint_table(joint).bones}
    assert codes == {
        "femur": "71341001", "tibia": "12611008", "fibula": "87342007", "patella": "64234005",
        "calcaneus": "80144004", "talus": "67453005", "humerus": "85050009", "scapula": "79601000",
    }  # fmt: skip
    for joint in known_joints():
        for bone in joint_table(joint).bones:
            assert (bone.category.scheme, bone.category.value) == ("SCT", "123037004")
            assert bone.type.scheme == "SCT" and bone.type.meaning == bone.name.capitalize()


def test_sides():
    assert (LATERALITY["right"].value, LATERALITY["left"].value) == ("24028007", "7771000")
    femur = joint_table("knee").bone("femur")
    assert display_name(femur, "right") == "Right femur"
    assert display_name(femur) == display_name("femur") == "Femur"
    with pytest.raises(KeyError):
        terminology(femur, "both")


# What people with each of the three color deficiencies see of linear RGB (Machado et al. 2009, severity 1).
SIGHT = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color, sight):
    rgb = np.asarray(color) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = np.cbrt(np.maximum(to_xyz @ linear / (to_xyz @ np.ones(3)), 1e-9))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("joint", known_joints())
def test_colors_differ_for_everyone(joint, sight):
    for one, other in combinations(joint_table(joint).bones, 2):
        distance = np.linalg.norm(lab(one.color, sight) - lab(other.color, sight))
        assert distance > 20, (one.name, other.name, distance)  # 2.3 is a just noticeable difference


def test_a_table_survives_its_own_text():
    for joint in known_joints():
        assert JointTable.from_csv(joint_table(joint).to_csv(), joint) == joint_table(joint)


def test_slicer_reads_the_tables(tmp_path):
    slicer = pytest.importorskip("slicer")
    scene = slicer.vtkMRMLScene()
    colors, storage = slicer.vtkMRMLColorTableNode(), slicer.vtkMRMLColorTableStorageNode()
    scene.AddNode(colors)
    scene.AddNode(storage)
    for joint in known_joints():
        path = tmp_path / f"{joint}.csv"
        path.write_text(joint_table(joint).to_csv())
        storage.SetFileName(str(path))
        assert storage.ReadData(colors)
        for bone in joint_table(joint).bones:
            assert colors.GetColorName(bone.label) == bone.name
            color = [0.0] * 4
            colors.GetColor(bone.label, color)
            assert [round(channel * 255) for channel in color] == [*bone.color, 255]
            entry = colors.GetTerminologyAsString(bone.label)
            assert f"SCT^123037004^Anatomical Structure~SCT^{bone.type.value}^{bone.type.meaning}~" in entry
        storage.SetFileName(str(tmp_path / "again.csv"))
        assert storage.WriteData(colors)  # and what Slicer writes is read here
        assert JointTable.from_csv((tmp_path / "again.csv").read_text(), joint) == joint_table(joint)


def test_a_plain_table_without_codes_and_in_any_order_is_enough():
    table = JointTable.from_csv("\ufeff" + HEADER + "2,radius,1,2,3\r\n0,background,0,0,0\r\n1,ulna,,,\r\n", "elbow")
    assert table.names == ("ulna", "radius")
    assert table.bone("radius").color == (1, 2, 3) and table.bone("ulna").color == (128, 128, 128)
    assert table.bone("ulna").type.value == ""


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "lacks the column LabelValue"),
        ("LabelValue,Title\n1,ulna\n", "lacks the column Name"),
        (HEADER, "label values are []"),
        (HEADER + "1,ulna,,,\n3,radius,,,\n", "label values are [1, 3]"),
        (HEADER + "1,ulna,,,\n1,radius,,,\n", "label values are [1, 1]"),
        (HEADER + "1,ulna,,,\n2,Ulna,,,\n", "occurs twice"),
        (HEADER + "1,../ulna,,,\n", "is not a valid name for a bone"),
        (HEADER + "1,,,,\n", "is not a valid name for a bone"),
        (HEADER + "one,ulna,,,\n", "line 2"),
        (HEADER + "1,ulna,300,0,0\n", "line 2"),
        ("LabelValue,Name,Type_CodeValue\n1,ulna,1~2\n", "line 2"),
    ],
)
def test_a_faulty_table_is_refused_by_name(text, fault):
    with pytest.raises(BadInput) as refusal:
        JointTable.from_csv(text, "elbow")
    assert "'elbow'" in str(refusal.value) and fault in str(refusal.value)


def test_an_unknown_joint_is_refused_with_the_known_ones():
    with pytest.raises(BadInput, match="no joint 'hip'; the known ones are ankle, knee, shoulder"):
        joint_table("hip")


@pytest.mark.parametrize(
    "module, absent",
    [
        ("PedBoneSegLib.anatomy", "numpy"),
        ("PedBoneSegLib.formats.names", "numpy"),
        ("PedBoneSegLib.formats.reading", "SimpleITK scipy vtk torch"),
        ("PedBoneSegLib.formats.segments", "SimpleITK scipy vtk torch"),
        ("PedBoneSegLib.formats.writing", "SimpleITK scipy vtk torch"),
        ("PedBoneSegLib.results.measure", "SimpleITK scipy vtk torch"),
        ("PedBoneSegLib.results.surfaces", "SimpleITK scipy vtk torch"),
    ],
)
def test_importing_is_instant(module, absent):
    code = f"import {module}, sys; print(*set('{absent}'.split()) & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
