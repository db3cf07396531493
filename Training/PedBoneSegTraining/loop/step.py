"""One step of a training: the gradient over all micro-batches, limited, and applied to the weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from PedBoneSegLib.inference.devices import faster_precisions

from ..configuration.extensions import Batches, Context
from ..configuration.sections import Training
from ..memory import keep_freed_memory
from .distributed import Ranks
from .networks import NetworkWithLoss
from .schedule import learning_rate

FORMATS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class StepResult:
    """`loss`, and `norm` of the gradient before it was limited, are scalars on the device; `batches` are those of the
    last micro-batch."""

    loss: Tensor
    norm: Tensor
    context: Context
    batches: Batches


class Stepper:
    """A model with its optimizer: moved to the device, in the number format that the settings ask for.

    `share` gives, for a parameter's name, the share of the learning rate at which it learns; 0 freezes it.
    """

    def __init__(
        self, model: nn.Module, settings: Training, ranks: Ranks, share: Callable[[str], float] = lambda name: 1.0
    ) -> None:
        self.settings, self.ranks = settings, ranks
        self.format = number_format(settings.precision, ranks.device)
        full = torch.float64 if self.format == torch.float64 else torch.float32
        self.model = model.to(ranks.device, full).to(memory_format=torch.channels_last)
        self.sides = _sides(model)
        rates = {id(parameter): side.rate for side in self.sides for parameter in side.parameters}
        self.parameters: dict[str, nn.Parameter] = {}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}  # by share of the rate, and weight decay
        for name, parameter in model.named_parameters():
            rate = share(name) * rates[id(parameter)]
            parameter.requires_grad_(parameter.requires_grad and rate > 0)
            if parameter.requires_grad:
                self.parameters[name] = parameter
                decay = settings.weight_decay if parameter.dim() > 2 else 0.0  # not of normalization and biases
                groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "share": rate, "weight_decay": decay} for (rate, decay), group in groups.items()], lr=0.0
        )
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.format == torch.float16)
        self._wrapped = ranks.wrap(model.train())
        keep_freed_memory()

    def take(self, step: int, steps: int, batches: Callable[[int], Batches]) -> StepResult:
        """Step `step` of `steps`; `batches(number)` gives a micro-batch, numbered over all ranks."""
        own, device = self.ranks.own(self.settings.micro_batches), self.ranks.device
        self.rate = learning_rate(step, steps, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.rate
        context, loss = Context(step, steps), torch.zeros((), device=device)
        for number in own:
            samples = self.cast(batches(number))
            with self.ranks.quiet(self._wrapped, last=number == own[-1]):
                with torch.autocast(device.type, self.format, enabled=self.format.itemsize == 2):
                    part = self._wrapped(samples, context) / len(own)
                self.scaler.scale(part).backward()
            loss = loss + part.detach()
        self.scaler.unscale_(self.optimizer)
        self._add_limited_terms(len(own), context)
        limit = self.settings.clip or torch.inf
        norms = torch.stack([nn.utils.clip_grad_norm_(side.trained(), limit) for side in self.sides if side.trained()])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.ranks.average_statistics(self.model)
        return StepResult(loss, norms.norm(), context, samples)

    def cast(self, batches: Batches) -> Batches:
        """Images in float64 where the training is."""
        if self.format == torch.float64:
            for batch in batches.values():
                batch.images = batch.images.double()
        return batches

    def _add_limited_terms(self, passes: int, context: Context) -> None:
        """Adds the gradients of the terms that have a limit of their own, each cut to it."""
        if not isinstance(self.model, NetworkWithLoss):
            return
        parameters = list(self.model.network.parameters())
        for name, gradient in self.model.take_apart().items():
            gradient = self.ranks.mean(gradient / passes)
            norm = gradient.norm()
            context.log(f"gradient/{name}", norm)
            gradient = gradient * (self.model.clips[name] / norm.clamp(min=1e-12)).clamp(max=1)
            for parameter, part in zip(parameters, gradient.split([each.numel() for each in parameters]), strict=True):
                part = part.view_as(parameter)
                parameter.grad = part.clone() if parameter.grad is None else parameter.grad + part


@dataclass(frozen=True)
class _Side:
    """A module whose gradient is limited by itself: the network, or what a term of the loss trains."""

    parameters: list[nn.Parameter]
    rate: float = 1.0

    def trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters if parameter.requires_grad]


def _sides(model: nn.Module) -> list[_Side]:
    if not isinstance(model, NetworkWithLoss):
        return [_Side(list(model.parameters()))]
    terms = [_Side(list(term.parameters()), term.rate) for term in model.terms.values()]
    return [_Side(list(model.network.parameters())), *terms]


def number_format(name: str, device: torch.device) -> torch.dtype:
    """The format of that name; "auto" is bfloat16 where the device has instructions for it, else float32."""
    if name == "auto":
        name = "bfloat16" if "bfloat16" in faster_precisions(device) else "float32"
    return FORMATS[name]
