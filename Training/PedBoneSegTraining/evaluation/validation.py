"""Looking at whole exams while a network is trained: numbers for the log, and the score that selects a step."""

from collections.abc import Callable, Mapping, Sequence

from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.manifest import DomainCard
from PedBoneSegLib.network.segmenter import Segmenter

from ..configuration.sections import Configuration
from ..data.dataset import load_case
from ..data.domains import DomainData
from ..loop.distributed import Ranks
from .evaluate import ExamScores, mean_dice, score_cases

GROUPS = {"validation": "", "selection": "selection/"}  # group of exams → what its numbers' names begin with


def validation(
    domains: Mapping[str, DomainData], names: Sequence[str], config: Configuration, ranks: Ranks
) -> Callable[[Segmenter, int], dict[str, float]] | None:
    """A function from (network, step) to mean Dice on whole exams, as a user's `segment` would answer; None where no
    exams are kept for it. The exams are shared out among the ranks."""
    exams = [
        (group, name, dataset, case)
        for group in GROUPS
        for name in names
        for dataset, case in domains[name].cases(group)
    ]
    if not exams:
        return None
    tables = {name: domains[name].table for name in names}
    cards = tuple(DomainCard(name, table.joint, table, config.slices.to_dict()) for name, table in tables.items())

    def validate(network: Segmenter, step: int) -> dict[str, float]:
        predictor = Predictor.for_network(network, cards, str(ranks.device))
        own = []
        for group, name, dataset, case in exams[ranks.rank :: ranks.count]:

            def segment(volume, name=name):
                return predictor.segment(volume, name).labels

            own.append((group, name, score_cases(segment, [load_case(dataset, case)], tables[name])))
        scores: dict[tuple[str, str], list[ExamScores]] = {}
        for group, name, scored in ranks.gather(own):
            scores.setdefault((group, name), []).extend(scored)
        means = {f"{GROUPS[group]}dice/{name}": mean_dice(scored) for (group, name), scored in sorted(scores.items())}
        values = {name: mean for name, mean in means.items() if mean is not None}
        chosen = [value for name, value in values.items() if name.startswith("selection/")]
        if chosen:
            values["selection"] = sum(chosen) / len(chosen)
        return values

    return validate
