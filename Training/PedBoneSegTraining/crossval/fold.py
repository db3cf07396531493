"""One fold: train without the exams that it holds out, then segment and score them as a user's `segment` would."""

import numpy as np

from PedBoneSegLib.files import sweep_partials
from PedBoneSegLib.formats.writing import write_labels
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.manifest import DomainCard
from PedBoneSegLib.volume import Volume

from ..data.dataset import Dataset, load_case
from ..data.domains import DomainData, open_domains
from ..evaluation.evaluate import score_cases
from ..loop.distributed import Ranks
from ..loop.runfolder import RunFolder
from ..models.training_run import train
from .study import CrossValidation
from .tables import Score, write_scores


def run_fold(study: CrossValidation, number: int) -> None:
    """Goes on where it was stopped; does nothing when the fold is done."""
    if study.scores_file(number).exists():
        return
    config, run = study.fold_config(number), study.fold_folder(number) / "run"
    ranks = Ranks.start(config.run.device)
    try:
        train(config, run, ranks, study.init)
        if ranks.first:
            write_scores(study.scores_file(number), _score(study, number, str(ranks.device)))
    finally:
        ranks.stop()


def _score(study: CrossValidation, number: int, device: str) -> list[Score]:
    scores = []
    for result in RunFolder.open(study.fold_folder(number) / "run").results():
        opened = open_domains(study.config)
        domains = [opened[name] for name in result.stage.domains]
        cards = tuple(
            DomainCard(domain.name, domain.table.joint, domain.table, study.config.slices.to_dict())
            for domain in domains
        )
        predictor = Predictor.for_network(result.network, cards, device)
        for domain in domains:
            for dataset in domain.datasets:
                for exam in study.folds[number].get(domain.name, ()):
                    if exam in {case.name for case in dataset.cases}:
                        scores += _score_exam(study, number, predictor, domain, dataset, exam)
    return scores


def _score_exam(
    study: CrossValidation, number: int, predictor: Predictor, domain: DomainData, dataset: Dataset, exam: str
) -> list[Score]:
    """The exam's scores; its labels are kept for the report."""
    case = load_case(dataset, dataset.case(exam))

    def segment(volume: Volume) -> np.ndarray:
        result = predictor.segment(volume, domain.name)
        path = study.labels_file(number, domain.name, exam)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_partials(path.parent)
        write_labels(path, result.labels, result.grid, result.table, result.side)
        return result.labels

    (scored,) = score_cases(segment, [case], domain.table)
    return [Score(number, domain.name, exam, bone, score) for bone, score in scored.bones.items()]
