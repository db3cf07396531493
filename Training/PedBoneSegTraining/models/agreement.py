"""Proof that a model gives the labels of the network as trained, whatever it is stored in and calculated with.

All is held against the network *as trained*: not folded, float32, every domain through its own rows of the
normalization. Float16 storage and each number format below float32 are claimed only if, on every domain's proof exam,
every bone's labels agree with the trained network's to a Dice of `Draft.agreement`. A number format that the device
here is not faster with is imitated: float32 arithmetic, every result rounded to the format.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from PedBoneSegLib.errors import BadModel
from PedBoneSegLib.inference.devices import faster_precisions
from PedBoneSegLib.inference.predictor import Predictor
from PedBoneSegLib.models.bundle import Bundle

from ..evaluation.evaluate import labels_of, without_signatures
from .draft import Draft

FLOAT16_LARGEST = 65504.0


def choose_storage(draft: Draft) -> Draft:
    """Convolutions in float16 where the labels stay the same, else in float32.

    A model adapted from one in float32 stays so: rounding would change its older domains.
    """
    full, half = (replace(draft, manifest=replace(draft.manifest, storage=each)) for each in ("float32", "float16"))
    if draft.only and draft.manifest.storage == "float32":
        return full
    largest = max(tensor.abs().max().item() for tensor in draft.network.state_dict().values() if tensor.ndim == 4)
    fits = largest < FLOAT16_LARGEST and _same_labels(draft, Predictor(without_signatures(half.bundle()), draft.device))
    return half if fits else full


def validate_precisions(draft: Draft) -> Draft:
    """The number formats in which the labels stay the same. A model adapted from another keeps to that one's."""
    names = draft.manifest.precisions[1:] if draft.only else ("bfloat16", "float16")
    bundle = without_signatures(draft.bundle())
    kept = [name for name in names if _same_labels(draft, _InPrecision(bundle, draft.device, name))]
    return replace(draft, manifest=replace(draft.manifest, precisions=("float32", *kept)))


def prove(draft: Draft, bundle: Bundle) -> None:
    """The file, opened by the runtime, gives the trained network's labels. BadModel if it does not."""
    for name, agreement in _agreements(draft, Predictor(without_signatures(bundle), draft.device)):
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


def _same_labels(draft: Draft, predictor: Predictor) -> bool:
    """Whether `predictor` gives the trained network's labels in every domain that has an exam; False where none has:
    what nobody looked at is not claimed."""
    lowest = [agreement for _, agreement in _agreements(draft, predictor)]
    return min(lowest, default=0.0) >= draft.agreement


def _agreements(draft: Draft, predictor: Predictor) -> Iterator[tuple[str, float]]:
    """Per domain that has an exam, how far `predictor`'s labels agree with the trained network's."""
    trained = _AsTrained.for_network(draft.network, without_signatures(draft.bundle()).manifest.domains, draft.device)
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
