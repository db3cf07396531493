"""What detection adds to the time of segmenting 64 slices of 256 × 256 pixels, and how that grows with the domains: the
model as it is, and with the signatures of its first domains alone. The fastest of `--exams` runs each, taken in turn
with a warm model, so that whatever else the machine does weighs on all of them alike."""

import time
from dataclasses import replace

import numpy as np

from PedBoneSegLib.inference.devices import use_most_cores
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.volume import Grid, Volume

from .tables import keep, options, table

EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def main() -> None:
    parser = options(__doc__, 5)
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    use_most_cores()
    bundle = Bundle.load(resolve(args.model))
    cards = bundle.manifest.domains
    mm = cards[0].settings["pixel_mm"]
    random = np.random.default_rng(0)
    array = 200 + random.normal(0, 30, (64, 256, 256))
    volume = Volume(array.astype(np.float32), Grid(array.shape, (3.0, mm, mm), (0.0, 0.0, 0.0), EYE))
    predictors = []
    for count in range(len(cards) + 1):
        kept = tuple(replace(card, signature=card.signature if n < count else None) for n, card in enumerate(cards))
        used = replace(bundle, manifest=replace(bundle.manifest, domains=kept))
        predictors.append(Predictor(used, args.device))
        predictors[-1].segment(volume, cards[0].name)  # warm
    fastest = [float("inf")] * len(predictors)
    for _ in range(args.exams):
        for number, predictor in enumerate(predictors):
            started = time.perf_counter()
            predictor.segment(volume, cards[0].name)
            fastest[number] = min(fastest[number], time.perf_counter() - started)
    rows = [[count, seconds] for count, seconds in enumerate(fastest)]
    text = table(["domains with signatures", "seconds", "added"], [[*row, row[1] / rows[0][1] - 1] for row in rows])
    precision = str(predictor.precision(predictor.device))
    numbers = {"seconds": rows, "device": str(predictor.device), "precision": precision}
    keep("cost", args, numbers, text, {"model": bundle})


if __name__ == "__main__":
    main()
