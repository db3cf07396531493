"""The setup section: it is visible while something is missing, and installs it after a click."""

from slicer.i18n import tr as _

from .. import dependencies
from ..worklog import WorkLog
from .section import Section
from .widgets import askFolder, enable


class SetupSection(Section):
    def __init__(self, panel) -> None:
        super().__init__(panel, panel.ui.setupLabel)
        self._installation: dependencies.Installation | None = None
        self.ui.setupInstallButton.clicked.connect(lambda: self._install(""))
        self.ui.setupWheelsButton.clicked.connect(self._installFromWheels)
        self.ui.setupCancelButton.clicked.connect(self.close)

    def ready(self) -> bool:
        """Whether the worker can run at all; if not, shows the section with what is missing."""
        packages = dependencies.missing()
        if self._installation is None:
            self.ui.setupSection.setVisible(bool(packages))
            names = {"torch": _("PyTorch (a download of up to 3 GB)")}
            text = _("Before the first use this computer needs: {packages}.")
            self.say(text.format(packages=", ".join(names.get(name, name) for name in packages)) if packages else "")
        return not packages and self._installation is None

    def close(self) -> None:
        if self._installation is not None:
            self._installation.cancel()

    def _installFromWheels(self) -> None:
        folder = askFolder(_("Folder of wheels (torch, safetensors and what they need)"))
        if folder is not None:
            self._install(str(folder))

    def _install(self, wheels: str) -> None:
        log = WorkLog()
        log.onLine = self.ui.setupLogText.appendPlainText
        self.ui.setupLogText.setVisible(True)
        self.say(_("Installing; Slicer can be used meanwhile."))
        self._setRunning(True)
        calls = dependencies.steps(dependencies.missing(), wheels)
        self._installation = dependencies.Installation(calls, log, self._onEnd)

    def _onEnd(self, sentence: str) -> None:
        self._installation = None
        self._setRunning(False)
        ready = self.ready()
        if sentence:
            self.say(sentence)
        elif not ready:
            self.say(_("Installed, but not found yet: restart Slicer."))
        else:
            self.panel.models.refresh()

    def _setRunning(self, running: bool) -> None:
        enable(not running, self.ui.setupInstallButton, self.ui.setupWheelsButton)
        enable(running, self.ui.setupCancelButton)
