"""The mask auto-encoder and its frozen term: formula, gradients, what is frozen, an implausible mask pulled back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from PedBoneSegTraining.batch import Batch
from PedBoneSegTraining.configuration.extensions import Context
from PedBoneSegTraining.losses.shape_prior import (
    PriorTerm,
    ShapeAutoencoder,
    ShapePrior,
    complete_masks,
    shape_distance,
)

from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Output

DOMAINS = (DomainSpec("knee", "knee", ("femur", "tibia")), DomainSpec("ankle", "ankle", ("talus",)))
SIZE = 64


def shapes(domain, count, seed):
    """Knee: a disc above a bar; ankle: a disc. Labels [count, SIZE, SIZE]."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    for label in labels:
        row, column = (torch.rand(2, generator=generator) * 10 + 18).tolist()
        label[(rows - row) ** 2 + (columns - column) ** 2 < 100] = 1
        if domain == "knee":
            label[(rows - row - 22).abs().lt(6) & (columns - column).abs().lt(14)] = 2
    return labels


def batch_of(spec, labels, known=None):
    known = torch.ones(len(labels), 1 + len(spec.bones), dtype=torch.bool) if known is None else known
    images = torch.zeros(len(labels), 1, SIZE, SIZE)
    return Batch(spec.name, images, labels, known, [str(number) for number in range(len(labels))])


def batches_at(step, count=6):
    return {spec.name: batch_of(spec, shapes(spec.name, count, 100 * step + n)) for n, spec in enumerate(DOMAINS)}


def one_hot(labels, classes):
    return F.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def dice(found, reference):
    return (2 * ((found == reference) & (found > 0)).sum() / ((found > 0).sum() + (reference > 0).sum())).item()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    model = ShapeAutoencoder(ShapePrior(width=16, code=8), DOMAINS)
    optimizer = torch.optim.Adam(model.parameters())
    history, steps = [], 160
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        optimizer.zero_grad()
        loss = model(batches_at(step), Context(step, steps))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.15 * history[0]
    return PriorTerm(ShapePrior(weight=1.0), model).autoencoder


def test_it_learns_to_reproduce_masks_it_never_saw(trained):
    for name, batch in batches_at(999).items():
        mask = one_hot(batch.labels, batch.known.shape[1])
        again = trained.decode(trained.encode({name: mask}))[name].argmax(1)
        assert dice(again, batch.labels) > 0.85


def test_the_term_is_the_formula(trained):
    batches = batches_at(5, count=2)
    logits = {name: torch.randn(2, batch.known.shape[1], SIZE, SIZE) for name, batch in batches.items()}
    pairs = {name: complete_masks(logits[name], batch) for name, batch in batches.items()}
    expected = 0.0
    for name, batch in batches.items():
        for n in range(2):
            soft = logits[name][n : n + 1].softmax(1)
            hard = one_hot(batch.labels[n : n + 1], batch.known.shape[1])
            difference = trained.encode({name: soft})[name] - trained.encode({name: hard})[name]
            assert difference.shape == (1, 8, SIZE // 32, SIZE // 32)
            expected += (difference.norm() ** 2 / difference.numel()).item() / 4
    assert shape_distance(trained, pairs).item() == pytest.approx(expected, rel=1e-4)
    perfect = {name: (reference, reference) for name, (_, reference) in pairs.items()}
    assert shape_distance(trained, perfect).item() == pytest.approx(0, abs=1e-10)


def test_gradients(trained):
    model = copy.deepcopy(trained).double()
    reference = one_hot(shapes("ankle", 1, 0)[:, 16:48, 16:48], 2).double()
    offsets = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    patterns = torch.randn(3, 1, 2, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(offsets):
        predicted = (patterns * offsets[:, None, None, None, None]).sum(0).softmax(1)
        return shape_distance(model, {"ankle": (predicted, reference)})

    assert torch.autograd.gradcheck(loss, offsets + 0.3)


def test_an_implausible_mask_is_pulled_back(trained):
    """Half a bone and a second one where none can be: descending on the term alone restores what a knee looks like.

    The mask may change smoothly, over 16 pixels at least, as a network's does. With every pixel free the descent finds
    noise that has the right code and looks like nothing: the term accompanies the segmentation loss, it does not
    replace it.
    """
    batch = batch_of(DOMAINS[0], shapes("knee", 4, 12345))
    wrong = batch.labels.clone()
    wrong[:, :, :24][wrong[:, :, :24] == 1] = 0
    wrong[:, 2:12, 50:60] = 2
    change = torch.zeros(4, 3, 4, 4, requires_grad=True)

    def logits():
        return 4 * one_hot(wrong, 3) + F.interpolate(change, size=(SIZE, SIZE), mode="bilinear")

    optimizer = torch.optim.Adam([change], lr=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        shape_distance(trained, {"knee": complete_masks(logits(), batch)}).backward()
        optimizer.step()
    assert dice(wrong, batch.labels) < 0.8
    assert dice(logits().argmax(1), batch.labels) > 0.9


def test_a_worse_mask_has_a_larger_distance(trained):
    batch = batch_of(DOMAINS[1], shapes("ankle", 3, 77))
    reference = one_hot(batch.labels, 2)
    moved = [{"ankle": (torch.roll(reference, shift, 3), reference)} for shift in (2, 6, 14)]
    near, farther, far = (shape_distance(trained, pairs).item() for pairs in moved)
    assert 0 < near < farther < far


def test_frozen_means_frozen(trained):
    term = PriorTerm(ShapePrior(weight=0.5), copy.deepcopy(trained))
    before = {name: tensor.clone() for name, tensor in term.state_dict().items()}
    term.train()
    batches = batches_at(3, count=2)
    shape = (SIZE, SIZE)
    logits = {name: torch.zeros(2, len(each.known[0]), *shape, requires_grad=True) for name, each in batches.items()}
    term(Output(logits, [], [], {}), batches, Context(0, 1)).backward()
    assert all(values.grad.abs().sum() > 0 for values in logits.values())
    assert not term.autoencoder.training
    assert all(parameter.grad is None for parameter in term.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in term.state_dict().items())


def test_images_with_an_unlabelled_bone_take_no_part(trained):
    labels = shapes("knee", 3, 5)
    known = torch.ones(3, 3, dtype=torch.bool)
    known[1, 2] = False
    logits = torch.randn(3, 3, SIZE, SIZE)
    predicted, reference = complete_masks(logits, batch_of(DOMAINS[0], labels, known))
    assert torch.equal(predicted, logits[[0, 2]].softmax(1)) and torch.equal(reference, one_hot(labels[[0, 2]], 3))
    known[:, 1] = False
    nobody = complete_masks(logits.requires_grad_(), batch_of(DOMAINS[0], labels, known))
    loss = shape_distance(trained, {"knee": nobody})
    loss.backward()
    assert loss == 0 and torch.equal(logits.grad, torch.zeros_like(logits))

    model = ShapeAutoencoder(ShapePrior(width=8, code=4), DOMAINS)
    batches = batches_at(0, count=2) | {"knee": batch_of(DOMAINS[0], labels, known)}
    model(batches, Context(0, 1)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.outputs[0].weight.grad.abs().sum() == 0 < model.outputs[1].weight.grad.abs().sum()
