"""The training loop, and what it trains.

A step draws one sub-batch of every domain, runs the convolutions once over all of them, adds the terms of the loss and
goes backward once. Everything random is a function of (seed, step, sample), the learning rate one of the step: a run
that was killed goes on from its last checkpoint as if nothing had happened.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.config import NetworkConfig
from PedBoneSegLib.network.segmenter import Segmenter, build_network

from ..data.augmentation import sample_generator
from ..data.source import Source
from ..losses import Context
from ..losses.adversarial import AdversarialTerm
from ..losses.contrastive import ContrastiveTerm
from ..losses.segmentation import SegmentationTerm
from ..losses.shape_prior import PriorTerm, ShapeAutoencoder
from ..memory import keep_freed_memory
from . import checkpoint
from .distributed import Ranks
from .runlog import RunLog
from .schedule import averaging, learning_rate

PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SegmenterModel(nn.Module):
    """A network and the terms of its loss; `model(batches, context)` → the loss."""

    def __init__(self, network: Segmenter, terms: dict[str, nn.Module]) -> None:
        super().__init__()
        self.network = network
        self.terms = nn.ModuleDict(terms)

    def forward(self, batches, context):
        images = torch.cat([batch.images for batch in batches.values()])
        domains = [name for name, batch in batches.items() for _ in batch.cases]
        output = self.network(images.contiguous(memory_format=torch.channels_last), domains)
        return sum(term(output, batches, context) for term in self.terms.values())


def build_model(stage, config, specs, autoencoder: ShapeAutoencoder | None) -> nn.Module:
    """What the stage trains, with weights that are a function of the seed and the stage's name."""
    torch.manual_seed(sample_generator(config.seed, "weights", stage.name).initial_seed())
    if stage.kind == "prior":
        return ShapeAutoencoder(config.loss.prior, specs)
    network = build_network(
        NetworkConfig(
            config.network.architecture,
            tuple(specs),
            config.network.decoder,
            config.slices.channels,
            stage.normalization,
            stage.head,
            config.network.width,
        )
    )
    with torch.no_grad():
        blank = torch.zeros(len(specs), config.slices.channels, *config.data.patch)
        example = network.eval()(blank, [spec.name for spec in specs])
    network.train()
    loss, terms = config.loss, {}
    if loss.segmentation.weight:
        terms["segmentation"] = SegmentationTerm(loss.segmentation, specs, example)
    if loss.contrastive.weight and len(specs) > 1:
        terms["contrastive"] = ContrastiveTerm(loss.contrastive, specs, example)
    if loss.prior.weight:
        terms["prior"] = PriorTerm(loss.prior, specs, example, autoencoder)
    if loss.adversarial.weight:
        terms["adversarial"] = AdversarialTerm(loss.adversarial, specs, example)
    return SegmenterModel(network, terms)


class Trainer:
    """One stage's training: `run()` brings it to its last step, from wherever its folder says that it stands.

    `facts` are the hashes that a checkpoint must share with this run; `validate(network, step)`, called by all ranks,
    gives numbers for the log, among them "selection" where the configuration asks for it.
    """

    def __init__(
        self,
        stage,
        config,
        model: nn.Module,
        sources: dict[str, Source],
        folder: Path,
        ranks: Ranks,
        facts: dict,
        validate: Callable[[Segmenter, int], dict[str, float]] | None = None,
    ) -> None:
        self.stage, self.settings, self.options, self.config = stage, config.training, config.run, config
        self.sources, self.folder, self.ranks, self.facts, self.validate = sources, folder, ranks, facts, validate
        self.kind = _precision(self.settings.precision, ranks.device)
        self.model = model.to(ranks.device, torch.float64 if self.kind == torch.float64 else torch.float32)
        self.model.to(memory_format=torch.channels_last)
        self.names = {name: each for name, each in self.model.named_parameters() if each.requires_grad}
        decayed = [each for each in self.names.values() if each.dim() > 2]  # convolutions: no normalization, no bias
        others = [each for each in self.names.values() if each.dim() <= 2]
        decay = self.settings.weight_decay
        groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.kind == torch.float16)
        self.average = {}
        if self.settings.average:
            self.average = {name: each.clone() for name, each in self._averaged().items()}
        self.step, self.best = 0, None  # best: {"step", "score", "file"} of the selection
        self._unchecked: list[tuple[int, torch.Tensor]] = []

    def run(self) -> None:
        stage, settings, ranks = self.stage, self.settings, self.ranks
        own = ranks.own(settings.micro_batches)
        say = print if ranks.first else lambda text: None
        self._restore(say)
        keep_freed_memory()
        model = ranks.wrap(self.model.train())
        if self.options.compile and hasattr(self.model, "network"):
            self.model.network.compile()
        log = RunLog(self.folder, stage.name, self.step, stage.steps) if ranks.first else None
        while self.step < stage.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.step, stage.steps, settings)
            context, loss = Context(self.step, stage.steps), 0.0
            for number in own:
                batches = self._batches(number)
                with ranks.quiet(model, last=number == own[-1]):
                    with torch.autocast(ranks.device.type, self.kind, enabled=self.kind.itemsize == 2):
                        part = model(batches, context) / len(own)
                    self.scaler.scale(part).backward()
                loss = loss + part.detach()
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.names.values(), settings.clip or torch.inf)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            ranks.average_statistics(self.model)
            self._update_average()
            # A float16 gradient may overflow now and then: the scaler skips such a step. Anything else is an end.
            self._unchecked.append((self.step, loss if self.kind == torch.float16 else loss + 0 * norm))
            self.step += 1
            last = self.step == stage.steps
            looked = self.validate is not None and self._is_due(settings.validate_every, last)
            due = looked or self._is_due(self.options.checkpoint_every, last)
            if due or self.step % self.options.log_every == 0:
                context.log("loss", loss)
                context.log("gradient", norm)
                self._check(self._log(log, context))
            if self._is_due(self.options.picture_every, last):
                self._draw(log, batches)
            if looked:
                self._validate(log)
            if due and ranks.first:
                self._save()
            if log:
                log.advance()
        if log:
            log.close()

    # ------------------------------------------------------------------------------------------------ a step's parts

    def _batches(self, number: int):
        """One sub-batch of every domain; `number` counts the step's micro-batches over all ranks."""
        draw = self.step * self.settings.micro_batches + number
        batches = {name: self.sources[name].batch(draw, self.settings.batch) for name in self.stage.domains}
        if self.kind == torch.float64:
            for batch in batches.values():
                batch.images = batch.images.double()
        return batches

    def _averaged(self) -> dict[str, torch.Tensor]:
        """The network's weights and statistics, by name: what an average is made of, and what is exported."""
        network = getattr(self.model, "network", self.model)
        return {name: each for name, each in network.state_dict().items() if each.is_floating_point()}

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average:
            decay = averaging(self.step, self.settings.average)
            torch._foreach_lerp_(list(self.average.values()), list(self._averaged().values()), 1 - decay)

    def _log(self, log: RunLog | None, context: Context) -> bool:
        """Writes the step's numbers; False where one of the steps since the last time was not finite."""
        names, values = list(context.values), [each.float().reshape(()) for each in context.values.values()]
        steps = torch.stack([each.double().reshape(()) for _, each in self._unchecked])
        together = self.ranks.mean(torch.cat([torch.stack(values).double(), steps])).cpu()
        if log:
            numbers = {name: round(float(each), 6) for name, each in zip(names, together, strict=False)}
            log.write(self.step, numbers | {"rate": self.optimizer.param_groups[0]["lr"]})
        finite = together[len(names) :].isfinite()
        self._unchecked = [each for each, good in zip(self._unchecked, finite, strict=True) if not good][:1]
        return not self._unchecked

    def _check(self, finite: bool) -> None:
        """Stops at the first step whose loss or gradient was not finite, and names its cases: those whose images are
        not finite, else all of them. Nothing was saved since."""
        if finite:
            return
        self.step = self._unchecked[0][0]
        own = []
        for number in self.ranks.own(self.settings.micro_batches):
            for name, batch in self._batches(number).items():
                good = batch.images.isfinite().flatten(1).all(1).tolist()
                own += [(f"{name}: {case}", fine) for case, fine in zip(batch.cases, good, strict=True)]
        seen = self.ranks.gather(own)
        culprits = {case for case, fine in seen if not fine} or {case for case, _ in seen}
        named = ", ".join(sorted(culprits))
        kept = checkpoint.checkpoints(self.folder / "checkpoints")
        raise BadInput(
            f"{self.stage.name}: the loss is not finite at step {self.step} ({named})",
            f"run check-data on these cases or lower training.learning_rate; the last checkpoint is "
            f"{kept[0].name if kept else 'not yet written'}",
        )

    def _is_due(self, every: int, last: bool) -> bool:
        return last or bool(every) and self.step % every == 0

    # -------------------------------------------------------------------------------------- looking at what is there

    def result(self) -> Segmenter:
        """A copy of the network as it would be exported now, in evaluation mode."""
        network = build_network(self.model.network.config).to(self.ranks.device)
        network.load_state_dict({name: each.float() for name, each in (self.average or self._averaged()).items()})
        return network.eval()

    @torch.no_grad()
    def _draw(self, log: RunLog | None, batches) -> None:
        if not log or not self.options.picture_every or self.stage.kind != "segmenter":
            return
        network = self.result()
        for name, batch in batches.items():
            images = batch.images[:4].float()
            found = network(images, [name] * len(images)).logits[name].argmax(1)
            log.picture(self.step, name, images[:, images.shape[1] // 2], batch.labels[:4], found)

    def _validate(self, log: RunLog | None) -> None:
        values = self.validate(self.result(), self.step)
        score = values.get("selection")
        if log:
            log.write(self.step, values)
            log.say(f"{self.stage.name}, step {self.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            if score is not None and (self.best is None or score > self.best["score"]):
                tensors = {name: each for name, each in self.result().state_dict().items()}
                path = checkpoint.save(self.folder / "selected", self.step, tensors, {"score": score}, keep=2)
                self.best = {"step": self.step, "score": score, "file": path.name}

    # ----------------------------------------------------------------------------------------------------- the disk

    def _save(self) -> None:
        tensors = {f"model.{name}": each for name, each in self.model.state_dict().items()}
        tensors |= {f"average.{name}": each for name, each in self.average.items()}
        for name, parameter in self.names.items():
            tensors |= {f"optimizer.{name}.{key}": each for key, each in self.optimizer.state[parameter].items()}
        facts = self.facts | {
            "stage": self.stage.name,
            "step": self.step,
            "finished": self.step == self.stage.steps,
            "best": self.best,
            "scaler": self.scaler.state_dict(),
        }
        checkpoint.save(self.folder / "checkpoints", self.step, tensors, facts, self.options.keep)

    def _restore(self, say: Callable[[str], None]) -> None:
        """Goes on where the newest whole checkpoint stands; all ranks read the one that rank 0 found."""
        folder = self.folder / "checkpoints"
        found = checkpoint.newest(folder, say) if self.ranks.first else None
        path = self.ranks.from_first(found.path if found else None)
        if path is None:
            return
        found = found or checkpoint.load(path)
        for key, value in self.facts.items():
            if found.facts.get(key) != value:
                raise BadInput(f"{path} belongs to another {key}", "choose another folder with -o")
        self.model.load_state_dict(found.part("model"))
        for name, parameter in self.names.items():
            state = found.part(f"optimizer.{name}")
            self.optimizer.state[parameter] = {
                key: each if key == "step" else each.to(parameter.device) for key, each in state.items()
            }
        for name, each in found.part("average").items():
            self.average[name].copy_(each)
        if found.facts["scaler"]:
            self.scaler.load_state_dict(found.facts["scaler"])
        self.step, self.best = found.facts["step"], found.facts["best"]
        say(f"{self.stage.name}: resumed at step {self.step} of {self.stage.steps}")


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return PRECISIONS[name]
