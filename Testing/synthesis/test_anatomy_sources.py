"""Bones from meshes and label maps, made up here."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PedBoneSegTraining.synthesis import convert
from PedBoneSegTraining.synthesis.anatomy import JOINTS, labelmaps, meshes, people, sampled
from PedBoneSegTraining.synthesis.anatomy.shapes import rotation
from PedBoneSegTraining.synthesis.anatomy.sources import labelmap_source, mesh_source, shape_source

from PedBoneSegLib.errors import BadInput


def model_surface(joint: str, bone_name: str, step: float = 2.0):
    """A modelled bone sampled in the joint's own millimetres: → signed distance [x, y, z], origin."""
    bone = next(b for b in JOINTS[joint].build(sampled.average_parameters(joint)).bones if b.name == bone_name)
    low, high = np.maximum(np.array(bone.low) - 4, -70), np.minimum(np.array(bone.high) + 4, 70)
    corners = np.array([bone.frame.world(c) for c in (low, high)])
    low, high = corners.min(0), corners.max(0)
    axes = [torch.arange(float(a), float(b), step) for a, b in zip(low, high, strict=True)]
    p = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return bone.shape(bone.frame.local(p)).surface.numpy(), low


def write_mesh(path, points, triangles):
    import vtk

    data, where, cells = vtk.vtkPolyData(), vtk.vtkPoints(), vtk.vtkCellArray()
    for p in points:
        where.InsertNextPoint(*p)
    for t in triangles:
        cells.InsertNextCell(3, [int(i) for i in t])
    data.SetPoints(where)
    data.SetPolys(cells)
    writer = vtk.vtkXMLPolyDataWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(data)
    writer.Write()


def cube(low, high):
    sides = list(zip(low, high, strict=True))
    corners = np.array([(x, y, z) for x in sides[0] for y in sides[1] for z in sides[2]], float)
    faces = [
        (0, 1, 3),
        (0, 3, 2),
        (4, 6, 7),
        (4, 7, 5),
        (0, 4, 5),
        (0, 5, 1),
        (2, 3, 7),
        (2, 7, 6),
        (0, 2, 6),
        (0, 6, 4),
        (1, 5, 7),
        (1, 7, 3),
    ]
    return corners, faces


def test_a_closed_mesh_is_filled_and_one_gap_does_no_harm():
    points, faces = cube((1.5, 2.5, 3.5), (11.5, 8.5, 15.5))
    for given in (faces, faces[1:]):
        inside = meshes.winding(points, np.array(given), np.zeros(3), np.array([16, 12, 20]))
        expected = np.zeros((16, 12, 20), bool)
        expected[2:12, 3:9, 4:16] = True
        assert (inside == expected).mean() > 0.995


def column(points):
    """Points as fields of one column, [n, 1, 1] a coordinate."""
    return [torch.tensor([float(p[i]) for p in points])[:, None, None] for i in range(3)]


def test_a_mask_becomes_a_true_distance():
    mask = np.zeros((30, 30, 30), bool)
    mask[10:20, 10:20, 10:20] = True
    field = sampled.Field.from_mask(mask, (0, 0, 0), (1, 1, 1), smooth_mm=0.01)
    p = column([(14.5, 14.5, 14.5), (14.5, 24.5, 14.5), (14.5, 40.0, 14.5)])
    assert field(p).flatten().tolist() == pytest.approx([-4.5, 5, 20.5], abs=0.6)


def test_a_cut_shaft_goes_on_and_a_whole_end_does_not():
    mask = np.zeros((20, 20, 20), bool)
    mask[6:14, 6:14, :16] = True
    field = sampled.Field.from_mask(mask, (0, 0, 0), (1, 1, 1), (True, False), smooth_mm=0.01)
    below, above = field(column([(9.5, 9.5, -30), (9.5, 9.5, 40)])).flatten().tolist()
    assert below < -2 and above > 10


@pytest.fixture(scope="module")
def knee_label_map(tmp_path_factory):
    """The modelled knee as a file: a right knee in LPS, labels of its own, 2 mm."""
    path = tmp_path_factory.mktemp("shapes") / "knee.nii.gz"
    labels = np.zeros((60, 60, 70), np.uint8)
    for value, bone in ((5, "femur"), (6, "tibia"), (7, "patella"), (8, "fibula")):
        surface, low = model_surface("knee", bone)
        start = np.round((low + (60, 60, 70)) / 2).astype(int)
        for i, j, k in np.argwhere(surface < 0) + start:
            if 0 <= i < 60 and 0 <= j < 60 and 0 <= k < 70:
                labels[i, j, k] = value
    array = labels[::-1, ::-1]  # lateral, anterior → left, posterior of a right knee
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing((2.0, 2.0, 2.0))
    sitk.WriteImage(image, str(path))
    return path


VALUES = {"femur": 5, "tibia": 6, "patella": 7, "fibula": 8}


def test_a_label_map_of_the_model_gives_the_model_back(knee_label_map):
    fields = labelmaps.load(knee_label_map, "knee", VALUES)
    assert fields.keys() == VALUES.keys()
    assert fields["femur"].cut == (False, True) and fields["tibia"].cut == (True, False)
    frames = sampled.neutral_frames("knee")
    bones = {b.name: b for b in JOINTS["knee"].build(sampled.average_parameters("knee")).bones}
    axes = [torch.arange(-40.0, 60.0, 4.0)] * 2 + [torch.arange(-50.0, 50.0, 4.0)]
    p = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    for name, field in fields.items():
        local = frames[name].local(p)
        ours, theirs = field(local) < 0, bones[name].shape(local).surface < 0
        assert 2 * (ours & theirs).sum() > 0.8 * (ours.sum() + theirs.sum()), name


def test_a_label_map_source_builds_a_child(knee_label_map):
    source = labelmap_source(knee_label_map, "knee", VALUES)
    drawn = source.parameters(1, "knee", 0, 8.0)
    assert drawn["source"] == "labelmap"
    drawn["soft"]["other_side_mm"] = None
    drawn["center_mm"] = [0.0, 0.0, 0.0]
    anatomy = source.build(drawn, spacing=1.8)
    for label in range(1, 5):
        assert (anatomy.bones == label).sum() > 100, anatomy.names[label - 1]
    bones = anatomy.bones
    for axis in range(3):
        a, b = bones.narrow(axis, 0, bones.shape[axis] - 1), bones.narrow(axis, 1, bones.shape[axis] - 1)
        assert not ((a != b) & (a > 0) & (b > 0)).any()


def test_the_values_of_a_label_map_can_be_named_with_its_path(knee_label_map):
    named = shape_source(f"{knee_label_map}#femur=5,tibia=6,patella=7,fibula=8,side=right", "knee")
    plain = labelmap_source(knee_label_map, "knee", VALUES)
    drawn = plain.parameters(1, "knee", 0, 12.0)
    assert torch.equal(named.build(drawn, spacing=4.0).bones, plain.build(drawn, spacing=4.0).bones)
    with pytest.raises(BadInput, match="names no labels"):
        shape_source(f"{knee_label_map}#femur=five", "knee")
    with pytest.raises(BadInput, match="no voxel of"):
        shape_source(knee_label_map, "knee").build(drawn)  # the table's values are not the file's
    with pytest.raises(BadInput, match="not a shoulder"):
        plain.build(plain.parameters(1, "shoulder", 0))


def test_meshes_are_read_placed_and_built(tmp_path):
    """A box for a humerus and a slab for a scapula: crude, but where they belong."""
    humerus, faces = cube((-0.02, -0.2, -0.024), (0.02, 0.022, 0.026))  # x anterior, y up, z lateral; metres
    scapula, _ = cube((-0.008, -0.06, -0.09), (0.008, 0.03, -0.035))
    write_mesh(tmp_path / "h.vtp", humerus, faces)
    write_mesh(tmp_path / "s.vtp", scapula, faces[:-1])  # a gap in it
    poses = {
        "units": "meters",
        "shoulder": {
            "humerus": {"mesh": "h.vtp", "offset": [0, 0, 0]},
            "scapula": {"mesh": "s.vtp", "offset": [0, 0, 0]},
        },
    }
    (tmp_path / "poses.json").write_text(json.dumps(poses))
    assert meshes.joints_in(tmp_path) == ("shoulder",)
    source = mesh_source(tmp_path)
    drawn = source.parameters(2, "shoulder", 0, 16.0) | {"blend": 0.0, "turn": [0, 0, 0], "bend_mm": [0, 0]}
    drawn["warp"]["amplitude"] = 0.0
    anatomy = source.build(drawn, spacing=2.0)
    assert (anatomy.bones == 1).sum() > 1000 and (anatomy.bones == 2).sum() > 500
    thick = volumes_ratio(anatomy)
    assert thick > 0.3
    with pytest.raises(BadInput, match="no joint knee"):
        source.build(source.parameters(2, "knee", 0))
    with pytest.raises(BadInput, match="no poses.json"):
        mesh_source(tmp_path / "nowhere").build(drawn)


def volumes_ratio(anatomy) -> float:
    """The slab's voxels per voxel of its own box: a thin modelled scapula would fill far less of it."""
    where = torch.nonzero(anatomy.bones == 2)
    return len(where) / float((where.amax(0) - where.amin(0) + 1).prod())


# ------------------------------------------------------------------------------------------------------ many people


def save_person(folder, name, bones=("ankle.talus",), unseen=False, age=None, radius=15.0):
    """A person whose bones are balls of `radius` mm about their frames' origins."""
    axis = torch.arange(-25.0, 26.0, 1.0)
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) - radius
    field = sampled.Field(distance, np.full(3, -25.0), np.ones(3))
    about = {"person": name, "sources": [], "licences": [], "unseen": unseen, "age": age}
    people.write_person(folder / f"{name}.npz", about | {"bones": {b: {} for b in bones}}, dict.fromkeys(bones, field))


def test_a_persons_file_gives_the_distances_back(tmp_path):
    save_person(tmp_path, "anna", ("ankle.talus", "knee.patella"), age=9)
    (anna,) = people.people_in(tmp_path)
    assert anna.has("ankle") == ("talus",) and anna.has("knee") == ("patella",) and not anna.has("shoulder")
    field = people.fields((anna,), "ankle", {"person": "anna", "companion": None})["talus"]
    assert field(column([(0, 0, 0), (14, 0, 0), (0, 20, 0)])).flatten().tolist() == pytest.approx([-15, -1, 5], abs=0.2)
    assert field.shaft == pytest.approx(0.89)  # nine years old: a shaft is not made thinner a second time


def test_people_who_are_kept_out_of_training_are_drawn_only_when_asked_for(tmp_path):
    for name in ("anna", "ben", "cem"):
        save_person(tmp_path, name, unseen=name == "ben")

    def drawn(choice: str) -> set[str]:
        source = shape_source(f"{tmp_path}{choice}", "ankle")
        return {source.parameters(0, "ankle", i)["person"] for i in range(40)}

    assert drawn("") == {"anna", "cem"} and drawn("#unseen") == {"ben"}
    assert drawn("#without=cem") == {"anna"} and drawn("#only=ben,cem") == {"ben", "cem"}
    for wrong, says in (("#without=dora", "no person dora"), ("#some", "chooses nobody"), ("#only=", "chooses nobody")):
        with pytest.raises(BadInput, match=says):
            drawn(wrong)
    with pytest.raises(BadInput, match="nobody with bones of the knee"):
        shape_source(tmp_path, "knee")


def test_bones_that_a_person_lacks_are_a_companions_or_modelled(tmp_path):
    save_person(tmp_path, "anna", ("ankle.talus",))
    save_person(tmp_path, "heel", ("ankle.calcaneus",), radius=20.0)
    source = shape_source(tmp_path, "ankle")
    exams = [source.parameters(0, "ankle", i) for i in range(60)]
    pairs = {(drawn["person"], drawn["companion"]) for drawn in exams}
    assert pairs == {("anna", "heel"), ("anna", None), ("heel", "anna"), ("heel", None)}
    both = people.fields(source.people, "ankle", {"person": "anna", "companion": "heel"})
    assert both.keys() == {"talus", "calcaneus"}
    assert float(both["calcaneus"].distance.min()) == pytest.approx(-20, abs=0.1)


def test_a_bone_is_laid_onto_the_model_wherever_it_was():
    surface, low = model_surface("ankle", "talus")
    points = np.argwhere(np.abs(surface) < 1.0) * 2.0 + low
    turn = rotation(x=6, y=-5, z=12)
    moved = (1.3 * points) @ turn.T + [40.0, -25.0, 900.0]
    models = {bone.name: bone for bone in JOINTS["ankle"].build(sampled.average_parameters("ankle")).bones}
    scale, back, shift = convert.lay_onto({"talus": moved}, models, "ankle")
    assert scale == pytest.approx(1 / 1.3, rel=0.05)  # by extents, so it depends a little on the turn
    assert np.abs(scale * moved @ back.T + shift - points).mean() < 1.5


def test_both_sides_of_a_person_are_kept_out_of_training_together():
    def side(name, person, source="lenz_talocrural_CC0"):
        return convert.Subject(name, person, source, "ankle", "x -y z", {})

    many = [side(f"{s}_{i}", f"person {i}") for i in range(30) for s in "LR"]
    unseen = {one.name for one in many if convert.is_unseen(one, many)}
    assert 12 <= len(unseen) <= 28 and {name.replace("L", "R") for name in unseen if name[0] == "L"} == {
        name for name in unseen if name[0] == "R"
    }
    assert not any(convert.is_unseen(one, many[:8]) for one in many[:8])  # four people are too few to split
    assert convert.is_unseen(side("BP3D", "BP3D", "bodyparts3d_severus"), [])
