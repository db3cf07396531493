"""The worker's answers in words for a clinician. Pure text, no scene."""

from dataclasses import dataclass

from slicer.i18n import tr as _

# Codes of the worker's warnings, the one that matters most first; codes that are not listed come last.
_ORDER = (
    "not-mr", "no-signal", "unlike", "wrong-joint", "ambiguous", "two-sides", "missing", "field-cut", "non-finite",
)  # fmt: skip


@dataclass(frozen=True)
class Message:
    """One sentence that the user must see, and the lesser ones; `joint` names the joint to try instead, if any."""

    text: str
    joint: str = ""
    details: tuple[str, ...] = ()


def sentence(text: str) -> str:
    """With a full stop, and a capital letter unless it begins with a name such as knee.nrrd."""
    text = text.strip()
    begins = text.partition(" ")[0].rstrip(":,;")
    text = capitalized(text) if begins.isalpha() else text
    return text + ("" if text.endswith((".", "!", "?")) else ".")


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def withArticle(joint: str) -> str:
    return f"{'an' if joint[:1].lower() in 'aeiou' else 'a'} {joint}"


def summary(answer: dict) -> str:
    """ "Knee, right · 4 bones · 3.2 s": joint, side, how many bones hold any voxel, how long it took."""
    name = capitalized(str(answer.get("joint") or "?"))
    side = {"left": _("left"), "right": _("right")}.get(answer.get("side"))
    bones = sum(1 for bone in (answer.get("bones") or {}).values() if (bone.get("volume_ml") or 0) > 0)
    count = _("1 bone") if bones == 1 else _("{n} bones").format(n=bones)
    return " · ".join((f"{name}, {side}" if side else name, count, f"{float(answer.get('seconds') or 0):.1f} s"))


def warningOf(answer: dict) -> Message | None:
    """The most important thing to know about a result, with the lesser ones as its details."""
    joint, detected, verdict = answer.get("joint"), answer.get("detected_joint"), answer.get("verdict")
    found, other = {}, ""  # code: sentence
    for entry in answer.get("warnings") or []:
        code, text = str(entry.get("code")), sentence(str(entry.get("message") or entry.get("code")))
        found[code] = f"{found[code]} {text}" if code in found else text
    if verdict == "unlike":
        found["unlike"] = _("This image is unlike anything the model knows: do not trust the result unchecked.")
    elif verdict == "ambiguous":
        found["ambiguous"] = _("The joint is not certain: check that it is right.")
    elif verdict == "joint" and detected and detected != joint:
        found["wrong-joint"] = _("This looks like {detected}, but it was segmented as {joint}.").format(
            detected=withArticle(detected), joint=withArticle(str(joint))
        )
        other = detected
    if not found:
        return None
    ordered = sorted(found, key=lambda code: _ORDER.index(code) if code in _ORDER else len(_ORDER))
    first, *details = (found[code] for code in ordered)
    if verdict in ("ambiguous", "unlike"):
        details.append(_("Likeness, the smallest is the likeliest: {ranking}.").format(ranking=ranking(answer)))
    return Message(first, other, tuple(details))


def refusalOf(kind: str, message: str, answer: dict) -> Message:
    """An error of the worker, with what the user can do about it; `undecided` offers the likeliest joint."""
    if kind == "undecided":
        if answer.get("verdict") == "unlike":
            return Message(_("This image is unlike anything the model knows: choose a joint to segment it anyway."))
        scores = answer.get("scores") or {"": 0}
        details = _("Likeness, the smallest is the likeliest: {ranking}.").format(ranking=ranking(answer))
        return Message(_("It is not clear which joint this is: choose it."), min(scores, key=scores.get), (details,))
    remedies = {
        "out-of-memory": _("Choose the CPU as device under Advanced, or crop the volume."),
        "bad-model": _("Choose or install another model under Advanced."),
        "bug": _("Please report it, with the log under Advanced."),
    }
    return Message(f"{sentence(message)} {remedies.get(kind, '')}".strip())


def ranking(answer: dict) -> str:
    """ "knee 0.52, ankle 0.55": joints or domains by score, the likeliest first."""
    scores = sorted((answer.get("scores") or {}).items(), key=lambda item: item[1])
    return ", ".join(f"{name} {score:.2f}" for name, score in scores) or "?"


def timeLeft(fraction: float, elapsed: float) -> str:
    """Empty before 3 s and 5 % have passed: too early for an estimate."""
    if fraction < 0.05 or elapsed < 3 or fraction >= 1:
        return ""
    seconds = elapsed * (1 - fraction) / fraction
    if seconds > 90:
        return _("about {n} min left").format(n=round(seconds / 60))
    return _("about {n} s left").format(n=max(1, round(seconds)))
