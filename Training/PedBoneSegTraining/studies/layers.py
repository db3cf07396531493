"""Which layer's features separate best: at every level of the encoder, signatures and thresholds are made anew from the
first exams of the cohort `reserved`, by the published distance alone and with all three parts, and tried on `held-out`,
hip and elbow, inverted and CT-like images. Any model will do; none of its own signatures are used."""

import numpy as np

from PedBoneSegLib.inference.passes import stacks_by_domain
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.signature import Apart, Reference, Whitened
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve

from ..data.degraded import apply
from ..models.reference import make_signature
from .detection import JOINTS
from .exams import FOREIGN, cohort
from .tables import auroc, keep, options, table

CHANGED = 8


def main() -> None:
    parser = options(__doc__, 24)
    parser.add_argument("--model", required=True)
    parser.add_argument("--references", type=int, default=32, help="reserved exams a joint (default: %(default)s)")
    args = parser.parse_args()
    bundle = Bundle.load(resolve(args.model))
    predictor = Predictor(bundle, args.device)
    levels = range(len(bundle.network().encoder.channels))
    groups: dict[tuple[str, str], list[dict]] = {}

    def look(group: str, joint: str, volume) -> None:
        stacks = stacks_by_domain(volume)
        seen = {card.name: predictor.observe(stacks(card), card, levels) for card in bundle.manifest.domains}
        groups.setdefault((group, joint), []).append(seen)

    for joint in JOINTS:
        for case in cohort("reserved", joint, args.references, args.cache):
            look("reserved", joint, case.volume)
        for number, case in enumerate(cohort("held-out", joint, args.exams, args.cache)):
            look("held-out", joint, case.volume)
            for what in ("inverted", "CT-like") if number < CHANGED else ():
                look(what, joint, apply(FOREIGN[what], what, case, number).volume)
    for joint in ("hip", "elbow"):
        for case in cohort("not-a-joint", joint, args.exams, args.cache):
            look(joint, joint, case.volume)

    rows = []
    for level in levels:
        references = {card.name: fit(groups, card, level) for card in bundle.manifest.domains}
        for method in ("spectral", "all three"):
            rows.append({"level": level, "method": method, **judged(groups, bundle, references, method)})
    header = list(rows[0])
    text = table(header, [[row[key] for key in header] for row in rows])
    keep("layers", args, {"references": args.references, "layers": rows}, text, {"model": bundle})


def fit(groups: dict, card, level: int) -> Reference:
    """A domain's reference from the reserved exams, as export makes it."""
    own = [seen[card.name][level] for seen in groups["reserved", card.joint]]
    others = [
        seen[card.name][level].pooled for joint in JOINTS if joint != card.joint for seen in groups["reserved", joint]
    ]
    pooled, others = np.stack([each.pooled for each in own]), np.stack(others)
    entry, _ = make_signature(card.name, level, np.stack([each.signature for each in own]), level, pooled, others)
    return Reference(entry, np.stack([each.signature for each in own]), Whitened(pooled), Apart(pooled, others))


def judged(groups: dict, bundle: Bundle, references: dict[str, Reference], method: str) -> dict:
    joint_of = {card.name: card.joint for card in bundle.manifest.domains}

    def scores(seen: dict) -> dict[str, float]:
        parts = {name: references[name].parts(moments) for name, moments in seen.items()}
        return {name: each["spectral"] if method == "spectral" else max(each.values()) for name, each in parts.items()}

    def lowest(group: str) -> list[float]:
        return [min(scores(seen).values()) for (name, _), many in groups.items() if name == group for seen in many]

    inside, right = lowest("held-out"), []
    for joint in JOINTS:
        for seen in groups["held-out", joint]:
            found = scores(seen)
            right.append(joint_of[min(found, key=found.__getitem__)] == joint)
    foreign = {f"AUROC {group}": auroc(inside, lowest(group)) for group in ("hip", "elbow", "inverted", "CT-like")}
    return {"joint right": float(np.mean(right)), "false alarms": float(np.mean(np.array(inside) > 1)), **foreign}


if __name__ == "__main__":
    main()
