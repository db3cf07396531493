"""The models at hand and the joints that they know, asked of the store without torch."""

from slicer.i18n import tr as _

from PedBoneSegLib import store
from PedBoneSegLib.anatomy import JointTable, joint_table, known_joints
from PedBoneSegLib.errors import PedBoneSegError


def choosableJoints(model: str = "") -> list[str]:
    """Joints of the model (by default, of the default one), then its domains that have names of their own."""
    manifest = _manifest(model)
    if manifest is None:
        return list(known_joints())
    joints = list(dict.fromkeys(card.joint for card in manifest.domains))
    return joints + [card.name for card in manifest.domains if card.name not in joints]


def tableOf(answer: dict, model: str = "") -> JointTable:
    """The label table of the domain that made the answer: the model's own, else the software's."""
    manifest = _manifest(model)
    if manifest is not None:
        for card in manifest.domains:
            if card.name == answer.get("domain") or (not answer.get("domain") and card.joint == answer.get("joint")):
                return card.table
    return joint_table(str(answer.get("joint")))


def describe(model: str = "") -> str:
    """A few lines on a model: version, licence, joints, and its card."""
    try:
        stored = store.show(model or None)
    except PedBoneSegError as error:
        return str(error)
    manifest = stored.manifest
    if manifest is None:
        return stored.fault
    head = f"{manifest.name} {manifest.version} · {manifest.licence} · {', '.join(choosableJoints(model))}"
    return "\n\n".join(filter(None, (head, manifest.card)))


def installedNames() -> list[tuple[str, str]]:
    """(name, what to show) of every model; damaged ones are named as such."""
    shown = []
    for stored in store.list_models():
        note = _("built in") if stored.built_in else ""
        note = _("damaged") if stored.manifest is None else note
        shown.append((stored.name, f"{stored.name} ({note})" if note else stored.name))
    return shown


def _manifest(model: str):
    try:
        return store.show(model or None).manifest
    except PedBoneSegError:
        return None
