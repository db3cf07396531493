"""The section that leads through the slices of a result, in order of expected errors."""

import qt
import slicer
from slicer.i18n import tr as _

from .. import segmentations, views
from ..reviewlist import ReviewList
from .section import Section
from .widgets import enable


class ReviewSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.reviewLabel)
        self._list: ReviewList | None = None
        self.ui.reviewedButton.clicked.connect(self._finish)
        self.ui.acceptButton.clicked.connect(lambda: self._go(ReviewList.accept))
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

    def update(self) -> None:
        segmentation, parameters = self.panel.segmentation, self.panel.parameters
        known = segmentations.tableOf(segmentation) is not None
        if known and (self._list is None or self._list.segmentation is not segmentation):
            self.ui.reviewSection.collapsed = False  # there is something to review now
        self._list = ReviewList(segmentation) if known else None
        enable(known, self.ui.reviewSection)
        if not known:
            self.ui.reviewSection.collapsed = True
        if segmentation is not None:
            enable(views.showDoubt(segmentation, parameters.showDoubt), self.ui.doubtCheckBox)
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
        review = self._list
        if review is None or self.panel.segment.running:
            return
        volume, first = segmentations.volumeOf(review.segmentation), review.current is None
        move(review)
        if review.current is not None and volume is not None:
            place = views.doubtfulPlace(review.segmentation, review.axis, review.index)
            views.showPlace(volume, place or views.sliceCenter(volume, review.axis, review.index), turn=first)
        if review.complete:
            self._finish()
        self._show()

    def _finish(self) -> None:
        segmentation = self.panel.segmentation
        segmentations.setStatus(segmentation, segmentations.tableOf(segmentation), finished=True)
        segmentations.remember(segmentation, reviewed=True)
        self._show()

    def _show(self) -> None:
        review = self._list
        enable(review and review.slices, self.ui.nextButton, self.ui.previousButton, self.ui.acceptButton)
        self.ui.reviewBar.setValue(round(100 * review.shareSeen) if review else 0)
        if review is None:
            self.say(_("Segment first; then the slices to look at are listed here."))
            return
        volume, view = segmentations.volumeOf(review.segmentation), ""
        if review.current is not None and volume is not None:
            view = views.viewOfSlice(volume, review.axis, review.index)
        done = segmentations.memoryOf(review.segmentation).get("reviewed")
        self.say(review.text(view) + (" · " + _("reviewed") if done else ""))
