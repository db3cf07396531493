"""The slices of a result in the order in which they deserve an eye, and the views that show them."""

import slicer
from slicer.i18n import tr as _

from . import images, segmentations


class Review:
    """Walks through the worker's list; what was seen is kept in the segmentation's memory, so in the scene."""

    def __init__(self, segmentation) -> None:
        self.segmentation = segmentation
        memory = segmentations.memoryOf(segmentation)
        self.slices: list[dict] = memory.get("slices") or []
        self.axis: int = memory.get("axis", 2)
        self.seen: list[int] = list(memory.get("seen") or [])  # positions in `slices`, as shown
        self.right: list[int] = list(memory.get("right") or [])  # positions that were called right
        self.position = int(memory.get("position", -1))

    def isCurrent(self) -> bool:
        """False once a new result was written into the segmentation."""
        memory = segmentations.memoryOf(self.segmentation)
        return self.slices == (memory.get("slices") or []) and self.seen == (memory.get("seen") or [])

    @property
    def current(self) -> dict | None:
        return self.slices[self.position] if 0 <= self.position < len(self.slices) else None

    def goTo(self, position: int) -> dict | None:
        """Moves to a position of the list, not beyond its ends, and notes the slice as seen."""
        if not self.slices:
            return None
        self.position = min(max(position, 0), len(self.slices) - 1)
        if self.position not in self.seen:
            self.seen.append(self.position)
        self._save()
        return self.current

    def next(self) -> dict | None:
        return self.goTo(self.position + 1)

    def previous(self) -> dict | None:
        return self.goTo(self.position - 1)

    def callRight(self) -> dict | None:
        """The slice at hand looks right; goes on to the next one that was not called right yet."""
        if self.current is not None and self.position not in self.right:
            self.right.append(self.position)
        later = [position for position in range(len(self.slices)) if position not in self.right]
        following = [position for position in later if position > self.position] or later
        return self.goTo(following[0] if following else self.position)

    @property
    def complete(self) -> bool:
        return bool(self.slices) and set(self.right) >= set(range(len(self.slices)))

    @property
    def shareSeen(self) -> float:
        """Expected part of all errors that lies in the slices seen so far, 0 to 1."""
        shares = [0.0, *(float(entry.get("share") or 0.0) for entry in self.slices)]
        return sum(shares[position + 1] - shares[position] for position in self.seen if position < len(self.slices))

    @property
    def text(self) -> str:
        if not self.slices:
            return _("This result brings no list of doubtful slices; go through it by eye.")
        if self.current is None:
            count, share = self._worthwhile()
            return _("{n} slices cover {share} % of what is likely wrong.").format(n=count, share=round(100 * share))
        line = _("Slice {k} of {n} (number {index})").format(
            k=self.position + 1, n=len(self.slices), index=self.current["index"] + 1
        )
        state = _("looks right") if self.position in self.right else _("not judged yet")
        seen = _("{share} % of the likely errors seen").format(share=round(100 * self.shareSeen))
        return " · ".join((line, state, seen))

    def _worthwhile(self) -> tuple[int, float]:
        """How many slices to look at until four fifths of the likely errors are seen, and what they cover."""
        for count, entry in enumerate(self.slices, start=1):
            if float(entry.get("share") or 0.0) >= 0.8:
                return count, float(entry["share"])
        return len(self.slices), float(self.slices[-1].get("share") or 0.0)

    def _save(self) -> None:
        segmentations.remember(self.segmentation, seen=self.seen, right=self.right, position=self.position)


def showSlice(volume, axis: int, index: int) -> None:
    """Every slice view jumps to the slice; views turned to the volume's own plane show exactly that slice."""
    r, a, s = images.sliceCenter(volume, axis, index)
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(r, a, s)


def turnViewsToVolume(volume) -> None:
    """The views take the acquisition's own planes, oblique ones too."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.RotateToVolumePlane(volume)


def showDoubt(segmentation, visible: bool) -> bool:
    """Lays the doubt over the image, or takes it away; False if the result brought none."""
    doubt = segmentation.GetNodeReference(segmentations.DOUBT_ROLE) if segmentation else None
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if visible and doubt is not None:
            composite.SetForegroundVolumeID(doubt.GetID())
            composite.SetForegroundOpacity(0.5)
        elif doubt is not None and composite.GetForegroundVolumeID() == doubt.GetID():
            composite.SetForegroundVolumeID(None)
    if doubt is None:
        return False
    if doubt.GetDisplayNode() is None:
        doubt.CreateDefaultDisplayNodes()
        display = doubt.GetDisplayNode()
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0, 254)
        display.ApplyThresholdOn()
        display.SetThreshold(13, 254)  # from a probability of 5 % on; 255 was not looked at
        display.InterpolateOff()
    return True
