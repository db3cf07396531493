"""Puts label maps into a segmentation, a few slices at a time; as in labelmaps.py, generators have names in -ing."""

from collections.abc import Callable, Generator, Iterator
from itertools import combinations

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable

from .labelmaps import BoneVoxels, copying, findingBones, findingBox, newImage, slabs, unchanged, voxelsOf
from .segmentations import LABELMAP, addBone, segmentIds, segmentOfBone
from .tasks import runToEnd
from .volumes import gridOf

SURFACE = "Closed surface"


def filling(segmentation, volume, labels: np.ndarray, table: JointTable, side: str | None) -> Iterator[None]:
    """Puts labels on the volume's grid into a segmentation without segments, as one shared label map."""
    segmentation.GetSegmentation().SetSourceRepresentationName(LABELMAP)
    box = yield from findingBox(labels)
    image = newImage(gridOf(volume), box)
    yield from copying(labels[box], voxelsOf(image))
    for bone in table.bones:
        addBone(segmentation, bone, side, image, bone.label)


def replacing(
    segmentation, volume, labels: np.ndarray, table: JointTable, side: str | None, kept: list[int], axis: int
) -> Iterator[None]:
    """Puts labels into a segmentation that has segments; the slices `kept` across `axis` stay as they are.

    Segments that are no bones of the table are not touched. The bones get new images; the old ones are not written to,
    except where volume and segmentation have different transforms. The caller has saved the state for undo.
    """
    segmentation.CreateBinaryLabelmapRepresentation()
    segmentation.SetSourceRepresentationToBinaryLabelmap()
    if not sameTransform(segmentation, volume):
        yield from _replacingBySlicer(segmentation, volume, labels, table, side, kept, axis)
        return
    with unchanged(segmentation):
        yield
        before = yield from findingBones(segmentation, table, volume)
        box = yield from _enclosing(labels, before)
        layers = yield from _layering(table, before, kept, axis, labels.shape)
        images = []
        for layer in layers:
            image = newImage(gridOf(volume), box)
            images.append(image)
            yield from _composing(image, box, labels, table, layer, before, kept, axis)
        others = yield from _copyingOthers(segmentation, table)
    for layer, image in zip(layers, images, strict=True):
        for bone in (bone for bone in table.bones if bone.name in layer):
            segmentId = segmentOfBone(segmentation, bone)
            if segmentId:
                setVoxels(segmentation, segmentId, image, bone.label)
            else:
                addBone(segmentation, bone, side, image, bone.label)
    for segmentId, image in others.items():
        value = segmentation.GetSegmentation().GetSegment(segmentId).GetLabelValue()
        setVoxels(segmentation, segmentId, image, value)
    if segmentation.GetSegmentation().ContainsRepresentation(SURFACE):  # of the old voxels
        segmentation.RemoveClosedSurfaceRepresentation()
        yield
        segmentation.CreateClosedSurfaceRepresentation()


def _enclosing(labels: np.ndarray, bones: dict[str, BoneVoxels]) -> Generator[None, None, tuple[slice, slice, slice]]:
    """A box that holds all labels and the images of all bones."""
    box = yield from findingBox(labels)
    for bone in bones.values():
        size = voxelsOf(bone.image).shape
        box = tuple(
            slice(min(part.start, first), max(part.stop, first + n))
            for part, first, n in zip(box, bone.start, size, strict=True)
        )
    return box


def _composing(image, box, labels, table, layer: list[str], before, kept: list[int], axis: int) -> Iterator[None]:
    """Fills the image of a layer: the new labels, in the slices `kept` the old bones."""
    along, voxels, values = 2 - axis, voxelsOf(image), np.zeros(256, np.uint8)
    for name in layer:
        values[table.labels[name]] = table.labels[name]
    for slab in slabs(voxels.shape, axis):
        place = tuple(slice(part.start + b.start, part.stop + b.start) for part, b in zip(slab, box, strict=True))
        new = values[labels[place]]
        for index in (index for index in kept if place[along].start <= index < place[along].stop):
            inSlab = tuple(
                slice(index - part.start, index - part.start + 1) if n == along else slice(None)
                for n, part in enumerate(place)
            )
            inGrid = tuple(slice(index, index + 1) if n == along else part for n, part in enumerate(place))
            new[inSlab] = 0
            for name in (name for name in layer if name in before):
                new[inSlab][before[name].mask(inGrid)] = table.labels[name]
        voxels[slab] = new
        yield


def sameTransform(segmentation, volume) -> bool:
    return segmentation.GetTransformNodeID() == volume.GetTransformNodeID()


def setVoxels(segmentation, segmentId: str, image, value: int) -> None:
    segment = segmentation.GetSegmentation().GetSegment(segmentId)
    segment.AddRepresentation(LABELMAP, image)
    segment.SetLabelValue(value)


def _layering(
    table: JointTable, before: dict[str, BoneVoxels], kept: list[int], axis: int, shape: tuple[int, ...]
) -> Generator[None, None, list[list[str]]]:
    """Bones that can share one label map: new ones never overlap, but drawn ones may, in the slices that are kept."""
    overlapping = set()
    for index in kept:
        slab = tuple(slice(index, index + 1) if n == 2 - axis else slice(0, size) for n, size in enumerate(shape))
        masks = {name: bone.mask(slab) for name, bone in before.items()}
        overlapping |= {pair for pair in combinations(masks, 2) if (masks[pair[0]] & masks[pair[1]]).any()}
        yield
    layers: list[list[str]] = []
    for name in table.names:
        for layer in layers:
            if not any((name, other) in overlapping or (other, name) in overlapping for other in layer):
                layer.append(name)
                break
        else:
            layers.append([name])
    return layers


def _copyingOthers(segmentation, table: JointTable) -> Generator[None, None, dict[str, object]]:
    """Images of their own for the segments that share a label map with a bone: {segment: image}.

    Else the bone's old voxels would stay in that label map, and the next segment added to it might get their value.
    """
    core = segmentation.GetSegmentation()
    bones = {segmentOfBone(segmentation, bone) for bone in table.bones}
    shared = {core.GetSegment(segmentId).GetRepresentation(LABELMAP) for segmentId in bones if segmentId}
    copies: dict[object, tuple] = {}  # old image: (new image, values to keep)
    result = {}
    for segmentId in segmentIds(segmentation):
        segment = core.GetSegment(segmentId)
        old = segment.GetRepresentation(LABELMAP)
        if segmentId in bones or old not in shared:
            continue
        if old not in copies:
            new = slicer.vtkOrientedImageData()
            new.SetExtent(old.GetExtent())
            new.AllocateScalars(old.GetScalarType(), 1)
            new.CopyDirections(old)
            new.SetSpacing(old.GetSpacing())
            new.SetOrigin(old.GetOrigin())
            copies[old] = (new, [])
        copies[old][1].append(segment.GetLabelValue())
        result[segmentId] = copies[old][0]
    for old, (new, values) in copies.items():
        source, target = voxelsOf(old), voxelsOf(new)
        for slab in slabs(target.shape, 2):
            target[slab] = np.where(np.isin(source[slab], values), source[slab], 0)
            yield
    return result


def _replacingBySlicer(segmentation, volume, labels, table, side, kept: list[int], axis: int) -> Iterator[None]:
    """One bone per step; Slicer transforms and resamples it."""
    whole = tuple(slice(0, size) for size in labels.shape)
    with unchanged(segmentation):
        before = yield from findingBones(segmentation, table, volume)
    for bone in table.bones:
        mask = labels == bone.label
        old = before[bone.name].mask(whole) if bone.name in before else np.zeros(labels.shape, bool)
        np.moveaxis(mask, 2 - axis, 0)[kept] = np.moveaxis(old, 2 - axis, 0)[kept]
        segmentId = segmentOfBone(segmentation, bone)
        if not segmentId:
            empty = newImage(gridOf(volume), (slice(0, 1),) * 3)
            voxelsOf(empty)[:] = 0
            segmentId = addBone(segmentation, bone, side, empty, 1)
        writeMask(segmentation, segmentId, mask, volume)
        yield


def writeMask(segmentation, segmentId: str, mask: np.ndarray, volume) -> None:
    """Sets a segment from a mask on the volume's grid, also where the two have different transforms; all at once."""
    grid = gridOf(volume)
    box = runToEnd(findingBox(mask))
    image = newImage(grid, box)
    voxelsOf(image)[:] = mask[box]
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if not sameTransform(segmentation, volume):
        transform = vtk.vtkGeneralTransform()
        logic.GetTransformBetweenRepresentationAndSegmentation(volume, segmentation, transform)
        slicer.vtkOrientedImageDataResample.TransformOrientedImage(image, transform)
    if not logic.SetBinaryLabelmapToSegment(image, segmentation, segmentId, logic.MODE_REPLACE):
        raise RuntimeError(_("the segment {name} could not be written").format(name=segmentId))


def backup(segmentation, volume) -> Callable[[], None]:
    """Returns a function that gives the segmentation back the segments and voxels that it has now.

    `replacing` gives the bones new images, so it is enough to remember the old ones; only where it writes to them
    (different transforms) they are copied.
    """
    core = segmentation.GetSegmentation()
    if not sameTransform(segmentation, volume):
        copy = slicer.vtkSegmentation()
        copy.DeepCopy(core)
        return lambda: core.DeepCopy(copy)
    before = {
        segmentId: (core.GetSegment(segmentId).GetRepresentation(LABELMAP), core.GetSegment(segmentId).GetLabelValue())
        for segmentId in segmentIds(segmentation)
    }

    def restore() -> None:
        for segmentId in segmentIds(segmentation):
            if segmentId not in before:
                core.RemoveSegment(segmentId)
            elif before[segmentId][0] is not None:
                setVoxels(segmentation, segmentId, *before[segmentId])

    return restore
