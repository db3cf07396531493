"""From the scores of all domains to a decision: which joint an image shows, and which domains may segment it."""

from collections.abc import Iterable, Mapping

from ..errors import BadInput, Undecided
from ..models.manifest import DomainCard, Manifest
from .result import Detection, Verdict
from .signature import Reference

CLEAR_MARGIN = 1.1  # how many times the smallest score the next other joint's score must be
DESCRIPTIONS = {
    "unlike": "the image is unlike anything that the model was made for",
    "ambiguous": "the image may be of one joint or another",
}


def decide(scores: Mapping[str, float], cards: Iterable[DomainCard]) -> Detection:
    """The detection from the scores by domain; one without a verdict if there are no scores.

    unlike: the smallest score is above 1. ambiguous: the next score of another joint is less than CLEAR_MARGIN times
    the smallest one.
    """
    if not scores:
        return Detection()
    joint_of = {card.name: card.joint for card in cards}
    best = min(scores, key=scores.__getitem__)
    others = [score for name, score in scores.items() if joint_of[name] != joint_of[best]]
    verdict: Verdict
    if scores[best] > 1:
        verdict = "unlike"
    else:
        verdict = "ambiguous" if others and min(others) < CLEAR_MARGIN * scores[best] else "joint"
    ranked = {name: round(score, 4) for name, score in sorted(scores.items(), key=lambda item: item[1])}
    return Detection(verdict, None if verdict == "unlike" else joint_of[best], ranked)


def candidates(manifest: Manifest, joint: str) -> tuple[DomainCard, ...]:
    """The domains that may segment an image of `joint` (a joint, a domain, or "auto"). If there are several, the
    smallest score decides; domains that cannot have a score are then left out.

    BadInput if there are several and no signatures to choose by.
    """
    cards = manifest.domains if joint == "auto" else manifest.domains_of(joint)
    if len(cards) == 1:
        return cards
    with_score = tuple(card for card in cards if Reference.decides(card))
    with_name = tuple(card for card in cards if card.name == joint)
    if with_score or with_name:
        return with_score or with_name
    if joint == "auto":
        names, fault = list(dict.fromkeys(card.joint for card in manifest.domains)), "knows several joints"
    else:
        names, fault = [card.name for card in cards], f"has several domains for the joint {joint!r}"
    fault = f"model {manifest.name} {fault} and carries no signatures to tell them apart"
    raise BadInput(fault, f"say which it is: --joint {'|'.join(names)}")


def undecided(image: str, detection: Detection, manifest: Manifest) -> Undecided:
    """The error for an image whose joint was to be recognized and cannot be."""
    assert detection.verdict is not None
    joints = "|".join(dict.fromkeys(card.joint for card in manifest.domains))
    hint = f"to segment it all the same, say which joint it is: --joint {joints}"
    message = f"{image}: {DESCRIPTIONS[detection.verdict]} ({detection.ranking})"
    return Undecided(message, hint, detection.verdict, dict(detection.scores))
