"""The verb `export`: from a finished run to models that the runtime opens.

Every part of an export is a function from draft to draft, in the order of `finish`. Whatever a model is given beyond
its weights (a temperature, signatures, thresholds) is one more such function, added to the list in `finish`: it finds
the exams that training never saw in `draft.exams[domain].reserved`. What it changes in the draft's cards and tensors is
written with the rest. After writing, the file is opened by the runtime and its labels are compared once more.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from PedBoneSegLib import __version__
from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.names import check_folder
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.slices import SliceSettings
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.models.manifest import DomainCard, Manifest
from PedBoneSegLib.network.segmenter import Segmenter

from ..data.dataset import load_case
from ..data.domains import DomainData, open_domains
from ..evaluation.evaluate import labels_of, metrics_of, score_cases, table_lines, without_signatures
from ..loop.runfolder import Result, RunFolder
from ..synthesis import ahead
from ..synthesis.cohort import Recipe
from .agreement import choose_storage, prove, validate_precisions
from .card import write_card
from .draft import AGREEMENT, Draft, Exams
from .exam_statistics import choose_exam_statistics, domain_statistics_alone
from .onnx_export import check_onnx_folder, write_onnx
from .reference import add_reference_data

SYNTHETIC_EXAMS = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    parser.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        type=Path,
        help="a .safetensors file (default: in the run's folder); a run with several networks writes "
        "one each, MODEL-NAME.safetensors",
    )
    parser.add_argument("--name", help="the model's name (default: the run's)")
    parser.add_argument("--model-version", default="1", metavar="V", help="its version (default: 1)")
    parser.add_argument("--licence", default="not stated", help="its license, which depends on the data")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--synthetic-reserve",
        type=int,
        default=SYNTHETIC_EXAMS,
        metavar="N",
        help="exams to draw for the reserve of a domain trained on synthetic exams alone "
        "(default: %(default)s; below 8 it gets no verdict)",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that draw them (default: 1)")
    parser.add_argument(
        "--agreement",
        type=_dice,
        default=AGREEMENT,
        metavar="DICE",
        help="smallest Dice with the trained network's labels at which float16 storage, or a faster number "
        "format, is accepted (default: %(default)s)",
    )
    parser.add_argument(
        "--onnx",
        metavar="FOLDER",
        type=Path,
        help="also write the network of each domain as ONNX, with its metadata, into this new folder",
    )


def _dice(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no Dice above 0 and up to 1")
    return value


def run(args: argparse.Namespace) -> int:
    if args.onnx:
        check_onnx_folder(args.onnx)
    done = export_run(
        args.run,
        args.output,
        args.device,
        args.name,
        args.model_version,
        args.licence,
        synthetic=args.synthetic_reserve,
        jobs=args.jobs,
        agreement=args.agreement,
    )
    print("\n".join(report(done)))
    if args.onnx:
        for path, _ in done:
            print(*write_onnx(Bundle.load(path), args.onnx), sep="\n")
    return 0


def report(written: list[tuple[Path, Manifest]]) -> list[str]:
    """For people: each file, and its metrics bone by bone."""
    lines = []
    for path, model in written:
        size, formats = path.stat().st_size / 2**20, ", ".join(model.precisions)
        lines.append(f"{path}: {size:.1f} MiB, convolutions in {model.storage}, labels the same in {formats}")
        for card in model.domains:
            rows = table_lines(card.metrics) if card.metrics else ["not measured: no validation exams"]
            lines += [f"  {card.name}", *(f"    {row}" for row in rows)]
    return lines


def export_run(
    folder: str | Path,
    output: str | Path | None = None,
    device: str = "auto",
    name: str | None = None,
    version: str = "1",
    licence: str = "not stated",
    *,
    synthetic: int = SYNTHETIC_EXAMS,
    jobs: int = 1,
    agreement: float = AGREEMENT,
) -> list[tuple[Path, Manifest]]:
    """Writes a model for each network that a finished run is for; its data must still be where they were.

    A domain that was trained on synthetic exams alone gets `synthetic` more of them, drawn by `jobs` processes from the
    cohort that no training sees, as its reserve.
    """
    run = RunFolder.open(folder)
    results, study = list(run.results()), open_domains(run.config)
    name = _model_name(name or run.config.name)
    output = Path(output) if output else run.path / f"{name}.safetensors"
    check_folder(output.absolute().parent)
    written = []
    for result in results:
        path, called = output, name
        if len(results) > 1:
            called = _model_name(f"{name}-{result.stage.name}")
            path = output.with_name(f"{output.stem}-{result.stage.name}.safetensors")
        domains = {domain: study[domain] for domain in result.stage.domains}
        draft = start_draft(
            result.network,
            {key: domain.table for key, domain in domains.items()},
            run.config.slices,
            {key: exams_of(domain, run.config.seed, synthetic, jobs) for key, domain in domains.items()},
            name=called,
            version=version,
            licence=licence,
            provenance=_provenance(run, result, domains),
            device=device,
            agreement=agreement,
        )
        written.append((path, finish(draft, path)))
    return written


def start_draft(
    network: Segmenter,
    tables: Mapping[str, JointTable],
    settings: SliceSettings,
    exams: Mapping[str, Exams],
    *,
    name: str,
    version: str = "1",
    licence: str = "not stated",
    provenance: dict | None = None,
    device: str = "cpu",
    agreement: float = AGREEMENT,
) -> Draft:
    """The first draft: the network, its label tables and its exams."""
    specs = network.config.domains
    cards = tuple(DomainCard(spec.name, spec.joint, tables[spec.name], settings.to_dict()) for spec in specs)
    provenance = {"software": f"PedBoneSeg {__version__}", "torch": torch.__version__, **(provenance or {})}
    manifest = Manifest(name, version, licence, provenance, network.config, cards)
    return Draft(network.eval(), manifest, exams, device, agreement=agreement)


def finish(draft: Draft, path: str | Path) -> Manifest:
    """All parts of the export in order, then the file and its proof. Returns the manifest as written."""
    for part in (
        choose_storage,
        validate_precisions,
        choose_exam_statistics,
        add_reference_data,
        measure,
        write_card,
    ):
        draft = part(draft)
    with whole_file(path) as temporary:  # the model takes its place when it is proven, not before
        manifest = write_bundle(temporary, draft.manifest, draft.all_tensors())
        written = Bundle.load(temporary)
        alone = domain_statistics_alone(draft.manifest)
        prove(replace(draft, manifest=alone), replace(written, manifest=domain_statistics_alone(written.manifest)))
    return manifest


def measure(draft: Draft) -> Draft:
    """Metrics on the validation exams, by the model as it will be stored."""
    predictor = Predictor(without_signatures(draft.bundle()), draft.device)
    for name in draft.measured:
        if draft.exams[name].validation:
            cases = (load() for load in draft.exams[name].validation)
            exams = score_cases(labels_of(predictor, name), cases, draft.manifest.domain(name).table)
            draft = draft.with_card(name, metrics=metrics_of(exams))
    return draft


# --------------------------------------------------------------------------------------- from a run's folder


def _model_name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64].rstrip("._-") or "model"


def exams_of(domain: DomainData, seed: int, synthetic: int = 0, jobs: int = 1) -> Exams:
    """A domain without a data set was trained on synthetic exams: the first of them serves to compare labels,
    `synthetic` of a frozen cohort are reserved, and `synthetic // 4` exams of another cohort serve as validation."""
    if not domain.datasets:
        joint = domain.table.joint
        return Exams(
            ahead.loaders(partial(ahead.exam, Recipe(joint, seed)), 1),
            ahead.loaders(partial(ahead.held_out, joint), synthetic // 4, jobs),
            ahead.loaders(partial(ahead.reserved, joint), synthetic, jobs),
        )
    groups = {
        group: tuple(lambda of=dataset, case=case: load_case(of, case) for dataset, case in domain.cases(group))
        for group in ("train", "validation", "reserved")
    }
    return Exams(**groups)


def _provenance(run: RunFolder, result: Result, domains: Mapping[str, DomainData]) -> dict:
    """What made the model, without paths and names of cases: those may say whose images they are."""
    private = (".hold_out", ".table", ".shapes", "natural_images")
    settings = {key: value for key, value in run.config.identity().items() if not key.endswith(private)}
    data = {}
    for name, domain in domains.items():
        described = json.dumps(run.data[name], sort_keys=True)
        data[name] = {
            "data sets": len(domain.datasets),
            **{group: len(domain.cases(group)) for group in ("train", "validation", "selection", "reserved")},
            "synthetic share": run.config.domains[name].synthetic,
            "further shapes": len(run.config.domains[name].shapes),
            "sha256": hashlib.sha256(described.encode()).hexdigest(),
        }
    return {
        "study": run.config.name,
        "scheme": run.config.scheme,
        "network": result.stage.name,
        "step": result.step,
        "selected": result.selected,
        "configuration": settings,
        "data": data,
        **run.about,
    }
