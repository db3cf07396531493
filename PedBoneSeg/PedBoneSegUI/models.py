"""Which model, on which device: the joints it knows, asked of the store without torch, and the section that says so."""

import qt
from slicer.i18n import tr as _

from PedBoneSegLib.anatomy import JointTable, joint_table, known_joints
from PedBoneSegLib.errors import PedBoneSegError
from PedBoneSegLib.models import store

from . import dependencies
from .section import Section, askOpenFile, copyText, enable


def jointsOf(manifest) -> list[str]:
    """Joints of a model, then its domains that have names of their own; of a damaged one none."""
    cards = manifest.domains if manifest is not None else ()
    return list(dict.fromkeys([card.joint for card in cards] + [card.name for card in cards]))


def choosableJoints(model: str = "") -> list[str]:
    """The joints of a model; without a choice those of the default one, then of all others."""
    joints = jointsOf(_manifest(model))
    for stored in () if model else store.list_models():
        joints += jointsOf(stored.manifest)
    return list(dict.fromkeys(joints or known_joints()))


def modelFor(joint: str, model: str = "") -> str:
    """The model that segments the joint: the chosen one; without a choice the default one (empty) before others."""
    if not model and joint != "auto" and joint not in jointsOf(_manifest("")):
        return next((stored.name for stored in store.list_models() if joint in jointsOf(stored.manifest)), "")
    return model


def tableOf(answer: dict, model: str = "") -> JointTable:
    """The label table of the domain that made the answer: the model's own, else the software's."""
    for card in getattr(_manifest(model), "domains", ()):
        if card.name == answer.get("domain"):
            return card.table
    return joint_table(str(answer.get("joint")))


def find(model: str) -> store.StoredModel | None:
    """A model by name, the default one without a name; None if it is missing or damaged."""
    try:
        stored = store.show(model or None)
    except PedBoneSegError:
        return None
    return stored if stored.manifest is not None else None


def _manifest(model: str):
    stored = find(model)
    return stored.manifest if stored is not None else None


class ModelSection(Section):
    """The last section, and the device line of the second."""

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
        """The chosen model's name; empty: whatever fits the joint, the default one first."""
        return str(self.ui.modelCombo.currentData or "")

    @property
    def device(self) -> str:
        return str(self.ui.deviceCombo.currentData or "auto")

    def say(self, text: str) -> None:
        self.ui.modelText.setPlainText(text)

    def follow(self) -> None:
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
        """Says what computes; and in a plain sentence when there is a GPU that does not."""
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
                else _("This computer has a GPU that was not used; the device is chosen at the end of the panel.")
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
        with self.telling("{reason}"):
            removed = store.remove(self.model)
            self.refresh()
            self.say(_("Removed: {name}").format(name=removed.name))

    def _openFolder(self) -> None:
        store.models_folder().mkdir(parents=True, exist_ok=True)
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(store.models_folder())))

    def _release(self) -> None:
        self.logic.client.stop()
        self.showDevice()
