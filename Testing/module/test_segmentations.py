"""Ring 2: labels become segments of real MRML; geometry, transforms, terminology, undo."""

import numpy as np
import pytest
import slicer
import vtk
from module.bones import KNEE, SIZE, blocks, edits, fill, oblique, record, refill
from PedBoneSegUI import labelmaps, segmentations, segmenting, volumes
from PedBoneSegUI.tasks import runToEnd

from PedBoneSegLib.volume import Grid


def asArray(segmentation, bone: str, volume) -> np.ndarray:
    segment = segmentations.segmentOfBone(segmentation, KNEE.bone(bone))
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume) > 0


def moved(volume):
    """The volume under a transform that turns and shifts it."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform = vtk.vtkTransform()
    transform.RotateY(40)
    transform.Translate(30, -5, 11)
    node.SetMatrixTransformToParent(transform.GetMatrix())
    volume.SetAndObserveTransformNodeID(node.GetID())
    return node


@pytest.fixture(params=["straight", "oblique", "moved"])
def volume(request, makeVolume):
    node = makeVolume(matrix=oblique() if request.param == "oblique" else None)
    if request.param == "moved":
        moved(node)
    return node


@pytest.fixture
def filled(volume):
    segmentation = segmentations.createSegmentation(volume, "bones")
    fill(segmentation, volume, blocks(), KNEE, "right")
    record(segmentation, volume, [], side="right")
    return segmentation


def test_everyVoxelArrivesWhereItWas(volume, filled):
    for bone in KNEE.bones:
        assert np.array_equal(asArray(filled, bone.name, volume), blocks() == bone.label), bone.name
    assert np.array_equal(labelmaps.mergedLabels(filled, KNEE, volume), blocks())


def test_aVoxelLiesAtTheSamePlaceOfTheWorld(volume, filled):
    """The patella's lonely voxel, through the segment's own geometry and transform, against the volume's."""
    segment = filled.GetSegmentation().GetSegment(segmentations.segmentOfBone(filled, KNEE.bone("patella")))
    image = segment.GetRepresentation(segmentations.LABELMAP)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    ours = np.array(matrix.MultiplyPoint((23, 19, 7, 1)))[:3]
    if filled.GetParentTransformNode():
        transform = vtk.vtkGeneralTransform()
        filled.GetParentTransformNode().GetTransformToWorld(transform)
        ours = transform.TransformPoint(ours)
    ijkToRas = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(ijkToRas)
    theirs = np.array(ijkToRas.MultiplyPoint((23, 19, 7, 1)))
    if volume.GetParentTransformNode():
        transform = vtk.vtkGeneralTransform()
        volume.GetParentTransformNode().GetTransformToWorld(transform)
        theirs = np.array(transform.TransformPoint(theirs[:3]))
    assert np.allclose(ours, theirs[:3], atol=1e-4)
    assert image.GetScalarComponentAsDouble(23, 19, 7, 0) == 4


def test_namesColorsTerminologyAndStatus(filled):
    segment = filled.GetSegmentation().GetSegment(segmentations.segmentOfBone(filled, KNEE.bone("femur")))
    assert segment.GetName() == "Right femur"
    assert np.allclose(segment.GetColor(), np.array(KNEE.bone("femur").color) / 255)
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(segment.GetTerminology(), entry)
    assert entry.GetTypeObject().GetCodeValue() == "71341001"
    assert entry.GetTypeModifierObject().GetCodeMeaning() == "Right"
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.GetSegmentStatus(segment) == logic.InProgress
    segmentations.setStatus(filled, KNEE, finished=True)
    assert logic.GetSegmentStatus(segment) == logic.Completed


def test_withoutASideNothingIsClaimed(makeVolume):
    segmentation = segmentations.createSegmentation(makeVolume(), "bones")
    fill(segmentation, makeVolume(), blocks(), KNEE, None)
    segment = segmentation.GetSegmentation().GetSegment(segmentations.segmentOfBone(segmentation, KNEE.bone("tibia")))
    assert segment.GetName() == "Tibia" and "Right" not in segment.GetTerminology()


def test_dicomExportFindsGeometryAndStudy(volume, filled):
    assert segmentations.volumeOf(filled) is volume
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(volume), study)
    second = segmentations.createSegmentation(volume, "second")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(second)) == study


def test_editsAreSeenAndKept(volume, filled):
    assert edits(filled, KNEE, volume, 2) == []
    femur = asArray(filled, "femur", volume)
    femur[4, 3:5, 4:6] = False
    femurId = segmentations.segmentOfBone(filled, KNEE.bone("femur"))
    slicer.util.updateSegmentBinaryLabelmapFromArray(femur.astype(np.uint8), filled, femurId, volume)
    assert edits(filled, KNEE, volume, 2) == [4]
    other = np.roll(blocks(), 2, axis=2)
    refill(filled, volume, other, KNEE, "right", [4], 2)
    labels = labelmaps.mergedLabels(filled, KNEE, volume)
    expected = other.copy()
    expected[4] = blocks()[4]
    expected[4, 3:5, 4:6] = 0
    assert np.array_equal(labels, expected)
    record(filled, volume, [4], side="right")
    assert edits(filled, KNEE, volume, 2) == [4], "an edit that was kept stays known as one"


def editorOf(segmentation):
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(segmentation)
    return editor


def test_undoBringsAHandMadeSegmentationBack(volume):
    """Made by hand: a femur, and a segment that is no bone. One undo step takes the result away, voxel for voxel."""
    rng = np.random.default_rng(7)
    byHand = {"Femur": rng.random(SIZE) > 0.6, "Cyst": rng.random(SIZE) > 0.8}
    segmentation = segmentations.createSegmentation(volume, "by hand")
    for name, mask in byHand.items():
        segment = segmentation.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, segment, volume)
    editor = editorOf(segmentation)
    editor.saveStateForUndo()
    refill(segmentation, volume, blocks(), KNEE, None, [], 2)
    assert np.array_equal(asArray(segmentation, "femur", volume), blocks() == 1)
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 5
    cyst = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "Cyst", volume) > 0
    assert np.array_equal(cyst, byHand["Cyst"]), "what is no bone is not touched"
    editor.undo()
    core = segmentation.GetSegmentation()
    names = {core.GetNthSegment(index).GetName() for index in range(core.GetNumberOfSegments())}
    assert names == set(byHand)
    for name, mask in byHand.items():
        back = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, name, volume) > 0
        assert np.array_equal(back, mask), name


def test_aSegmentationUnderAnotherTransform(makeVolume):
    """The volume moves, the segmentation stays: the result still lies on the bone, in the segmentation's space."""
    volume = makeVolume()
    segmentation = segmentations.createSegmentation(volume, "bones")
    fill(segmentation, volume, blocks(), KNEE, None)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = vtk.vtkTransform()
    shift.Translate(2 * 0.7, 0, 0)  # two voxels along i
    node.SetMatrixTransformToParent(shift.GetMatrix())
    volume.SetAndObserveTransformNodeID(node.GetID())
    labels = np.roll(blocks(), -2, axis=2)
    labels[7] = 0
    refill(segmentation, volume, labels, KNEE, None, [], 2)
    volume.SetAndObserveTransformNodeID(None)
    expected = np.roll(labels, 2, axis=2)
    assert np.array_equal(asArray(segmentation, "tibia", volume), expected == 2)


def test_resultsGoInWholeOrNotAtAll(volume, tmp_path):
    """A label file on another grid leaves the scene as it was."""
    grid = volumes.gridOf(volume)
    path = tmp_path / "labels.nrrd"
    runToEnd(volumes.writing(np.zeros((4, 4, 4), np.uint8), Grid.from_affine((4, 4, 4), grid.affine), path))
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(RuntimeError, match="grid"):
        runToEnd(segmenting.inserting(segmenting.Choice(volume), {"joint": "knee"}, grid, path, None, "bones"))
    assert slicer.mrmlScene.GetNumberOfNodes() == before


@pytest.mark.parametrize("steps", range(1, 5))
def test_aResultThatIsInterruptedIsTakenBack(volume, filled, tmp_path, steps):
    """Closed after any of its steps: no new node, and the segmentation as it was, voxel for voxel."""
    path = tmp_path / "labels.nrrd"
    runToEnd(volumes.writing(np.roll(blocks(), 3, axis=1), volumes.gridOf(volume), path))
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    for target in (filled, None):
        choice = segmenting.Choice(volume, segmentation=target)
        landing = segmenting.inserting(choice, {"joint": "knee"}, volumes.gridOf(volume), path, path, "bones")
        for _step in range(steps):
            next(landing)
        landing.close()
        assert slicer.mrmlScene.GetNumberOfNodes() == nodes
        assert np.array_equal(labelmaps.mergedLabels(filled, KNEE, volume), blocks())
        assert edits(filled, KNEE, volume, 2) == []


def test_segmentsOfOthersAreRecognizedByName(makeVolume):
    segmentation = segmentations.createSegmentation(makeVolume(), "others")
    core = segmentation.GetSegmentation()
    core.AddEmptySegment("a", "left FEMUR ")
    core.AddEmptySegment("b", "Tibial plateau")
    assert segmentations.segmentOfBone(segmentation, KNEE.bone("femur")) == "a"
    assert segmentations.segmentOfBone(segmentation, KNEE.bone("tibia")) == ""


def test_memorySurvivesSavingTheScene(filled, tmp_path):
    copy = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentationNode")
    copy.UnRegister(None)
    copy.Copy(filled)
    assert segmentations.memoryOf(copy)["side"] == "right"
    assert segmentations.tableOf(copy) == KNEE
    assert segmentations.tableOf(slicer.vtkMRMLSegmentationNode()) is None
    copy.SetAttribute(segmentations.MEMORY, "{damaged")
    assert segmentations.memoryOf(copy) == {}
