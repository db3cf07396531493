"""The adversarial term: by hand, gradients, who sees whose gradient, and what the game does to a mask."""

import math

import pytest
import torch
from PedBoneSegTraining.batch import Batch
from PedBoneSegTraining.configuration.extensions import Context
from PedBoneSegTraining.losses.adversarial import Adversarial, AdversarialTerm, Discriminator, adversarial_losses

from PedBoneSegLib.network.config import DomainSpec
from PedBoneSegLib.network.segmenter import Output


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return Discriminator([3, 2], width=8)


def soft_masks(seed, count=2, classes=3, size=32, dtype=torch.float32):
    return torch.randn(count, classes, size, size, generator=torch.Generator().manual_seed(seed)).to(dtype).softmax(1)


def test_by_hand_with_a_discriminator_that_always_says_one(discriminator):
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.zero_()
        discriminator.shared[-1].bias.fill_(1.0)
    told, passed = adversarial_losses(discriminator, soft_masks(0), soft_masks(1), 0)
    sigmoid = 1 / (1 + math.exp(-1))
    assert told.item() == pytest.approx((-math.log(sigmoid) - math.log(1 - sigmoid)) / 2)
    assert passed.item() == pytest.approx(-math.log(sigmoid))


def test_each_side_has_its_own_gradient_alone(discriminator):
    predicted, reference = soft_masks(0).requires_grad_(), soft_masks(1)
    told, passed = adversarial_losses(discriminator, predicted, reference, 0)
    own = [parameter for name, parameter in discriminator.named_parameters() if not name.startswith("inputs.1")]
    by_told = torch.autograd.grad(told, [predicted, *own], retain_graph=True, allow_unused=True)
    by_passed = torch.autograd.grad(passed, [predicted, *own], allow_unused=True)
    assert by_told[0] is None and all(gradient is not None for gradient in by_told[1:])
    assert by_passed[0].abs().sum() > 0 and all(gradient is None for gradient in by_passed[1:])


def test_gradients(discriminator):
    discriminator = discriminator.double()
    patterns = torch.randn(3, 1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    reference = soft_masks(1, count=1, dtype=torch.float64)
    x = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64, requires_grad=True)

    def passed(x):
        predicted = (patterns * x[:, None, None, None, None]).sum(0).softmax(1)
        return adversarial_losses(discriminator, predicted, reference, 0)[1]

    def told(bias):
        discriminator.shared[1].bias = bias
        return adversarial_losses(discriminator, reference.flip(2), reference, 0)[0]

    assert torch.autograd.gradcheck(passed, x)
    assert torch.autograd.gradcheck(told, discriminator.shared[1].bias)


def test_the_game_moves_a_mask_towards_the_references():
    """References are discs of one size; a prediction twice too large shrinks when all it is told is "does not pass"."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")

    def disc(radius, center):
        inside = torch.sigmoid((radius - torch.hypot(rows - center, columns - center)) * 1.5)
        return torch.stack([1 - inside, inside])

    torch.manual_seed(1)
    discriminator = Discriminator([2], width=8)
    radius = torch.tensor(12.0, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [radius], "lr": 0.1}, {"params": discriminator.parameters(), "lr": 1e-3}])
    for step in range(150):
        centers = [14 + (step * 7 + n * 3) % 5 for n in range(8)]
        predicted = torch.stack([disc(radius, center) for center in centers[:4]])
        reference = torch.stack([disc(torch.tensor(6.0), center) for center in centers[4:]])
        optimizer.zero_grad()
        sum(adversarial_losses(discriminator, predicted, reference, 0)).backward()
        optimizer.step()
    assert radius.item() == pytest.approx(6.0, abs=2.5)


def test_no_image_no_loss_and_a_gradient_of_zero(discriminator):
    nothing = soft_masks(0)[:0].requires_grad_()
    losses = adversarial_losses(discriminator, nothing, nothing.detach(), 0)
    sum(losses).backward()
    assert [loss.item() for loss in losses] == [0, 0]
    own = [parameter for name, parameter in discriminator.named_parameters() if not name.startswith("inputs.1")]
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in own)


def test_the_term_is_both_sides_with_the_weight_on_the_networks_own():
    domains = (DomainSpec("knee", "knee", ("femur", "tibia")), DomainSpec("ankle", "ankle", ("talus",)))
    term = AdversarialTerm(Adversarial(weight=0.25, width=8), domains)
    logits, batches, told, passed = {}, {}, 0.0, 0.0
    for number, domain in enumerate(domains):
        classes = 1 + len(domain.bones)
        logits[domain.name] = torch.randn(2, classes, 32, 32)
        labels = torch.randint(classes, (2, 32, 32))
        known = torch.ones(2, classes, dtype=torch.bool)
        batches[domain.name] = Batch(domain.name, torch.zeros(2, 1, 32, 32), labels, known, ["a", "b"])
        reference = torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()
        sides = adversarial_losses(term.discriminator, logits[domain.name].softmax(1), reference, number)
        told, passed = told + sides[0] / 2, passed + sides[1] / 2
    loss = term(Output(logits, [], [], {}), batches, Context(0, 1))
    assert loss.item() == pytest.approx((told + 0.25 * passed).item())
