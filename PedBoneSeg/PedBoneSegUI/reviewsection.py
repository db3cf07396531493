"""Section 4: look where it is likely wrong, worst first."""

import qt
import slicer
from slicer.i18n import tr as _

from . import review, segmentations
from .dialogs import connectClicked


class ReviewSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel = panel.ui, panel
        self._review: review.Review | None = None
        ui = self._ui
        connectClicked(ui.nextButton, lambda: self._go("next"))
        connectClicked(ui.previousButton, lambda: self._go("previous"))
        connectClicked(ui.rightButton, lambda: self._go("callRight"))
        connectClicked(ui.reviewedButton, self._finish)
        self._keys = []
        for key, move in (("N", "next"), ("P", "previous")):
            shortcut = qt.QShortcut(slicer.util.mainWindow() or panel.topWidget)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.activated.connect(self._mover(move))
            shortcut.setEnabled(False)
            self._keys.append(shortcut)

    def _mover(self, move: str):
        return lambda: self._go(move)

    def setKeysEnabled(self, enabled: bool) -> None:
        for shortcut in self._keys:
            shortcut.setEnabled(enabled)

    def close(self) -> None:
        for shortcut in self._keys:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._keys = []

    def follow(self) -> None:
        segmentation = self._panel.segmentation
        known = segmentations.tableOf(segmentation) is not None
        if not known:
            self._review = None
        elif self._review is None or self._review.segmentation is not segmentation or not self._review.isCurrent():
            self._review = review.Review(segmentation)
        self._ui.reviewSection.setEnabled(known)
        self._show()
        parameters = self._panel.parameters
        if parameters is not None and segmentation is not None:
            found = review.showDoubt(segmentation, parameters.showDoubt)
            self._ui.doubtCheckBox.setEnabled(found)

    def _go(self, move: str) -> None:
        if self._review is None or self._panel.segment.running:
            return
        volume = segmentations.volumeOf(self._review.segmentation)
        first = self._review.current is None
        entry = getattr(self._review, move)()
        if entry is not None and volume is not None:
            if first:
                review.turnViewsToVolume(volume)
            review.showSlice(volume, self._review.axis, entry["index"])
        if self._review.complete:
            self._finish()
        self._show()

    def _finish(self) -> None:
        segmentation = self._panel.segmentation
        table = segmentations.tableOf(segmentation)
        if table is not None:
            segmentations.setStatus(segmentation, table, finished=True)
            segmentations.remember(segmentation, reviewed=True)
            self._show()

    def _show(self) -> None:
        ui, shown = self._ui, self._review
        if shown is None:
            ui.reviewLabel.setText(_("Segment first; then the slices to look at are listed here."))
            ui.reviewBar.setValue(0)
            return
        done = " · " + _("reviewed") if segmentations.memoryOf(shown.segmentation).get("reviewed") else ""
        ui.reviewLabel.setText(shown.text + done)
        ui.reviewBar.setValue(round(100 * shown.shareSeen))
        for button in (ui.nextButton, ui.previousButton, ui.rightButton):
            button.setEnabled(bool(shown.slices))
