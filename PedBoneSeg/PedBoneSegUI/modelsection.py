"""Which model, on which device, and what the worker said: the last section, and the device line of the second."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from PedBoneSegLib import store
from PedBoneSegLib.errors import PedBoneSegError

from . import dependencies, models
from .dialogs import askOpenFile, connectClicked, copyText, shortError


class ModelSection:
    def __init__(self, panel) -> None:
        self._ui, self._panel, self._engine = panel.ui, panel, panel.engine
        self._devices: list[str] = []
        ui = self._ui
        ui.deviceCombo.addItem(_("Best available"), "auto")
        ui.deviceCombo.addItem(_("CPU"), "cpu")
        connectClicked(ui.modelInstallButton, self._install)
        connectClicked(ui.modelRemoveButton, self._remove)
        connectClicked(ui.modelFolderButton, self._openFolder)
        connectClicked(ui.logCopyButton, lambda: copyText(self._engine.log.text))
        connectClicked(ui.releaseButton, self._release)
        ui.modelCombo.currentIndexChanged.connect(lambda index: self._showModel())
        self._engine.log.onLine = ui.logText.appendPlainText
        self.showDevice()
        self.refresh()

    @property
    def model(self) -> str:
        """The chosen model's name; empty for the default one."""
        return str(self._ui.modelCombo.currentData or "")

    @property
    def device(self) -> str:
        return str(self._ui.deviceCombo.currentData or "auto")

    def refresh(self) -> None:
        chosen, combo = self.model, self._ui.modelCombo
        combo.blockSignals(True)
        combo.clear()
        combo.addItem(_("Default"), "")
        for name, shown in models.installedNames():
            combo.addItem(shown, name)
        combo.setCurrentIndex(max(0, combo.findData(chosen)))
        combo.blockSignals(False)
        self._showModel()

    def showDevice(self, used: str = "") -> None:
        """Says what computes; and in a plain sentence when there is a GPU that does not."""
        told = self._engine.client.hello.get("devices", [])
        devices = [str(one.get("name") if isinstance(one, dict) else one) for one in told]
        for device in devices:
            if self._ui.deviceCombo.findData(device) < 0:
                self._ui.deviceCombo.addItem(device, device)
        self._devices = devices or self._devices
        text = _("Device: {device}").format(device=used) if used else _("Device: known after the first run")
        idle = used == "cpu" or (self._devices and all(device == "cpu" for device in self._devices))
        if idle and dependencies.gpuPresent():
            text += "\n" + _(
                "This computer has an NVIDIA GPU that is not used. If you did not choose the CPU, PyTorch was "
                "installed without it: install PyTorch again by the module PyTorch Util."
            )
        self._ui.deviceLabel.setText(text)

    def _showModel(self) -> None:
        self._ui.modelText.setPlainText(models.describe(self.model))
        stored = {one.name: one for one in store.list_models()}.get(self.model)
        self._ui.modelRemoveButton.setEnabled(stored is not None and not stored.built_in)
        if hasattr(self._panel, "segment"):
            self._panel.segment.fillJoints()

    def _install(self) -> None:
        """The worker checks the file and copies it: that needs torch, which this process must not import."""
        path = askOpenFile(_("Model file"), _("Models (*.safetensors)"))
        if path is None or not self._panel.ready():
            return
        self._ui.modelInstallButton.setEnabled(False)
        self._ui.modelText.setPlainText(_("Checking the model"))
        self._engine.client.send(
            "models", {"action": "install", "name": str(path)},
            onDone=lambda answer: self._onInstalled(_("Installed: {name}").format(name=answer.get("name"))),
            onError=lambda kind, message, answer: self._onInstalled(message),
        )  # fmt: skip

    def _onInstalled(self, sentence: str) -> None:
        self._ui.modelInstallButton.setEnabled(True)
        self.refresh()
        self._ui.modelText.setPlainText(sentence)

    def _remove(self) -> None:
        try:
            removed = store.remove(self.model)
        except PedBoneSegError as error:
            self._ui.modelText.setPlainText(shortError(error))
            return
        self.refresh()
        self._ui.modelText.setPlainText(_("Removed: {name}").format(name=removed.name))

    def _openFolder(self) -> None:
        folder = Path(store.models_folder())
        folder.mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def _release(self) -> None:
        self._engine.client.stop()
        self.showDevice()
