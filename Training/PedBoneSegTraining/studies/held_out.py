"""How good a model is on exams that no training saw, bone by bone and family by family.

Families: `held-out`; the sequence that training never draws (STIR); `held-out` with every exam degraded once (noise,
blur, shading, lost slices in turn); and, with `--shapes JOINT=PATH …`, `held-out` with the bones of a folder of meshes
or a label map. Whether the model's training had those shapes is its card's to say.
"""

from pathlib import Path

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve

from ..data.degraded import DEGRADED, apply
from ..evaluation.evaluate import labels_of, metrics_of, score_cases, without_signatures
from ..synthesis.anatomy.sources import shape_source
from .exams import cohort
from .tables import keep, options, table


def main() -> None:
    parser = options(__doc__, 12)
    parser.add_argument("--models", nargs="+", required=True, metavar="MODEL")
    parser.add_argument("--shapes", nargs="+", default=[], metavar="JOINT=PATH", help="further sources of bones")
    args = parser.parse_args()
    models = {bundle.manifest.name: bundle for bundle in map(Bundle.load, map(resolve, args.models))}
    found = {
        name: {
            card.name: {
                family: metrics_of(score_cases(labels_of(predictor, card.name), cases(), card.table))
                for family, cases in families(card.joint, args).items()
            }
            for card in bundle.manifest.domains
        }
        for name, bundle in models.items()
        for predictor in [Predictor(without_signatures(bundle), args.device)]
    }
    text = "\n\n".join(f"**{name}**\n\n{summary(domains)}" for name, domains in found.items())
    keep("held_out", args, {"families": found}, text, models)


def families(joint: str, args) -> dict:
    """Family → a function that gives its exams."""

    def degraded():
        for number, case in enumerate(cohort("held-out", joint, args.exams, args.cache)):
            what = list(DEGRADED)[number % len(DEGRADED)]
            yield apply(DEGRADED[what], what, case, number)

    chosen = {
        "held-out": lambda: cohort("held-out", joint, args.exams, args.cache),
        "unseen sequence": lambda: cohort("held-out-sequence", joint, args.exams, args.cache),
        "degraded": degraded,
    }
    for entry in args.shapes:
        of, equals, path = entry.partition("=")
        if not equals:
            raise BadInput(f"--shapes {entry!r} names no joint", "write JOINT=PATH")
        if of == joint:
            source = shape_source(Path(path), joint)
            chosen[source.name] = lambda source=source: cohort("held-out", joint, args.exams, args.cache, source)
    return chosen


def summary(domains: dict) -> str:
    """Mean Dice of each bone where it is in view; in brackets the exams, and how many lack it in the answer."""
    names = list(dict.fromkeys(family for found in domains.values() for family in found))
    rows = []
    for domain, found in domains.items():
        for bone in dict.fromkeys(bone for each in found.values() for bone in each["bones"]):
            cells = []
            for family in names:
                one = found.get(family, {"bones": {}})["bones"].get(bone)
                cells.append(one and one["exams"] and f"{one['dice']:.3f} ({one['exams']}, {one['missing']})")
            rows.append([f"{domain}: {bone}", *(cell or None for cell in cells)])
    return table(["mean Dice (exams, missing)", *names], rows)


if __name__ == "__main__":
    main()
