"""The verb `export`: from a trained network to a model that the runtime opens.

A `Draft` is the model in the making: the network, what the model will say of itself, and the exams that may be looked
at. Every part of the export is a function from draft to draft, in the order of `finish`. Whatever a model is given
beyond its weights (a temperature, signatures, thresholds) is one more such function, put where its order says: it finds
the exams that training never saw in `draft.exams[domain].reserved`, and what it changes in the draft's cards and
tensors is written with the rest.

Proof. All claims are held against the network *as trained*: not folded, float32, every domain through its own rows of
the normalization. Float16 storage and each number format below float32 are claimed only if, on every domain's proof
exam, every bone's labels agree with the trained network's to a Dice of 0.999 (`--agreement`). A number format that
the device here is not faster with is imitated: float32 arithmetic, every result rounded to the format. After writing,
the file is opened by the runtime and the same exams are segmented once more.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from PedBoneSegLib import __version__
from PedBoneSegLib.anatomy import JointTable
from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.files import whole_file
from PedBoneSegLib.formats.names import check_folder
from PedBoneSegLib.inference.devices import faster_precisions
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.slices import SliceSettings
from PedBoneSegLib.models.bundle import Bundle, write_bundle
from PedBoneSegLib.models.manifest import DomainCard, Manifest
from PedBoneSegLib.network.segmenter import Segmenter

from ..data.dataset import LoadedCase, load_case
from ..data.domains import DomainData, open_domains
from ..evaluation.evaluate import labels_of, metrics_of, plain, score_cases, table_lines
from ..loop.runfolder import Result, RunFolder
from .reference import know_itself

SYNTHETIC_EXAMS = 96
AGREEMENT = 0.999
FLOAT16_LARGEST = 65504.0

Loader = Callable[[], LoadedCase]


@dataclass(frozen=True)
class Exams:
    """A domain's exams, each as a function that loads it. Only `reserved` were kept from every choice of the training;
    `validation` were looked at; `train` were learnt from."""

    train: tuple[Loader, ...] = ()
    validation: tuple[Loader, ...] = ()
    reserved: tuple[Loader, ...] = ()

    @property
    def proof(self) -> Loader | None:
        """One exam to compare labels on; whether it was learnt from does not matter there."""
        return next(iter((*self.train, *self.validation, *self.reserved)), None)


@dataclass(frozen=True)
class Draft:
    """`tensors` go into the file beside the network's (`signatures.<domain>`). `only`: the domains that this export may
    measure; the others' cards stay as they are (a model that was only adapted). `agreement`: the Dice of a bone's
    labels with the trained network's below which a number format or a storage is not claimed."""

    network: Segmenter
    manifest: Manifest
    exams: Mapping[str, Exams]
    device: str = "cpu"
    tensors: Mapping[str, Tensor | np.ndarray] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    agreement: float = AGREEMENT

    @property
    def measured(self) -> tuple[str, ...]:
        return self.only or tuple(card.name for card in self.manifest.domains)

    def with_card(self, name: str, **changes) -> "Draft":
        """The draft with some fields of one domain's card changed."""
        cards = tuple(replace(card, **changes) if card.name == name else card for card in self.manifest.domains)
        return replace(self, manifest=replace(self.manifest, domains=cards))

    def all_tensors(self) -> dict[str, Tensor | np.ndarray]:
        return {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()} | dict(self.tensors)

    def bundle(self) -> Bundle:
        """The model in memory as it would be read from its file."""
        arrays = {name: np.asarray(torch.as_tensor(tensor).cpu()) for name, tensor in self.all_tensors().items()}
        if self.manifest.storage == "float16":
            arrays = {
                name: array.astype(np.float16).astype(np.float32) if array.ndim == 4 else array
                for name, array in arrays.items()
            }
        return Bundle(Path(self.manifest.name), self.manifest, arrays)


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
    parser.add_argument("--licence", default="not stated", help="its licence, which depends on the data")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--synthetic-reserve",
        type=int,
        default=SYNTHETIC_EXAMS,
        metavar="N",
        help="exams to draw for the self-knowledge of a domain trained on synthetic exams alone "
        "(default: %(default)s; below 8 it gets no verdict)",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that draw them (default: 1)")
    parser.add_argument(
        "--agreement",
        type=_dice,
        default=AGREEMENT,
        metavar="DICE",
        help="least Dice between every bone as trained and as stored, or as calculated in a shorter "
        "number format, for which float16 or that format is taken (default: %(default)s)",
    )


def _dice(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no Dice above 0 and up to 1")
    return value


def run(args: argparse.Namespace) -> int:
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
    return 0


def report(written: list[tuple[Path, Manifest]]) -> list[str]:
    """For people: each file, and its metrics bone by bone."""
    lines = []
    for path, model in written:
        size, formats = path.stat().st_size / 2**20, ", ".join(model.precisions)
        lines.append(f"{path}: {size:.1f} MiB, convolutions in {model.storage}, labels the same in {formats}")
        for card in model.domains:
            rows = table_lines(card.metrics) if card.metrics else ["not measured: no validation exams"]
            lines += [f"  {card.name:12}  {row}" for row in rows]
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
        domains = {each: study[each] for each in result.stage.domains}
        begun = draft(
            result.network,
            {each: domain.table for each, domain in domains.items()},
            run.config.slices,
            {each: exams_of(domain, run.config.seed, synthetic, jobs) for each, domain in domains.items()},
            name=called,
            version=version,
            licence=licence,
            provenance=_provenance(run, result, domains),
            device=device,
            agreement=agreement,
        )
        written.append((path, finish(begun, path)))
    return written


def draft(
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
    """The beginning: a network and what goes with each of its domains."""
    specs = network.config.domains
    cards = tuple(DomainCard(spec.name, spec.joint, tables[spec.name], settings.to_dict()) for spec in specs)
    provenance = {"software": f"PedBoneSeg {__version__}", "torch": torch.__version__, **(provenance or {})}
    manifest = Manifest(name, version, licence, provenance, network.config, cards)
    return Draft(network.eval(), manifest, exams, device, agreement=agreement)


def finish(draft: Draft, path: str | Path) -> Manifest:
    """All parts of the export in order, then the file and its proof. Returns the manifest as written."""
    for part in (choose_storage, validate_precisions, know_itself, measure, write_card):
        draft = part(draft)
    with whole_file(path) as temporary:  # the model takes its place when it is proven, not before
        manifest = write_bundle(temporary, draft.manifest, draft.all_tensors())
        prove(draft, Bundle.load(temporary))
    return manifest


def choose_storage(draft: Draft) -> Draft:
    """Convolutions in float16 where the labels stay the same, else in float32.

    A model adapted from one in float32 stays so: rounding would change its older domains.
    """
    full, half = (replace(draft, manifest=replace(draft.manifest, storage=each)) for each in ("float32", "float16"))
    if draft.only and draft.manifest.storage == "float32":
        return full
    largest = max(tensor.abs().max().item() for tensor in draft.network.state_dict().values() if tensor.ndim == 4)
    fits = largest < FLOAT16_LARGEST and _same_labels(draft, Predictor(plain(half.bundle()), draft.device))
    return half if fits else full


def validate_precisions(draft: Draft) -> Draft:
    """The number formats in which the labels stay the same. A model adapted from another keeps to that one's."""
    names = draft.manifest.precisions[1:] if draft.only else ("bfloat16", "float16")
    bundle = plain(draft.bundle())
    kept = [name for name in names if _same_labels(draft, _InPrecision(bundle, draft.device, name))]
    return replace(draft, manifest=replace(draft.manifest, precisions=("float32", *kept)))


def measure(draft: Draft) -> Draft:
    """Metrics on the validation exams, by the model as it will be stored."""
    predictor = Predictor(plain(draft.bundle()), draft.device)
    for name in draft.measured:
        if draft.exams[name].validation:
            cases = (load() for load in draft.exams[name].validation)
            exams = score_cases(labels_of(predictor, name), cases, draft.manifest.domain(name).table)
            draft = draft.with_card(name, metrics=metrics_of(exams))
    return draft


def write_card(draft: Draft) -> Draft:
    """The model card, from what the parts before found out."""
    return replace(draft, manifest=replace(draft.manifest, card=model_card(draft.manifest, draft.agreement)))


def prove(draft: Draft, bundle: Bundle) -> None:
    """The file, opened by the runtime, gives the trained network's labels. BadModel if it does not."""
    for name, agreement in _agreements(draft, Predictor(plain(bundle), draft.device)):
        if agreement < draft.agreement:
            raise BadModel(
                f"model {draft.manifest.name}: the written file's labels for {name} are not the trained network's "
                f"(Dice {agreement:.4f})",
                "nothing was kept; please report this as a bug",
            )


def label_agreement(a: np.ndarray, b: np.ndarray, bones: int) -> float:
    """The lowest Dice over the bones that either array has; 1 where neither has any."""
    lowest = 1.0
    for label in range(1, bones + 1):
        one, other = a == label, b == label
        size = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
        if size:
            lowest = min(lowest, 2 * int(np.count_nonzero(one & other)) / size)
    return lowest


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
        if card.note:
            lines += ["", card.note]
        if card.metrics:
            kind = "held-out synthetic" if synthetic else "validation"
            lines += ["", f"On {card.metrics['exams']} {kind} exams, per bone in 3-D:", ""]
            lines += [f"    {line}" for line in table_lines(card.metrics)]
        else:
            lines += ["", "Not measured: there were no validation exams."]
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------------- from a run's folder


def _model_name(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64].rstrip("._-") or "model"


def exams_of(domain: DomainData, seed: int, synthetic: int = 0, jobs: int = 1) -> Exams:
    """A domain without a data set was trained on synthetic exams: the first of them serves to compare labels,
    `synthetic` of a frozen cohort are reserved, and a quarter as many of another one are measured on."""
    if not domain.datasets:
        from ..synthesis import ahead
        from ..synthesis.cohort import Recipe

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


# ---------------------------------------------------------------------------------------- labels, compared


def _same_labels(draft: Draft, predictor: Predictor) -> bool:
    """Whether `predictor` gives the trained network's labels in every domain that has an exam; False where none has:
    what nobody looked at is not claimed."""
    lowest = [agreement for _, agreement in _agreements(draft, predictor)]
    return min(lowest, default=0.0) >= draft.agreement


def _agreements(draft: Draft, predictor: Predictor) -> Iterator[tuple[str, float]]:
    """Per domain that has an exam, how far `predictor`'s labels agree with the trained network's."""
    trained = _AsTrained.for_network(draft.network, plain(draft.bundle()).manifest.domains, draft.device)
    for name in draft.measured:
        if proof := draft.exams[name].proof:
            volume, bones = proof().volume, draft.manifest.domain(name).table.bones
            wanted, found = labels_of(trained, name)(volume), labels_of(predictor, name)(volume)
            yield name, label_agreement(wanted, found, len(bones))


class _AsTrained(Predictor):
    """The runtime's way around the network, with the trained network itself in place of the folded one."""

    def network(self, domain: str, device: torch.device, precision: torch.dtype):
        if not self._networks:
            self._networks[()] = self.bundle.network().to(device)
        return lambda images: self._networks[()](images, [domain] * len(images)).logits[domain]

    def precision(self, device: torch.device) -> torch.dtype:
        return torch.float32


class _InPrecision(Predictor):
    """Calculates in the given number format, or as if, where the device is not faster with it."""

    def __init__(self, bundle: Bundle, device: str, name: str) -> None:
        super().__init__(bundle, device)
        self.format = getattr(torch, name)
        self.real = name in faster_precisions(self.device)

    def precision(self, device: torch.device) -> torch.dtype:
        return self.format if self.real else torch.float32

    def network(self, domain: str, device: torch.device, precision: torch.dtype):
        network = super().network(domain, device, precision)
        if self.real:
            return network

        def rounded(images: Tensor) -> Tensor:
            with _Rounding(self.format):
                return network(images)

        return rounded


class _Rounding(TorchDispatchMode):
    """Every result of an operation is rounded to a format; what is beyond its range becomes infinite, as it would."""

    def __init__(self, to: torch.dtype) -> None:
        super().__init__()
        self.to = to

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32:
            rounded = result.to(self.to).to(torch.float32)
            return result.copy_(rounded) if function._schema.is_mutable else rounded
        return result
