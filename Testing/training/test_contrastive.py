"""The supervised contrastive term: by hand, by a loop, by its gradients, and what it does to a small network."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PedBoneSegTraining.losses.contrastive import domain_cosines, supervised_contrastive


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


def test_half_precision_is_not_used_under_autocast():
    """Features in bf16 enter the term as they are, everything after is float32 (see also the network test below)."""
    z = embeddings(2, 4).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert supervised_contrastive(z, torch.tensor([0, 0, 1, 1]), 0.1).dtype == torch.float32
