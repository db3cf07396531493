"""How far probabilities can be believed, on `held-out`: networks of single joints against networks of all, each with
temperature 1 and with its own. `--models NAME=MODEL …`: several of a kind (seeds) have names of their own; a model is
asked for the joints that it knows. Draws the reliability diagrams."""

from dataclasses import replace

from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.store import resolve

from ..models.calibration import Reliability, reliability
from .detection import JOINTS
from .exams import cohort
from .tables import keep, options, table


def main() -> None:
    parser = options(__doc__, 12)
    parser.add_argument("--models", nargs="+", required=True, metavar="NAME=MODEL")
    args = parser.parse_args()
    models = {name: Bundle.load(resolve(path)) for name, path in (word.split("=", 1) for word in args.models)}
    sums: dict[tuple[str, str, float], Reliability] = {}
    for joint in JOINTS:
        for case in cohort("held-out", joint, args.exams, args.cache):
            for name, bundle in models.items():
                for card in bundle.manifest.domains:
                    if card.joint == joint:
                        for temperature in dict.fromkeys((1.0, card.temperature)):
                            key = name, joint, temperature
                            used = at_temperature(bundle, card, temperature)
                            found = reliability(Predictor(used, args.device), used.manifest.domain(card.name), case)
                            sums[key] = sums.get(key, Reliability()) + found
    header = ["model", "joint", "temperature", "ECE", "Brier", "NLL", "voxels"]
    rows = [
        [name, joint, temperature, each.ece, each.brier, each.nll, int(each.voxels.sum())]
        for (name, joint, temperature), each in sums.items()
    ]
    args.output.mkdir(parents=True, exist_ok=True)
    draw(sums, args.output / "calibration.png")
    numbers = [dict(zip(header[:3], key, strict=True)) | each.to_dict() for key, each in sums.items()]
    keep("calibration", args, {"calibration": numbers}, table(header, sorted(rows, key=lambda row: row[1])), models)


def at_temperature(bundle: Bundle, card, temperature: float) -> Bundle:
    cards = tuple(replace(each, temperature=temperature) if each is card else each for each in bundle.manifest.domains)
    return replace(bundle, manifest=replace(bundle.manifest, domains=cards))


def draw(sums: dict, path) -> None:
    """A panel a joint: accuracy over confidence; dashed at temperature 1."""
    from matplotlib.figure import Figure

    figure = Figure((4 * len(JOINTS), 5), layout="constrained")
    for joint, axes in zip(JOINTS, figure.subplots(1, len(JOINTS), sharey=True), strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        models = dict.fromkeys(name for name, of, _ in sums if of == joint)
        colors = {name: f"C{number}" for number, name in enumerate(models)}
        for (name, of, temperature), each in sums.items():
            if of == joint:
                bins = [b for b in each.to_dict()["bins"] if b["voxels"]]
                axes.plot(
                    [b["confidence"] for b in bins],
                    [b["accuracy"] for b in bins],
                    color=colors[name],
                    linestyle="--" if temperature == 1 else "-",
                    label=f"{name}, T = {temperature:.2f}",
                )
        axes.set(title=joint, xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
        if colors:
            axes.legend(fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.supylabel("accuracy")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
