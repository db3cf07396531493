"""Section 4: the slices of a result in the order in which they deserve an eye, and the views that show them."""

import qt
import slicer
from slicer.i18n import tr as _

from . import images, segmentations
from .section import Section, enable


class Review:
    """Walks through the worker's list; what was seen is kept in the segmentation's memory, so in the scene."""

    def __init__(self, segmentation) -> None:
        self.segmentation = segmentation
        memory = segmentations.memoryOf(segmentation)
        self.slices: list[dict] = memory.get("slices") or []
        self.shares = [float(entry.get("share") or 0.0) for entry in self.slices]
        self.axis: int = memory.get("axis", 2)
        self.seen: list[int] = list(memory.get("seen") or [])  # positions in `slices`, as shown
        self.right: list[int] = list(memory.get("right") or [])  # positions that were called right
        self.position = int(memory.get("position", -1))

    @property
    def current(self) -> dict | None:
        return self.slices[self.position] if 0 <= self.position < len(self.slices) else None

    def goTo(self, position: int) -> None:
        """Moves to a position of the list, not beyond its ends, and notes the slice as seen."""
        if self.slices:
            self.position = min(max(position, 0), len(self.slices) - 1)
            if self.position not in self.seen:
                self.seen.append(self.position)
            segmentations.remember(self.segmentation, seen=self.seen, right=self.right, position=self.position)

    def callRight(self) -> None:
        """The slice at hand looks right; goes on to the next one that was not called right yet."""
        if self.current is not None and self.position not in self.right:
            self.right.append(self.position)
        left = [position for position in range(len(self.slices)) if position not in self.right]
        self.goTo(next((position for position in left if position > self.position), left[0] if left else self.position))

    @property
    def complete(self) -> bool:
        return bool(self.slices) and set(self.right) >= set(range(len(self.slices)))

    @property
    def shareSeen(self) -> float:
        """Expected part of all errors that lies in the slices seen so far, 0 to 1."""
        before = [0.0, *self.shares]
        return sum(share - before[position] for position, share in enumerate(self.shares) if position in self.seen)

    @property
    def text(self) -> str:
        if not self.slices:
            return _("This result brings no list of doubtful slices; go through it by eye.")
        if self.current is None:
            count = next((n for n, share in enumerate(self.shares, 1) if share >= 0.8), len(self.shares))
            text = _("{n} of {all} slices cover {share} % of what is likely wrong; Next shows the first.")
            return text.format(n=count, all=len(self.shares), share=round(100 * self.shares[count - 1]))
        state = _("looks right") if self.position in self.right else _("not judged yet")
        return _("Slice {k} of {n} (number {index}) · {state} · {share} % of the likely errors seen").format(
            k=self.position + 1, n=len(self.slices), index=self.current["index"] + 1, state=state,
            share=round(100 * self.shareSeen),
        )  # fmt: skip


def showSlice(volume, axis: int, index: int, turn: bool) -> None:
    """Every slice view jumps to the slice; `turn` gives the views the acquisition's own planes first, oblique ones too,
    so that one of them shows exactly that slice."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        if turn:
            node.RotateToVolumePlane(volume)
        node.JumpSliceByOffsetting(*images.sliceCenter(volume, axis, index))


def showDoubt(segmentation, visible: bool) -> bool:
    """Lays the doubt over the image, or takes it away; False if the result brought none."""
    doubt = segmentation.GetNodeReference(segmentations.DOUBT_ROLE) if segmentation else None
    if doubt is None:
        return False
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if visible:
            composite.SetForegroundVolumeID(doubt.GetID())
            composite.SetForegroundOpacity(0.5)
        elif composite.GetForegroundVolumeID() == doubt.GetID():
            composite.SetForegroundVolumeID(None)
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


class ReviewSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.reviewLabel)
        self._review: Review | None = None
        self.ui.reviewedButton.clicked.connect(self._finish)
        self.ui.rightButton.clicked.connect(lambda: self._go(Review.callRight))
        self.ui.nextButton.clicked.connect(lambda: self._step(1))
        self.ui.previousButton.clicked.connect(lambda: self._step(-1))
        self._keys = [self._shortcut("N", lambda: self._step(1)), self._shortcut("P", lambda: self._step(-1))]

    def setKeysEnabled(self, enabled: bool) -> None:
        enable(enabled, *self._keys)

    def close(self) -> None:
        for shortcut in self._keys:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._keys = []

    def follow(self) -> None:
        segmentation, parameters = self.panel.segmentation, self.panel.parameters
        known = segmentations.tableOf(segmentation) is not None
        self._review = Review(segmentation) if known else None
        enable(known, self.ui.reviewSection)
        if segmentation is not None:
            enable(showDoubt(segmentation, parameters.showDoubt), self.ui.doubtCheckBox)
        self._show()

    def _shortcut(self, key: str, function):
        shortcut = qt.QShortcut(slicer.util.mainWindow() or self.panel.topWidget)
        shortcut.setKey(qt.QKeySequence(key))
        shortcut.activated.connect(function)
        shortcut.setEnabled(False)
        return shortcut

    def _step(self, by: int) -> None:
        self._go(lambda review: review.goTo(review.position + by))

    def _go(self, move) -> None:
        review = self._review
        if review is None or self.panel.segment.running:
            return
        volume, first = segmentations.volumeOf(review.segmentation), review.current is None
        move(review)
        if review.current is not None and volume is not None:
            showSlice(volume, review.axis, review.current["index"], turn=first)
        if review.complete:
            self._finish()
        self._show()

    def _finish(self) -> None:
        segmentation = self.panel.segmentation
        segmentations.setStatus(segmentation, segmentations.tableOf(segmentation), finished=True)
        segmentations.remember(segmentation, reviewed=True)
        self._show()

    def _show(self) -> None:
        review = self._review
        enable(review and review.slices, self.ui.nextButton, self.ui.previousButton, self.ui.rightButton)
        self.ui.reviewBar.setValue(round(100 * review.shareSeen) if review else 0)
        if review is None:
            self.say(_("Segment first; then the slices to look at are listed here."))
        else:
            done = segmentations.memoryOf(review.segmentation).get("reviewed")
            self.say(review.text + (" · " + _("reviewed") if done else ""))
