"""How fast a model becomes a good one for data it has never seen, with 1, 2, 5 and 10 exams of them: `adapt` (frozen
filters), `train --init` (all of the network, from the model) and training from nothing, in as many steps each.

Two cohorts, both with seed 4001: knees in STIR, a sequence that no bundled model was trained on, and elbows, a joint
that it does not know. All are measured on the same further exams (seed 4002). With four exams and more, `adapt` keeps
a fifth to look at, as for any user; `train` learns from all of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve

from .. import configuration
from ..data.dataset import load_case, read_dataset
from ..evaluation.evaluate import labels_of, mean_dice, score_cases, without_signatures
from ..loop.distributed import Ranks
from ..models import adapt
from ..models.training_run import train
from ..synthesis.cohort import Recipe
from ..synthesis.source import STACK_VOXELS
from ..synthesis.writer import write_cohort
from .tables import keep, options, table

SEED, TEST_SEED = 4001, 4002


@dataclass(frozen=True)
class Cohort:
    joint: str
    preset: str | None
    says: str

    def folder(self, out: Path, seed: int, exams: int) -> Path:
        recipe = Recipe(self.joint, seed, preset=self.preset, most_voxels=STACK_VOXELS)
        return write_cohort(out / f"{self.joint}-{seed}-{exams}", [recipe], exams)[0]


COHORTS = (Cohort("knee", "STIR", "knees in STIR"), Cohort("elbow", None, "elbows"))


def main() -> None:
    parser = options(__doc__, 8)
    parser.add_argument("--model", required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 5, 10], help="exams (default: 1 2 5 10)")
    parser.add_argument("--steps", type=int, default=200, help="of each training (default: %(default)s)")
    args = parser.parse_args()
    bundle = Bundle.load(resolve(args.model))
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    with TemporaryDirectory() as temporary:
        for cohort in COHORTS:
            scores = found[cohort.says] = study(cohort, bundle, args, Path(temporary))
            print(cohort.says, json.dumps(scores), flush=True)
    rows = [
        [f"{cohort}, {way}", *(scores.get(count) for count in (0, *args.counts))]
        for cohort, ways in found.items()
        for way, scores in ways.items()
    ]
    text = table(["mean Dice over bones, exams:", "0", *map(str, args.counts)], rows)
    keep("few_shot", args, {"steps": args.steps, "dice": found}, text, {"model": bundle})


def study(cohort: Cohort, bundle: Bundle, args, out: Path) -> dict[str, dict[int, float | None]]:
    """Way → number of exams → mean Dice over the bones."""
    data = args.cache or out
    folder = cohort.folder(data, TEST_SEED, args.exams)
    bones = adapt.table_of_dataset(folder, cohort.joint)
    csv = out / f"{cohort.joint}.csv"
    csv.write_text(bones.to_csv(), encoding="utf-8")
    test = read_dataset(folder, cohort.joint, table=bones)
    exams = [load_case(test, case) for case in test.cases]

    def score(path: Path, domain: str) -> float | None:
        predictor = Predictor(without_signatures(Bundle.load(path)), args.device)
        return mean_dice(score_cases(labels_of(predictor, domain), exams, bones))

    ways: dict[str, dict[int, float | None]] = {"adapt": {}, "train --init": {}, "train from nothing": {}}
    if any(card.name == cohort.joint for card in bundle.manifest.domains):
        ways = {"the model as it is": {0: score(bundle.path, cohort.joint)}} | ways
    for count in args.counts:
        learnt = cohort.folder(data, SEED, count)
        domain, given = (f"{cohort.joint}-new", None) if "the model as it is" in ways else (cohort.joint, csv)
        adapted = out / f"{cohort.joint}-{count}.safetensors"
        adapt.adapt(bundle.path, domain, learnt, given, adapted, steps=args.steps, device=args.device)
        ways["adapt"][count] = score(adapted, domain)
        for way, init in (("train --init", str(bundle.path)), ("train from nothing", None)):
            run = out / f"{cohort.joint}-{count}-{bool(init)}"
            config = configuration.from_dict(settings(cohort.joint, csv, bundle, learnt, args))
            train(config, run, Ranks.start(args.device), init)
            ways[way][count] = score(run / f"{config.name}.safetensors", cohort.joint)
    return ways


def settings(joint: str, csv: Path, bundle: Bundle, data: Path, args) -> dict:
    """One joint's training from `data` alone, in the model's own terms."""
    card, network = bundle.manifest.domains[0], bundle.manifest.network
    return {
        "name": "few",
        "scheme": "multi-domain",
        "domains": {joint: {"datasets": [str(data)], "table": str(csv)}},
        "slices": card.settings,
        "network": {"architecture": network.architecture, "decoder": network.decoder},
        "data": {"patch": [192, 192], "validation": 0.0, "reserved": 0.0},
        "training": {"steps": args.steps, "batch": 8, "warmup": 20},
        "run": {"picture_every": 0, "checkpoint_every": args.steps},
    }


if __name__ == "__main__":
    main()
