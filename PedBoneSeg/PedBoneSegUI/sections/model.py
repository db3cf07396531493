"""The section that shows which model works on which device, and the log."""

import qt
from slicer.i18n import tr as _

from PedBoneSegLib.errors import PedBoneSegError
from PedBoneSegLib.models import store

from .. import dependencies
from ..models import choosableJoints
from .section import Section
from .widgets import askOpenFile, copyText, enable


class ModelSection(Section):
    """Also writes the device line of the segment section."""

    def __init__(self, panel) -> None:
        super().__init__(panel, None)
        ui, self._devices = self.ui, []
        ui.deviceCombo.addItem(_("Best available"), "auto")
        ui.deviceCombo.addItem(_("CPU"), "cpu")
        ui.modelInstallButton.clicked.connect(self._install)
        ui.modelRemoveButton.clicked.connect(self._remove)
        ui.modelFolderButton.clicked.connect(self._openFolder)
        ui.logCopyButton.clicked.connect(lambda: copyText(self.logic.log.text))
        ui.releaseButton.clicked.connect(self._release)
        ui.modelCombo.currentIndexChanged.connect(lambda index: self._showModel())
        self.logic.log.onLine = ui.logText.appendPlainText
        self.showDevice()
        self.refresh()

    @property
    def model(self) -> str:
        """The chosen model's name; empty: whichever fits the joint, the default one first."""
        return str(self.ui.modelCombo.currentData or "")

    @property
    def device(self) -> str:
        return str(self.ui.deviceCombo.currentData or "auto")

    def say(self, text: str) -> None:
        self.ui.modelText.setPlainText(text)

    def update(self) -> None:
        enable(not self.panel.busy, self.ui.modelInstallButton)  # the worker does one thing at a time

    def refresh(self) -> None:
        chosen, combo = self.model, self.ui.modelCombo
        combo.blockSignals(True)
        combo.clear()
        combo.addItem(_("Automatic"), "")
        for stored in store.list_models():
            note = _("damaged") if stored.manifest is None else _("built in") if stored.built_in else ""
            combo.addItem(f"{stored.name} ({note})" if note else stored.name, stored.name)
        combo.setCurrentIndex(max(0, combo.findData(chosen)))
        combo.blockSignals(False)
        self._showModel()

    def showDevice(self, used: str = "") -> None:
        """Shows which device was used, and says so if there is a GPU that was not."""
        self._devices = self.logic.client.hello.get("devices") or self._devices
        for device in self._devices:
            if self.ui.deviceCombo.findData(device) < 0:
                self.ui.deviceCombo.addItem(device, device)
        text = _("Device: {device}").format(device=used) if used else _("Device: known after the first run")
        cpuOnly = self._devices == ["cpu"] or dependencies.torchIsForCpu()
        if (used == "cpu" or cpuOnly) and dependencies.gpuPresent():
            text += "\n" + (
                _("This computer has an NVIDIA GPU, but PyTorch was installed without it: install PyTorch again by "
                  "the module PyTorch Util.")
                if cpuOnly
                else _("This computer has a GPU that was not used; the device is chosen under Advanced.")
            )  # fmt: skip
        self.ui.deviceLabel.setText(text)

    def _showModel(self) -> None:
        self.joints, stored = choosableJoints(self.model), None
        try:
            stored = store.show(self.model or None)
            about = stored.manifest
            head = f"{about.name} {about.version} · {about.licence} · {', '.join(self.joints)}" if about else ""
            self.say(f"{head}\n\n{about.card}" if about else stored.fault)
        except PedBoneSegError as error:
            self.say(str(error))
        enable(stored and self.model and not stored.built_in, self.ui.modelRemoveButton)
        self.panel.parametersChanged()

    def _install(self) -> None:
        """The worker checks the file and copies it."""
        path = askOpenFile(_("Model file"), _("Models (*.safetensors)"))
        if path is not None and self.panel.setup.ready():
            enable(False, self.ui.modelInstallButton)
            self.say(_("Checking the model"))
            self.logic.client.send(
                "models", {"action": "install", "name": str(path)},
                onDone=lambda answer: self._onInstalled(_("Installed: {name}").format(name=answer.get("name"))),
                onError=lambda kind, message, answer: self._onInstalled(message),
            )  # fmt: skip

    def _onInstalled(self, sentence: str) -> None:
        self.refresh()
        self.say(sentence)

    def _remove(self) -> None:
        with self.reporting("{reason}"):
            removed = store.remove(self.model)
            self.refresh()
            self.say(_("Removed: {name}").format(name=removed.name))

    def _openFolder(self) -> None:
        store.models_folder().mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(store.models_folder())))

    def _release(self) -> None:
        self.logic.client.stop()
        self.showDevice()
