"""Section 1: shows itself only when something is missing, and installs nothing without a click."""

from slicer.i18n import tr as _

from . import dependencies
from .dialogs import askFolder, connectClicked
from .worklog import WorkLog


class SetupSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel = panel.ui, panel
        self._installation: dependencies.Installation | None = None
        connectClicked(self._ui.setupInstallButton, lambda: self._install(""))
        connectClicked(self._ui.setupWheelsButton, self._installFromWheels)
        connectClicked(self._ui.setupCancelButton, self._cancel)
        self._ui.setupSection.setVisible(False)
        self._ui.setupLogText.setVisible(False)

    def check(self) -> bool:
        """Whether all is there; shows the section with what is missing if not."""
        missing = dependencies.missing()
        if self._installation is None:
            self._ui.setupSection.setVisible(bool(missing))
            text = _("Before the first use this computer needs: {packages}. PyTorch is large (up to 3 GB).")
            self._ui.setupLabel.setText(text.format(packages=", ".join(missing)) if missing else "")
        return not missing and self._installation is None

    def close(self) -> None:
        if self._installation is not None:
            self._installation.cancel()

    def _installFromWheels(self) -> None:
        folder = askFolder(_("Folder of wheels (torch, safetensors and what they need)"))
        if folder is not None:
            self._install(str(folder))

    def _install(self, wheels: str) -> None:
        if self._installation is not None:
            return
        log = WorkLog()
        log.onLine = self._ui.setupLogText.appendPlainText
        self._ui.setupLogText.setVisible(True)
        self._ui.setupLabel.setText(_("Installing; Slicer can be used meanwhile."))
        self._setRunning(True)
        calls = dependencies.steps(dependencies.missing(), wheels)
        self._installation = dependencies.Installation(calls, log, self._onEnd)
        self._installation.start()

    def _cancel(self) -> None:
        if self._installation is not None:
            self._installation.cancel()

    def _onEnd(self, sentence: str) -> None:
        self._installation = None
        self._setRunning(False)
        ready = self.check()
        if sentence:
            self._ui.setupLabel.setText(sentence)
        elif not ready:
            self._ui.setupLabel.setText(_("Installed, but not seen yet: restart Slicer."))
        else:
            self._panel.models.refresh()

    def _setRunning(self, running: bool) -> None:
        self._ui.setupInstallButton.setEnabled(not running)
        self._ui.setupWheelsButton.setEnabled(not running)
        self._ui.setupCancelButton.setEnabled(running)
