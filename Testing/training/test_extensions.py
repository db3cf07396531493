"""A loss term, an augmentation and a pre-training from outside of the package: registered, and nothing else touched."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from exam_phantoms import tiny_study, write_dataset
from PedBoneSegTraining.configuration import from_dict
from PedBoneSegTraining.configuration.extensions import (
    AUGMENTATIONS,
    LOSS_TERMS,
    PRETRAININGS,
    Augmentation,
    AuxiliaryStage,
    LossTerm,
    Pretraining,
    Term,
    layers,
)
from PedBoneSegTraining.data.domains import open_domains
from PedBoneSegTraining.loop import checkpoint
from PedBoneSegTraining.loop.distributed import Ranks
from PedBoneSegTraining.loop.networks import NetworkWithLoss, build_model
from PedBoneSegTraining.loop.runfolder import RunFolder
from PedBoneSegTraining.loop.sources import open_source
from PedBoneSegTraining.loop.stages import stages
from PedBoneSegTraining.loop.step import Stepper
from PedBoneSegTraining.models.training_run import train
from torch import nn

from PedBoneSegLib.errors import BadInput

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return {joint: [write_dataset(root / joint, joint, 2)] for joint in ("ankle", "knee")}


@pytest.fixture
def register():
    """`register(registry, name)` is the registry's own decorator, taken back after the test."""
    done = []

    def add(registry, name):
        registry.classes()  # what the software brings is there first
        done.append((registry, name))
        return registry.register(name)

    yield add
    for registry, name in done:
        registry.remove(name)


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------- a term


class MeanColor(nn.Module):
    """A module that a term needs, trained first: it learns the mean intensity of the images."""

    def __init__(self, domains) -> None:
        super().__init__()
        self.names = [spec.name for spec in domains]
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, batches, context):
        loss = torch.stack([(batch.images.mean() - self.value) ** 2 for batch in batches.values()]).mean()
        context.log("color", loss)
        return loss


class ReconstructionTerm(Term):
    """An auxiliary decoder on a named layer that gives back the image's mean, starting from what the stage learned."""

    rate = 0.5

    def __init__(self, settings, example, color) -> None:
        super().__init__()
        self.settings = settings
        self.color = color.requires_grad_(False)
        self.decoder = nn.Conv2d(layers(example)[settings.layer].shape[1], 1, 1)

    def forward(self, output, batches, context):
        images = torch.cat([batch.images for batch in batches.values()])
        predicted = self.decoder(layers(output)[self.settings.layer]).mean((1, 2, 3)) + self.color.value
        loss = (predicted - images.mean((1, 2, 3))).square().mean()
        context.log("toy", loss)
        return self.settings.weight * loss


def register_toy(register, accept=lambda module, batches: {}):
    @register(LOSS_TERMS, "toy")
    @dataclass(frozen=True)
    class Toy(LossTerm):
        layer: str = "encoder4"

        def faults(self, config):
            if config.training.batch == 1:
                yield "the toy needs two images", "set training.batch = 2"

        def stages(self, config):
            return (AuxiliaryStage("colors", tuple(config.domains), 3, MeanColor, accept),)

        def build(self, domains, example, *trained):
            return ReconstructionTerm(self, example, *trained)


def test_a_term_is_configured_checked_trained_saved_and_logged(folders, tmp_path, register):
    seen = []

    def accept(module, batches):
        seen.append([list(each) for each in batches])
        return {"value": float(module.value)}

    register_toy(register, accept)
    with pytest.raises(BadInput, match="did you mean loss.toy.layer?"):
        from_dict(tiny_study(folders, loss={"toy": {"lair": "decoder0"}}))
    with pytest.raises(BadInput, match="the toy needs two images; set training.batch = 2"):
        from_dict(tiny_study(folders, loss={"toy": {"weight": 0.1}}, training={"batch": 1}))
    config = from_dict(tiny_study(folders, loss={"toy": {"weight": 0.5, "layer": "decoder0"}}))
    train(config, tmp_path, ALONE)
    assert [stage.name for stage in stages(config)] == ["colors", "multi-domain"]
    assert len(seen) == 1 and seen[0] == [["ankle", "knee"]] * 16
    assert lines(tmp_path / "colors")[-1]["step"] == 3
    assert all(line["toy"] > 0 for line in lines(tmp_path / "multi-domain"))
    saved = checkpoint.newest(tmp_path / "multi-domain" / "checkpoints", pytest.fail)
    color = checkpoint.newest(tmp_path / "colors" / "checkpoints", pytest.fail)
    assert torch.equal(saved.tensors["model.terms.toy.color.value"], color.tensors["model.value"])  # frozen
    assert "optimizer.terms.toy.decoder.weight.exp_avg" in saved.tensors
    (result,) = RunFolder.open(tmp_path).results()
    assert not any("toy" in name for name in result.network.state_dict())


def test_a_module_that_is_not_good_enough_ends_the_run(folders, tmp_path, register):
    def refuse(module, batches):
        raise BadInput("the colors are not known", "train longer")

    register_toy(register, refuse)
    config = from_dict(tiny_study(folders, loss={"toy": {"weight": 0.5}}))
    for _ in range(2):  # also when the command is given again
        with pytest.raises(BadInput, match="the colors are not known"):
            train(config, tmp_path, ALONE)
    assert not (tmp_path / "multi-domain").exists()


def test_a_term_that_is_off_changes_nothing(folders, register):
    before = from_dict(tiny_study(folders))
    register_toy(register)
    after = from_dict(tiny_study(folders))
    assert "toy" in after.loss and before.hash() == after.hash()
    assert len(stages(after)) == 1


# ---------------------------------------------------------------------------------------------- limits of a term's own


def model_with(folders, **loss) -> tuple[NetworkWithLoss, dict, object]:
    config = from_dict(tiny_study(folders, loss=loss, training={"precision": "float64"}))
    domains = open_domains(config)
    sources = {name: open_source(each, config, ALONE.device, lambda case: None) for name, each in domains.items()}
    stage = stages(config)[-1]
    model = build_model(stage, config, [domain.spec for domain in domains.values()], lambda name: MeanColor([]))
    return model, sources, config


def gradients(folders, monkeypatch, clip=0.0, **loss) -> tuple[dict, dict]:
    """The gradient of one step just before it is applied, and the step's numbers."""
    model, sources, config = model_with(folders, **loss)
    settings = replace(config.training, clip=clip, micro_batches=2)
    stepper = Stepper(model, settings, ALONE)
    kept = {}

    def keep(*args, **kwargs):
        kept.update({name: each.grad.clone() for name, each in stepper.parameters.items() if each.grad is not None})

    monkeypatch.setattr(stepper.optimizer, "step", keep)
    done = stepper.take(0, 4, lambda number: {name: source.batch(number, 2) for name, source in sources.items()})
    return kept, {name: float(value) for name, value in done.context.values.items()}


CONTRAST = {"weight": 1.0, "width": 8}


def test_a_limit_that_is_not_reached_changes_no_gradient(folders, monkeypatch):
    together, _ = gradients(folders, monkeypatch, contrastive=CONTRAST)
    apart, values = gradients(folders, monkeypatch, contrastive=CONTRAST | {"clip": 1e6})
    assert 0 < values["gradient/contrastive"] < 1e6
    assert together.keys() == apart.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(apart[name], gradient, atol=1e-12, rtol=1e-9, msg=name)


def test_a_limit_cuts_the_terms_own_gradient_on_the_network_alone(folders, monkeypatch):
    alone, _ = gradients(folders, monkeypatch)
    limited, _ = gradients(folders, monkeypatch, contrastive=CONTRAST | {"clip": 0.01})
    difference = [(limited[name] - alone[name]).reshape(-1) for name in alone]
    assert torch.cat(difference).norm().item() == pytest.approx(0.01, rel=1e-6)
    free, _ = gradients(folders, monkeypatch, contrastive=CONTRAST)
    own = [name for name in free if name.startswith("terms.")]
    assert own and all(torch.allclose(free[name], limited[name]) for name in own)  # the projection learns as before


def test_the_network_and_each_terms_modules_are_clipped_by_themselves(folders, monkeypatch):
    free, _ = gradients(folders, monkeypatch, contrastive=CONTRAST)
    clipped, _ = gradients(folders, monkeypatch, clip=0.1, contrastive=CONTRAST)
    for side in ("network.", "terms."):
        norms = [
            torch.cat([g.reshape(-1) for n, g in each.items() if n.startswith(side)]).norm() for each in (free, clipped)
        ]
        assert norms[1].item() == pytest.approx(min(0.1, norms[0].item()), rel=1e-4)


def test_a_term_has_a_rate_of_its_own(folders, register):
    register_toy(register)
    model, _, config = model_with(folders, toy={"weight": 1.0})
    stepper = Stepper(model, config.training, ALONE)
    shares = {id(each): group["share"] for group in stepper.optimizer.param_groups for each in group["params"]}
    assert shares[id(model.terms["toy"].decoder.weight)] == 0.5
    assert shares[id(model.network.head.weight)] == 1.0
    assert id(model.terms["toy"].color.value) not in shares


# ---------------------------------------------------------------------------------------------------- an augmentation


def test_an_augmentation_changes_no_study_until_it_is_switched_on_and_acts_at_its_place(folders, register):
    plain = from_dict(tiny_study(folders, augmentation=OFF))

    @register(AUGMENTATIONS, "brightness")
    @dataclass(frozen=True)
    class Brightness(Augmentation):
        shift: float = 2.0
        share: float = 0.0
        place = "contrast"

        def change(self, images, draws):
            return images + (self.shift * draws.happens(self.share)).to(images)[:, None, None, None]

    unchanged = from_dict(tiny_study(folders, augmentation=OFF))
    assert "brightness" in unchanged.augmentation and unchanged.hash() == plain.hash()

    def images(config):
        return open_source(open_domains(config)["knee"], config, ALONE.device, lambda case: None).batch(3, 2).images

    brighter = from_dict(tiny_study(folders, augmentation=OFF | {"brightness": {"share": 1.0}}))
    assert brighter.hash() != plain.hash()
    torch.testing.assert_close(images(brighter), images(plain) + 2.0)


OFF = {name: {"share": 0.0} for name in ("elastic", "gamma", "bias", "low_resolution", "noise")}


# ------------------------------------------------------------------------------------------------------ a pre-training


class Denoise(nn.Module):
    def __init__(self, network) -> None:
        super().__init__()
        self.network = network
        self.decoder = nn.Conv2d(network.encoder.channels[-1], 1, 1)

    def forward(self, batches, context):
        images = torch.cat([batch.images for batch in batches.values()])
        names = [name for name, batch in batches.items() for _ in batch.cases]
        features = layers(self.network(images, names))["encoder4"]
        loss = (self.decoder(features).mean((1, 2, 3)) - images.mean((1, 2, 3))).square().mean()
        context.log("denoise", loss)
        # the decoder and head take no part; with several devices they need a gradient all the same
        return loss + 0 * sum(parameter.sum() for parameter in self.network.parameters())


@pytest.mark.parametrize("scheme", ["multi-domain", "individual"])
def test_a_pretraining_comes_first_and_its_encoder_is_what_the_networks_start_with(folders, tmp_path, scheme, register):
    @register(PRETRAININGS, "denoise")
    @dataclass(frozen=True)
    class Denoising(Pretraining):
        steps: int = 2

        def build(self, network):
            return Denoise(network)

    training = {"pretraining": "denoise", "steps": 1, "weight_decay": 0.0}
    config = from_dict(tiny_study(folders, scheme=scheme, pretraining={"denoise": {"steps": 3}}, training=training))
    assert [(stage.name, stage.steps) for stage in stages(config)][0] == ("pretraining-denoise", 3)
    train(config, tmp_path, ALONE)
    run = RunFolder.open(tmp_path)
    assert len(list(run.results())) == (1 if scheme == "multi-domain" else 2)
    pretrained = run.network(stages(config)[0]).network.encoder.state_dict()
    fresh = build_model(stages(config)[-1], config, list(run.specs(stages(config)[-1]))).network.encoder.state_dict()
    result = list(run.results())[-1].network.encoder.state_dict()
    convolutions = [name for name in pretrained if name.endswith("conv.weight")]
    for name in convolutions:  # one step of 1e-2 away from what the pre-training left, far from a fresh network
        near, far = ((result[name] - other[name]).abs().max() for other in (pretrained, fresh))
        assert near < 0.01001 < far, name
    assert "pretraining.denoise.steps" in config.identity()


def test_a_name_is_registered_once():
    LOSS_TERMS.classes()
    with pytest.raises(ValueError, match="'prior' is registered twice"):
        LOSS_TERMS.register("prior")(LossTerm)
