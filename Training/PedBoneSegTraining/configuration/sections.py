"""The sections of a study's file, as frozen dataclasses. Every section is a table of the file, every field a key."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from PedBoneSegLib.inference.slices import SliceSettings

from .extensions import AUGMENTATIONS, LOSS_TERMS, PRETRAININGS, Augmentation, LossTerm, Pretraining

Scheme = Literal["individual", "transfer", "shared", "multi-domain", "domain-heads-only", "dsbn-only"]


@dataclass(frozen=True)
class Domain:
    """`[domains.NAME]`, one for each domain; by default a domain is called like its joint."""

    joint: str = ""  # default: the domain's name
    datasets: tuple[str, ...] = ()  # nnU-Net v2 raw folders, several if need be
    table: str = ""  # a CSV of bones, for a joint that the software does not know
    synthetic: float = 0.0  # share of the samples that is drawn on the fly; 1 needs no data set
    shapes: tuple[str, ...] = ()  # folders of meshes, label maps: further anatomies for what is drawn on the fly
    hold_out: tuple[str, ...] = ()  # cases that this run never sees (the test share of a cross-validation)


@dataclass(frozen=True)
class Network:
    architecture: str = "efficientnet-b0"  # unet, attention-unet, efficientnet-b0 … b4, -lite0 … lite2
    decoder: str = "slim"
    width: int = 32  # of the plain U-Nets
    natural_images: str = ""  # safetensors file of published EfficientNet weights to start from


@dataclass(frozen=True)
class Data:
    patch: tuple[int, int] = (256, 256)  # rows and columns that a step sees, multiples of 32
    foreground: float = 0.7  # share of samples from slices with bone; the others come from any slice of the body
    validation: float = 0.1  # share of a domain's exams that are only looked at
    selection: float = 0.0  # share that chooses among the steps' models; 0: the final step's model is the result
    reserved: float = 0.1  # share kept for temperature, signatures and thresholds, where a data set lists none
    fold: int = 0  # of the data set's splits.json, where there is one; it then decides instead of `validation`


@dataclass(frozen=True)
class Training:
    steps: int = 10000
    pretraining: str = ""  # name of a training of the encoder that comes first; its settings: [pretraining.NAME]
    pretraining_steps: int = 0  # scheme transfer: steps on the other joints; 0: as many as `steps`
    prior_steps: int = 0  # steps of the mask auto-encoder, where the prior is on
    batch: int = 8  # images of each domain in a micro-batch
    micro_batches: int = 1  # of a step, all ranks together: the result does not depend on the number of devices
    learning_rate: float = 1e-3
    warmup: int = 100  # steps
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    weight_decay: float = 1e-2  # not of normalization and biases
    clip: float = 1.0  # largest norm of the gradient, of the network and of each term's own modules; 0: off
    average: float = 0.0  # decay of the weights' moving average, which is then the result (0.999); 0: off
    precision: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    validate_every: int = 0  # steps; 0: at the end only


@dataclass(frozen=True)
class Run:
    """What may change when a run is continued."""

    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps
    checkpoint_every: int = 500
    keep: int = 2  # checkpoints
    workers: int = 0  # processes that make synthetic exams while the network trains; the result is the same
    log_every: int = 10
    picture_every: int = 500  # 0: none
    export: bool = True  # writes the models when the run ends; off: `pedboneseg export RUN` does it later
    synthetic_reserve: int = 0  # exams drawn at the end as the reserve of a domain without data sets; below 8: none
    compile: bool = False  # torch.compile: Linux with a GPU; resuming is then no longer bit for bit


@dataclass(frozen=True)
class Configuration:
    """A whole study. `augmentation`, `loss` and `pretraining` hold the settings of everything that is registered."""

    name: str
    domains: dict[str, Domain]
    seed: int = 0
    scheme: Scheme = "multi-domain"
    slices: SliceSettings = field(default_factory=lambda: SliceSettings(pixel_mm=0.7))
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    augmentation: dict[str, Augmentation] = field(default_factory=AUGMENTATIONS.defaults)
    loss: dict[str, LossTerm] = field(default_factory=LOSS_TERMS.defaults)
    pretraining: dict[str, Pretraining] = field(default_factory=PRETRAININGS.defaults)
    training: Training = field(default_factory=Training)
    run: Run = field(default_factory=Run)

    @property
    def active_terms(self) -> dict[str, LossTerm]:
        return {name: term for name, term in self.loss.items() if term.weight}

    @property
    def active_augmentations(self) -> dict[str, Augmentation]:
        return {name: effect for name, effect in self.augmentation.items() if effect.is_on}

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))

    def identity(self) -> dict[str, Any]:
        """Flat {"section.key": value} of everything that makes the result what it is. Augmentations, terms and
        pre-trainings that are off do not count, so that one more in the software changes no older study."""
        tree = self.to_dict()
        tree["augmentation"] = {name: tree["augmentation"][name] for name in self.active_augmentations}
        tree["loss"] = {name: tree["loss"][name] for name in self.active_terms}
        tree["pretraining"] = {
            name: table for name, table in tree["pretraining"].items() if name == self.training.pretraining
        }
        entries = flat(tree)
        return {
            key: value for key, value in entries.items() if not key.startswith("run.") and not key.endswith(".datasets")
        }

    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


def flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    entries = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            entries |= flat(value, f"{prefix}{key}.")
        else:
            entries[f"{prefix}{key}"] = value
    return entries


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences of two identities, a line for each."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]

    def shown(entries: dict[str, Any], key: str) -> str:
        return repr(entries[key]) if key in entries else "not in use"

    return [f"{key} was {shown(old, key)}, now {shown(new, key)}" for key in keys]
