"""What the worker's answer says, in words for a clinician. Pure text, no scene."""

from dataclasses import dataclass

from slicer.i18n import tr as _


@dataclass(frozen=True)
class Warning:
    """A line that must not be missed; `joint` names the joint to try instead, if the answer has one."""

    text: str
    joint: str = ""


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def withArticle(joint: str) -> str:
    return f"{'an' if joint[:1].lower() in 'aeiou' else 'a'} {joint}"


def summary(answer: dict) -> str:
    """ "Knee, right · 4 bones · 3.2 s": what was found, on which side, how many bones hold any voxel, how long."""
    name = capitalized(str(answer.get("joint") or "?"))
    side = {"left": _("left"), "right": _("right")}.get(answer.get("side"))
    bones = sum(1 for bone in (answer.get("bones") or {}).values() if (bone.get("volume_ml") or 0) > 0)
    count = _("1 bone") if bones == 1 else _("{n} bones").format(n=bones)
    return " · ".join((f"{name}, {side}" if side else name, count, f"{float(answer.get('seconds') or 0):.1f} s"))


def warningOf(answer: dict) -> Warning | None:
    """The worst thing that the answer of `segment` says about itself, with its further warnings below."""
    joint, detected, verdict = answer.get("joint"), answer.get("detected_joint"), answer.get("verdict")
    lines, other = [], ""
    if verdict == "unlike":
        lines.append(_("This image is unlike anything the model knows. Do not trust the result unchecked."))
    elif verdict == "ambiguous":
        lines.append(_("Ambiguous: {ranking}. Check that the joint is right.").format(ranking=ranking(answer)))
    elif verdict == "joint" and detected and detected != joint:
        lines.append(
            _("This looks like {detected}, but it was segmented as {joint}.").format(
                detected=withArticle(detected), joint=withArticle(str(joint))
            )
        )
        other = detected
    told = {"wrong-joint", "unlike", "ambiguous"} if lines else set()
    for entry in answer.get("warnings") or []:
        if entry.get("code") not in told:
            lines.append(str(entry.get("message") or entry.get("code")))
    return Warning("\n".join(lines), other) if lines else None


def refusalOf(kind: str, message: str, answer: dict) -> Warning:
    """An error of the worker in words that help; `undecided` offers the likeliest joint."""
    if kind == "undecided":
        if answer.get("verdict") == "unlike":
            return Warning(_(
                "This image is unlike anything the model knows; nothing was written. Choose a joint to segment anyway."
            ))  # fmt: skip
        text = _("It is not clear which joint this is ({ranking}); nothing was written. Choose the joint.")
        scores = answer.get("scores") or {"": 0}
        return Warning(text.format(ranking=ranking(answer)), min(scores, key=scores.get))
    remedies = {
        "out-of-memory": _("Choose the CPU as device at the end of the panel, or crop the volume."),
        "bad-model": _("Choose or install another model at the end of the panel."),
        "bug": _("Please report it, with the log from the end of the panel."),
    }
    return Warning(f"{capitalized(message).rstrip('.')}. {remedies.get(kind, '')}".strip())


def ranking(answer: dict) -> str:
    """ "knee 0.52, ankle 0.55": joints or domains by score, the likeliest first."""
    scores = sorted((answer.get("scores") or {}).items(), key=lambda item: item[1])
    return ", ".join(f"{name} {score:.2f}" for name, score in scores) or "?"


def timeLeft(fraction: float, elapsed: float) -> str:
    """Empty until there is something to extrapolate from (3 s and 5 %)."""
    if fraction < 0.05 or elapsed < 3 or fraction >= 1:
        return ""
    seconds = elapsed * (1 - fraction) / fraction
    if seconds > 90:
        return _("about {n} min left").format(n=round(seconds / 60))
    return _("about {n} s left").format(n=max(1, round(seconds)))
