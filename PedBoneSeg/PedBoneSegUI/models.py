"""The installed models and the joints that they know, read from their headers without torch."""

from PedBoneSegLib.anatomy import JointTable, joint_table, known_joints
from PedBoneSegLib.errors import PedBoneSegError
from PedBoneSegLib.models import store


def jointsOf(manifest) -> list[str]:
    """The joints of a model, then its domains that have names of their own; none for a damaged model."""
    cards = manifest.domains if manifest is not None else ()
    return list(dict.fromkeys([card.joint for card in cards] + [card.name for card in cards]))


def choosableJoints(model: str = "") -> list[str]:
    """The joints of a model; if none is chosen, those of the default one and then of all others."""
    joints = jointsOf(_manifest(model))
    for stored in () if model else store.list_models():
        joints += jointsOf(stored.manifest)
    return list(dict.fromkeys(joints or known_joints()))


def modelFor(joint: str, model: str = "") -> str:
    """The model that segments the joint: the chosen one; if none is chosen, the default one (empty) before others."""
    if not model and joint != "auto" and joint not in jointsOf(_manifest("")):
        return next((stored.name for stored in store.list_models() if joint in jointsOf(stored.manifest)), "")
    return model


def tableOfAnswer(answer: dict, model: str = "") -> JointTable:
    """The label table of the domain that produced the answer: the model's own, else the software's."""
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
