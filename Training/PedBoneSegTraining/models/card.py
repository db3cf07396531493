"""The model card: Markdown that travels in the model."""

from dataclasses import replace

from PedBoneSegLib.models.manifest import Manifest

from ..evaluation.evaluate import table_lines
from .draft import Draft


def write_card(draft: Draft) -> Draft:
    """The draft with its card, from what the parts before found out."""
    return replace(draft, manifest=replace(draft.manifest, card=model_card(draft.manifest, draft.agreement)))


def model_card(manifest: Manifest, agreement: float) -> str:
    """Markdown: what the model is for, what made it, how good it was where, and what it must not be used for."""
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        "Segments bones in MR images of children. Research software: not a medical device, not for clinical decisions.",
        "",
        f"- licence: {manifest.licence}",
        f"- network: {manifest.network.architecture}, decoder {manifest.network.decoder}, normalization "
        f"{manifest.network.normalization}, output layer {manifest.network.head}",
        f"- convolutions stored as {manifest.storage}; labels the same (Dice ≥ {agreement:g}) in "
        + ", ".join(manifest.precisions),
        *(f"- {key}: {value}" for key, value in manifest.provenance.items() if isinstance(value, str | int | float)),
    ]
    for card in manifest.domains:
        synthetic = manifest.provenance.get("data", {}).get(card.name, {}).get("synthetic share") == 1
        lines += ["", f"## {card.name}", "", f"Joint: {card.joint}. Bones: {', '.join(card.table.names)}."]
        if synthetic:
            lines += ["", "Trained on synthetic images alone: what it does on real ones has to be looked at."]
        if card.exam_statistics:
            share = f"{100 * card.exam_statistics:g} %"
            lines += ["", f"Every exam's own statistics make up {share} of the encoder's normalization."]
        if card.note:
            lines += ["", card.note]
        if card.metrics:
            kind = "held-out synthetic" if synthetic else "validation"
            lines += ["", f"On {card.metrics['exams']} {kind} exams, per bone in 3-D:", ""]
            lines += [f"    {line}" for line in table_lines(card.metrics)]
        else:
            lines += ["", "Not measured: there were no validation exams."]
    return "\n".join(lines) + "\n"
