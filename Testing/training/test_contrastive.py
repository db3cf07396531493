"""The supervised contrastive term: by hand, by a loop, by its gradients, and what it does to a small network."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PedBoneSegTraining.batch import Batch
from PedBoneSegTraining.configuration.extensions import Context
from PedBoneSegTraining.losses.contrastive import (
    Contrastive,
    ContrastiveTerm,
    domain_cosines,
    supervised_contrastive,
)
from PedBoneSegTraining.losses.segmentation import Segmentation, SegmentationTerm
from tiny import tiny_config

from PedBoneSegLib.anatomy import joint_table
from PedBoneSegLib.errors import BadInput
from PedBoneSegLib.network.segmenter import build_network


def embeddings(seed, count, width=5):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator, dtype=torch.float64), dim=1)


def test_three_embeddings_by_hand():
    # z0 = z1 along x (domain 0), z2 along y (domain 1, alone: contributes 0 but counts in N). τ = 0.5.
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    anchor = -math.log(math.exp(2) / (math.exp(2) + 1))
    loss = supervised_contrastive(z, torch.tensor([0, 0, 1]), 0.5)
    assert loss.item() == pytest.approx((anchor + anchor + 0) / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 2), min_size=2, max_size=7), st.floats(0.05, 2))
def test_equal_to_the_formula_in_loops(seed, label, temperature):
    z = embeddings(seed, len(label))
    total = 0.0
    for i in range(len(label)):
        positives = [p for p in range(len(label)) if p != i and label[p] == label[i]]
        below = sum(math.exp(z[i] @ z[a] / temperature) for a in range(len(label)) if a != i)
        for p in positives:
            total -= math.log(math.exp(z[i] @ z[p] / temperature) / below) / len(positives)
    loss = supervised_contrastive(z, torch.tensor(label), temperature)
    assert loss.item() == pytest.approx(total / len(label), rel=1e-9, abs=1e-12)


def test_gradients():
    label = torch.tensor([0, 0, 1, 1, 2])  # the last one has no positive
    z = embeddings(0, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: supervised_contrastive(F.normalize(z, dim=1), label, 0.1), z)


def test_no_positive_no_loss_and_no_nan():
    for count in (1, 2):
        z = embeddings(1, count).requires_grad_()
        loss = supervised_contrastive(z, torch.arange(count), 0.1)
        loss.backward()
        assert loss == 0
        assert torch.equal(z.grad, torch.zeros_like(z))


def test_alone_a_domain_collapses_to_log_of_the_others():
    """Why one domain is refused: without negatives the best there is, all embeddings equal, has loss log(N − 1)."""
    z = F.normalize(torch.ones(6, 4, dtype=torch.float64), dim=1)
    assert supervised_contrastive(z, torch.zeros(6), 0.1).item() == pytest.approx(math.log(5))


def test_cosines_by_hand():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    intra, inter = domain_cosines(z, torch.tensor([0, 0, 1])).tolist()
    assert (intra, inter) == (0.0, 0.5)
    assert math.isnan(domain_cosines(z, torch.zeros(3))[1])


def two_contrasts(step, count=4):
    """Discs of one size in two domains that differ in noise alone, which a network can but need not tell."""
    generator = torch.Generator().manual_seed(step)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    batches = {}
    for number, name in enumerate(("ankle", "knee")):
        centers = 8 + 16 * torch.rand(count, 2, 1, 1, generator=generator)
        labels = ((rows - centers[:, 0]) ** 2 + (columns - centers[:, 1]) ** 2 < 36).long()
        images = labels[:, None] + (0.2 + 0.2 * number) * torch.randn(count, 1, 32, 32, generator=generator)
        known = torch.ones(count, 1 + len(joint_table(name).names), dtype=torch.bool)
        batches[name] = Batch(name, images, labels, known, [str(n) for n in range(count)])
    return batches


def answer(network, batches):
    images = torch.cat([batch.images for batch in batches.values()])
    return network(images, [name for name, batch in batches.items() for _ in range(len(batch))])


def train(weight, scales, steps=60):
    """Segmentation + contrastive term; the last step's logged cosines."""
    torch.manual_seed(0)
    network = build_network(tiny_config(("ankle", "knee")))
    example = answer(network, two_contrasts(0))
    terms = [
        SegmentationTerm(Segmentation()),
        ContrastiveTerm(Contrastive(weight=weight, scales=scales, width=16), network.config.domains, example),
    ]
    parameters = [*network.parameters(), *terms[1].parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for step in range(steps):
        context, batches = Context(step, steps), two_contrasts(step)
        optimizer.zero_grad()
        output = answer(network, batches)
        sum(term(output, batches, context) for term in terms).backward()
        optimizer.step()
    return {name: value.item() for name, value in context.values.items()}


@pytest.mark.parametrize("scales", [1, 3])
def test_similarity_within_a_domain_rises_above_that_across(scales):
    without, regularized = train(0.0, scales), train(0.5, scales)
    for kind in ("embedding", "pooled"):
        gap = regularized[f"{kind}/intra"] - regularized[f"{kind}/inter"]
        assert gap > without[f"{kind}/intra"] - without[f"{kind}/inter"] + 0.1
    assert regularized["embedding/intra"] > 0.8 and regularized["embedding/inter"] < 0.3
    assert regularized["contrastive"] < without["contrastive"]


def test_the_term_is_the_mean_over_scales_weighted():
    batches = two_contrasts(3)
    network = build_network(tiny_config(("ankle", "knee")))
    output = answer(network, batches)
    term = ContrastiveTerm(Contrastive(weight=0.5, scales=2, width=8, temperature=0.2), network.config.domains, output)
    domain = torch.tensor([0] * 4 + [1] * 4)
    losses = [
        supervised_contrastive(F.normalize(projection(features.mean((2, 3))), dim=1), domain, 0.2)
        for projection, features in zip(term.projections, output.features[-2:], strict=True)
    ]
    assert term(output, batches, Context(0, 1)).item() == pytest.approx(0.5 * sum(losses).item() / 2, rel=1e-6)


def test_float32_inside_autocast():
    batches = two_contrasts(1)
    network = build_network(tiny_config(("ankle", "knee")))
    with torch.autocast("cpu", torch.bfloat16):
        output = answer(network, batches)
        term = ContrastiveTerm(Contrastive(weight=1.0), network.config.domains, output)
        inside = term(output, batches, Context(0, 1))
    output.features = [each.float() for each in output.features]
    assert inside.dtype == torch.float32 and inside.item() == term(output, batches, Context(0, 1)).item()


def test_what_makes_no_sense_is_refused():
    network = build_network(tiny_config(("ankle", "knee")))
    output = answer(network, two_contrasts(0))
    with pytest.raises(BadInput, match="1 to 5"):
        ContrastiveTerm(Contrastive(weight=1.0, scales=6), network.config.domains, output)
