"""The verb `adapt`: a further domain in a finished model, from a few exams (one is enough to start).

When to use it: for a joint that the model does not know, with fewer than five exams. With as few exams of a joint that
it knows, the model as it is was better; from five exams on, `train --init` was (docs/model.md).

    adapt --joint knee-HOSPITAL …   an own scanner for a joint that the model knows: another domain of that joint
    adapt --joint elbow …           a joint that it does not know; bones from --table, else from dataset.json

A domain is a normalization and an output layer. Both begin as copies of the most like domain's (the one that does best
on the new exams, where the bones are the same; else the model's first, with a fresh output layer), and only they are
trained: the shared filters are frozen, so all older domains stay bit for bit what they were. With `shared_rate` above 0
the filters move too, at that share of the learning rate: better for a joint unlike all others, paid for by the older
domains, whose metrics, temperatures, signatures and review then no longer hold and are taken out.

At the end the running statistics are measured anew, as the plain average over many batches: a few hundred steps are too
few for the running average to forget where it came from.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from PedBoneSegLib import __version__
from PedBoneSegLib.anatomy import Bone, Code, JointTable, joint_table, known_joints
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.formats.names import check_folder
from PedBoneSegLib.inference.devices import choose_device
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.inference.slices import SliceSettings
from PedBoneSegLib.models.bundle import Bundle
from PedBoneSegLib.models.manifest import DomainCard, Manifest
from PedBoneSegLib.models.store import resolve
from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.dsbn import DomainBatchNorm
from PedBoneSegLib.network.segmenter import Segmenter

from ..configuration import Data, Training
from ..configuration.extensions import AUGMENTATIONS
from ..data.bank import Bank
from ..data.dataset import Dataset, load_case, read_dataset, split_cases
from ..data.source import DatasetSource, Source
from ..evaluation.evaluate import aligned, labels_of, mean_dice, metrics_of, score_cases, without_signatures
from ..loop.schedule import learning_rate
from ..losses.segmentation import segmentation_loss
from ..memory import keep_freed_memory
from ..randomness import generator
from .draft import Draft, Exams
from .export import finish

LARGEST_PATCH = 256
STATISTICS_PASSES = 24
FEW = 5  # exams from which `train --init` does better than `adapt`, measured in docs/model.md
PALETTE = ((221, 130, 101), (128, 174, 128), (111, 184, 210), (216, 191, 112), (177, 122, 101), (144, 145, 190))


@dataclass(frozen=True)
class Adaptation:
    """What came of it. `before` and `after` are `metrics_of` the same exams; `before` is None for a new joint.
    `held_out` tells whether these exams were kept from training (with fewer than four there are none to keep)."""

    path: Path
    manifest: Manifest
    before: dict | None
    after: dict
    held_out: bool
    exams: int
    seconds: float

    def advice(self) -> str:
        """What our measurements (docs/model.md) say of this number of exams; "" for a few of a joint that is new."""
        if self.exams >= FEW:
            return f"from {FEW} exams on, training from the model was better: pedboneseg train CONFIG --init MODEL"
        if self.before is None:
            return ""
        return (
            f"with fewer than {FEW} exams of a joint that the model knows, the model as it is was better: compare the "
            "columns before and after, and keep the old model unless yours improve"
        )

    def table(self) -> list[str]:
        """For people: Dice and ASSD of each bone, before and after."""
        rows = [["bone", "exams", "Dice before", "after", "missing", "after", "ASSD [mm] before", "after"]]
        for bone, after in self.after["bones"].items():
            before = (self.before or {"bones": {}})["bones"].get(bone, {})
            cells = [bone, str(after["exams"])]
            for key in ("dice", "missing", "assd"):
                for side in (before, after):
                    value = side.get(key)
                    cells.append("–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value))
            rows.append(cells)
        return aligned(rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="M", help="name of an installed model, or a file")
    parser.add_argument(
        "--joint",
        required=True,
        metavar="NEW",
        help="a joint that the model does not know, or JOINT-NAME for an own scanner",
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DATASET", help="an nnU-Net v2 raw folder")
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="the new joint's bones (default: names from dataset.json)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="MODEL", help="default: ./MODEL-NEW.safetensors")
    parser.add_argument("--steps", type=int, default=200, help="training steps (default: 200)")
    parser.add_argument(
        "--shared-rate",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="let the shared filters learn too, at this share of the rate; changes the older joints "
        "(default: 0, frozen)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")


def run(args: argparse.Namespace) -> int:
    with tqdm(total=args.steps, unit="step", disable=None) as bar:  # a bar on a terminal, nothing in a pipe

        def progress(step: int, steps: int, loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()

        done = adapt(
            args.model,
            args.joint,
            args.data,
            args.table,
            args.output,
            steps=args.steps,
            shared_rate=args.shared_rate,
            seed=args.seed,
            device=args.device,
            progress=progress,
        )
    print("\n".join(done.table()))
    print(
        "measured on exams that were kept from training"
        if done.held_out
        else "measured on the exams it was trained on: with four or more, some are kept to look at"
    )
    if done.advice():
        print(done.advice())
    print(f"{done.path}: {len(done.manifest.domains)} domains, {done.seconds:.0f} s")
    return 0


def adapt(
    model: str | Path,
    joint: str,
    data: str | Path,
    table: str | Path | None = None,
    output: str | Path | None = None,
    *,
    steps: int = 200,
    batch: int = 8,
    rate: float = 3e-3,
    shared_rate: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Adaptation:
    """Writes a new model beside the old one: to `output`, else MODEL-JOINT.safetensors in the current folder.

    `progress` hears the step, the number of steps and the loss.
    """
    started = time.perf_counter()
    if steps < 1 or not 0 <= shared_rate <= 1:
        raise BadInput("adapt needs at least one step and a shared rate of 0 to 1", "correct --steps or --shared-rate")
    if output is not None:
        check_folder(Path(output).absolute().parent)
    bundle = Bundle.load(resolve(str(model)))
    manifest = bundle.manifest
    if (manifest.network.normalization, manifest.network.head) != ("domain", "domain"):
        raise BadInput(
            f"model {manifest.name} shares its normalization or output layer between joints: no domain can be added "
            "without changing the others",
            "retrain with it as the start: train --init MODEL",
        )
    spec_joint, bones = _joint_and_bones(manifest, joint, data, table)
    dataset = read_dataset(data, joint=spec_joint, domain=joint, table=bones)
    exams = _exams(dataset, seed)
    shown = exams.validation or exams.train
    where = choose_device(device)

    known = [card for card in manifest.domains if card.joint == spec_joint]
    predictor = Predictor(without_signatures(bundle), device)
    before = {
        card.name: score_cases(labels_of(predictor, card.name), (load() for load in shown), bones) for card in known
    }
    like = max(before, key=lambda name: mean_dice(before[name]) or 0.0, default=manifest.domains[0].name)
    settings = SliceSettings.from_dict(manifest.domain(like).settings)
    spec = DomainSpec(joint, spec_joint, bones.names)
    network = bundle.network()
    torch.manual_seed(generator(seed, "adapt", joint).initial_seed())  # a fresh output layer is drawn
    network.add_domain(spec, like)

    bank = Bank((load() for load in exams.train), settings, where)
    if not bank.cases:
        raise BadInput(f"{dataset.folder}: no exam has any signal", "check the images")
    patch = tuple(min(LARGEST_PATCH, max(sizes)) for sizes in (bank.rows, bank.columns))
    source = DatasetSource(joint, bank, AUGMENTATIONS.defaults(), patch, Data().foreground, seed)
    options = Training(steps=steps, batch=batch, learning_rate=rate)
    train_domain(network.to(where), joint, source, options, shared_rate, progress)
    network.cpu()

    draft = _draft(bundle, network, spec, bones, settings, exams, device, shared_rate)
    origin = {
        "model": manifest.name,
        "sha256": manifest.sha256,
        "domain": joint,
        "started from": like,
        "steps": steps,
        "exams": len(exams.train),
        "shared rate": shared_rate,
        "seed": seed,
        "software": f"PedBoneSeg {__version__}",
    }
    history = [*manifest.provenance.get("adapted", []), origin]
    draft = replace(draft, manifest=replace(draft.manifest, provenance={**manifest.provenance, "adapted": history}))
    path = Path(output) if output else Path(f"{draft.manifest.name}.safetensors")
    written = finish(draft, path)
    predictor = Predictor(without_signatures(Bundle.load(path)), device)
    after = metrics_of(score_cases(labels_of(predictor, joint), (load() for load in shown), bones))
    earlier = metrics_of(before[like]) if known else None
    count = len(dataset.cases)
    return Adaptation(path, written, earlier, after, bool(exams.validation), count, time.perf_counter() - started)


def train_domain(
    network: Segmenter,
    domain: str,
    source: Source,
    options: Training,
    shared_rate: float,
    progress: Callable[[int, int, float], None],
) -> None:
    """Cross-entropy + Dice on one domain. Without weight decay, the rows of other domains have no gradient and Adam
    leaves them as they are, bit for bit."""
    own, shared = network.domain_parameters(domain), network.shared_parameters()
    for parameter in shared:
        parameter.requires_grad_(shared_rate > 0)
    groups = [(own, 1.0), (shared, shared_rate)] if shared_rate else [(own, 1.0)]
    optimizer = torch.optim.Adam([{"params": parameters, "share": share} for parameters, share in groups], lr=0.0)
    network.train().to(memory_format=torch.channels_last)  # on a CPU more than twice as fast
    keep_freed_memory()
    for step in range(options.steps):
        batch = source.batch(step, options.batch)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, options.steps, options)
        optimizer.zero_grad()
        logits = network(_fast(batch.images), [domain] * len(batch)).logits[domain]
        loss = sum(segmentation_loss(logits, batch.labels, batch.known))
        loss.backward()
        optimizer.step()
        if not torch.isfinite(loss):
            raise BadInput(
                f"the loss is not finite at step {step} ({', '.join(sorted(set(batch.cases)))})",
                "run check-data on these exams",
            )
        progress(step + 1, options.steps, loss.item())
    measure_statistics(network, domain, source, options)
    network.eval()


@torch.no_grad()
def measure_statistics(network: Segmenter, domain: str, source: Source, options: Training) -> None:
    """Sets the domain's running statistics to their plain average over batches that training did not draw."""
    norms = [module for module in network.modules() if isinstance(module, DomainBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    network.train()
    for number in range(STATISTICS_PASSES):
        for norm in norms:
            norm.momentum = 1 / (number + 1)
        batch = source.batch(options.steps + number, options.batch)
        network(_fast(batch.images), [domain] * len(batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _fast(images: torch.Tensor) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _joint_and_bones(
    manifest: Manifest, joint: str, data: str | Path, table: str | Path | None
) -> tuple[str, JointTable]:
    """The new domain's joint and its bones."""
    taken = {card.name for card in manifest.domains} | {card.joint for card in manifest.domains}
    if joint in taken:
        raise BadInput(f"model {manifest.name} already has {joint!r}", f"name an own scanner's --joint {joint}-NAME")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", joint):
        raise BadInput(f"{joint!r} is no name for a joint or domain", "use letters, digits, - and _")
    of = [card for card in manifest.domains if joint.startswith(f"{card.joint}-")]
    if of:
        card = max(of, key=lambda card: len(card.joint))
        if table is not None:
            raise BadInput(f"the bones of the {card.joint} are fixed by the model", "leave out --table")
        return card.joint, card.table
    if table is not None:
        try:
            return joint, JointTable.from_csv(Path(table).read_text(encoding="utf-8"), joint)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the table {table} cannot be read: {error}", "check the path") from None
    return joint, joint_table(joint) if joint in known_joints() else table_of_dataset(Path(data), joint)


def table_of_dataset(folder: Path, joint: str) -> JointTable:
    """A table from the names in dataset.json, in the order of their values: colors in turn, no terminology."""
    try:
        labels = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
        names = sorted((name for name, value in labels.items() if value), key=lambda name: labels[name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{folder}/dataset.json does not name the bones", "name them, or give --table CSV") from None
    none = Code("", "", "")
    bones = (Bone(n + 1, name.replace("_", " "), PALETTE[n % len(PALETTE)], none, none) for n, name in enumerate(names))
    return JointTable(joint, tuple(bones))


def _exams(dataset: Dataset, seed: int) -> Exams:
    """A fifth to look at from four exams on; a reserve where it suffices for a verdict (eight), or as listed."""
    count = len(dataset.cases)
    shares = Data(validation=0.2 if count >= 4 else 0.0, selection=0.0, reserved=0.3 if count >= 27 else 0.0)
    split = split_cases(dataset, shares, seed)

    def loaders(names):
        return tuple(lambda name=name: load_case(dataset, dataset.case(name)) for name in names)

    return Exams(loaders(split.train), loaders(split.validation), loaders(split.reserved))


def _draft(
    bundle: Bundle,
    network: Segmenter,
    spec: DomainSpec,
    bones: JointTable,
    settings: SliceSettings,
    exams: Exams,
    device: str,
    shared_rate: float,
) -> Draft:
    manifest = bundle.manifest
    cards = manifest.domains
    signatures = {name: tensor for name, tensor in bundle.tensors.items() if not name.startswith("network.")}
    if shared_rate:
        note = "The shared filters have moved since this domain was measured."
        cards = tuple(replace(card, temperature=1.0, signature=None, metrics={}, note=note) for card in cards)
        signatures, manifest = {}, replace(manifest, review=None)
    new = DomainCard(spec.name, spec.joint, bones, settings.to_dict())
    name = f"{manifest.name}-{spec.name.lower()}"[:64].rstrip("._-")
    manifest = replace(manifest, name=name, network=network.config, domains=(*cards, new), sha256="")
    return Draft(network.eval(), manifest, {spec.name: exams}, device, signatures, only=(spec.name,))
