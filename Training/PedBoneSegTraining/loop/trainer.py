"""The training of one stage, from its first step or its last checkpoint to its end.

A step draws one batch of every domain, runs the convolutions once over all of them, adds the terms of the loss and goes
backward once. Everything random is a function of (seed, step, sample), the learning rate one of the step: a run that
was killed goes on from its last checkpoint as if nothing had happened.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.segmenter import Segmenter, build_network

from ..configuration.extensions import Batches, Context, Stage
from ..configuration.sections import Configuration
from ..data.source import Source
from . import checkpoint
from .distributed import Ranks
from .networks import NetworkWithLoss
from .runlog import RunLog
from .schedule import averaging
from .step import Stepper

Validate = Callable[[Segmenter, int], dict[str, float]]


class Trainer:
    """One stage's training; `run()` brings it to its last step.

    `facts` are the hashes that a checkpoint must share with this run; `validate(network, step)`, called by all ranks,
    gives numbers for the log, among them "selection" where the configuration asks for it.
    """

    def __init__(
        self,
        stage: Stage,
        config: Configuration,
        model: nn.Module,
        sources: dict[str, Source],
        folder: Path,
        ranks: Ranks,
        facts: dict[str, Any],
        validate: Validate | None = None,
    ) -> None:
        self.stage, self.settings, self.options, self.config = stage, config.training, config.run, config
        self.sources, self.folder, self.ranks, self.facts, self.validate = sources, folder, ranks, facts, validate
        self.model = model
        self.stepper = Stepper(model, config.training, ranks)
        self.optimizer, self.scaler = self.stepper.optimizer, self.stepper.scaler
        self.average: dict[str, Tensor] = {}
        if self.settings.average:
            self.average = {name: tensor.clone() for name, tensor in self._averaged().items()}
        self.step = 0
        self.best: dict[str, Any] | None = None  # {"step", "score", "file"} of the selection
        self._unchecked: list[tuple[int, Tensor]] = []  # steps whose loss and gradient may not be finite

    def run(self) -> None:
        stage, settings, ranks = self.stage, self.settings, self.ranks
        ranks.own(settings.micro_batches)  # complains before anything is done
        self._restore(print if ranks.first else lambda text: None)
        if self.options.compile and hasattr(self.model, "network"):
            self.model.network.compile()
        log = RunLog(self.folder, stage.name, self.step, stage.steps) if ranks.first else None
        while self.step < stage.steps:
            done = self.stepper.take(self.step, stage.steps, self._batches)
            self._update_average()
            # A float16 gradient may overflow now and then: the scaler skips such a step. Anything else is an end.
            half = self.stepper.format == torch.float16
            self._unchecked.append((self.step, done.loss if half else done.loss + 0 * done.norm))
            self.step += 1
            last = self.step == stage.steps
            validated = self.validate is not None and self._is_due(settings.validate_every, last)
            saved = validated or self._is_due(self.options.checkpoint_every, last)
            if saved or self.step % self.options.log_every == 0:
                done.context.log("loss", done.loss)
                done.context.log("gradient", done.norm)
                self._check(self._log(log, done.context))
            if self._is_due(self.options.picture_every, last):
                self._draw(log, done.batches)
            if validated:
                self._validate(log)
            if saved and ranks.first:
                self._save()
            if log:
                log.advance()
        if log:
            log.close()

    # ------------------------------------------------------------------------------------------------ a step's parts

    def _batches(self, number: int) -> Batches:
        """A batch of every domain; `number` counts the step's micro-batches over all ranks."""
        draw = self.step * self.settings.micro_batches + number
        return {name: self.sources[name].batch(draw, self.settings.batch) for name in self.stage.domains}

    def _averaged(self) -> dict[str, torch.Tensor]:
        """The network's weights and statistics, by name: what an average is made of, and what is exported."""
        network = getattr(self.model, "network", self.model)
        return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}

    @torch.no_grad()
    def _update_average(self) -> None:
        if self.average:
            decay = averaging(self.step, self.settings.average)
            torch._foreach_lerp_(list(self.average.values()), list(self._averaged().values()), 1 - decay)

    def _log(self, log: RunLog | None, context: Context) -> bool:
        """Writes the step's numbers; False where one of the steps since the last time was not finite."""
        names, values = list(context.values), [value.float().reshape(()) for value in context.values.values()]
        steps = torch.stack([value.double().reshape(()) for _, value in self._unchecked])
        together = self.ranks.mean(torch.cat([torch.stack(values).double(), steps])).cpu()
        if log:
            numbers = {name: round(float(value), 6) for name, value in zip(names, together, strict=False)}
            log.write(self.step, numbers | {"rate": self.stepper.rate})
        finite = together[len(names) :].isfinite()
        self._unchecked = [step for step, good in zip(self._unchecked, finite, strict=True) if not good][:1]
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

    # ------------------------------------------------------------------------------------------ results on the way

    def result(self) -> Segmenter:
        """A copy of the network as it would be exported now, in evaluation mode."""
        assert isinstance(self.model, NetworkWithLoss)
        network = build_network(self.model.network.config).to(self.ranks.device)
        network.load_state_dict({name: tensor.float() for name, tensor in (self.average or self._averaged()).items()})
        return network.eval()

    @torch.no_grad()
    def _draw(self, log: RunLog | None, batches: Batches) -> None:
        if not log or not self.options.picture_every or not isinstance(self.model, NetworkWithLoss):
            return
        network = self.result()
        for name, batch in batches.items():
            images = batch.images[:4].float()
            predicted = network(images, [name] * len(images)).logits[name].argmax(1)
            log.picture(self.step, name, images[:, images.shape[1] // 2], batch.labels[:4], predicted)

    def _validate(self, log: RunLog | None) -> None:
        assert self.validate is not None
        values = self.validate(self.result(), self.step)
        score = values.get("selection")
        if log:
            log.write(self.step, values)
            log.say(f"{self.stage.name}, step {self.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
            if score is not None and (self.best is None or score > self.best["score"]):
                tensors = dict(self.result().state_dict())
                path = checkpoint.save(self.folder / "selected", self.step, tensors, {"score": score}, keep=2)
                self.best = {"step": self.step, "score": score, "file": path.name}

    # ----------------------------------------------------------------------------------------------------- the disk

    def _save(self) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.stepper.parameters.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
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
        for name, parameter in self.stepper.parameters.items():
            state = found.part(f"optimizer.{name}")
            self.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in state.items()
            }
        for name, tensor in found.part("average").items():
            self.average[name].copy_(tensor)
        if found.facts["scaler"]:
            self.scaler.load_state_dict(found.facts["scaler"])
        self.step, self.best = found.facts["step"], found.facts["best"]
        say(f"{self.stage.name}: resumed at step {self.step} of {self.stage.steps}")
