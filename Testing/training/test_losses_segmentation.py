"""Cross-entropy + Dice with unlabelled bones: hand-worked numbers, MONAI and torch, gradients, what is learnt."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import DiceLoss
from PedBoneSegTraining.batch import Batch
from PedBoneSegTraining.configuration.extensions import Context
from PedBoneSegTraining.losses.segmentation import Segmentation, SegmentationTerm, segmentation_loss

from PedBoneSegLib.network.segmenter import Output


def as_logits(probabilities):
    """[pixels][classes] → logits [1, classes, 1, pixels] in float64."""
    return torch.tensor(probabilities, dtype=torch.float64).log().T[None, :, None]


def all_known(count, classes):
    return torch.ones(count, classes, dtype=torch.bool)


def random_case(seed, count=3, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count, 5, 6), generator=generator)
    known = torch.rand(count, classes, generator=generator) < 0.6
    known[:, 0] = True
    return logits, labels, known


def test_two_pixels_by_hand():
    # p = (0.5, 0.3, 0.2) labelled 0 and (0.1, 0.8, 0.1) labelled 1.
    logits, labels = as_logits([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), torch.tensor([[[0, 1]]])
    entropy, dice = segmentation_loss(logits, labels, all_known(1, 3))
    assert entropy.item() == pytest.approx(-(math.log(0.5) + math.log(0.8)) / 2)
    assert dice.item() == pytest.approx(((1 - (2 * 0.8 + 1) / (1.1 + 1 + 1)) + (1 - 1 / (0.3 + 1))) / 2)


def test_two_pixels_by_hand_with_the_second_bone_unlabelled():
    logits, labels = as_logits([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), torch.tensor([[[0, 1]]])
    entropy, dice = segmentation_loss(logits, labels, torch.tensor([[True, True, False]]))
    assert entropy.item() == pytest.approx(-(math.log(0.5 + 0.2) + math.log(0.8)) / 2)
    assert dice.item() == pytest.approx(1 - (2 * 0.8 + 1) / (1.1 + 1 + 1))


def test_equal_to_torch_and_monai_where_all_is_labelled():
    logits, labels, _ = random_case(0)
    entropy, dice = segmentation_loss(logits, labels, all_known(3, 4))
    assert entropy.item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-12)
    theirs = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, batch=True, smooth_nr=1, smooth_dr=1)
    assert dice.item() == pytest.approx(theirs(logits, labels[:, None]).item(), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_equal_to_a_loop_over_pixels(seed):
    logits, labels, known = random_case(seed, count=2, classes=3)
    entropies, both, either = [], [0.0] * 3, [0.0] * 3
    for n in range(2):
        hidden = [c for c in range(1, 3) if not known[n, c]]
        for row in range(5):
            for column in range(6):
                p = torch.softmax(logits[n, :, row, column], 0).tolist()
                label = labels[n, row, column].item()
                entropies.append(-math.log(sum(p[c] for c in [0, *hidden]) if label in [0, *hidden] else p[label]))
                for c in range(1, 3):
                    if known[n, c]:
                        both[c] += p[c] * (label == c)
                        either[c] += p[c] + (label == c)
    scored = [c for c in range(1, 3) if known[:, c].any()]
    expected = sum(1 - (2 * both[c] + 1) / (either[c] + 1) for c in scored) / max(1, len(scored))
    entropy, dice = segmentation_loss(logits, labels, known)
    assert entropy.item() == pytest.approx(sum(entropies) / len(entropies), rel=1e-10)
    assert dice.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_gradients():
    logits, labels, known = random_case(1)
    logits.requires_grad_()
    for mask in (known, all_known(3, 4)):
        assert torch.autograd.gradcheck(lambda x, mask=mask: sum(segmentation_loss(x, labels, mask)), logits)


def test_an_unlabelled_bone_is_learnt_neither_as_bone_nor_as_background():
    """On pixels labelled background a labelled bone is unlearnt; an unlabelled one is left to the network's own belief:
    undecided it stays undecided, believed it is not contradicted. Without the mask it is unlearnt too."""
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)

    def descend(known, belief):
        logits = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
        logits[:, 2] = belief
        logits.requires_grad_()
        optimizer = torch.optim.SGD([logits], lr=20)
        for _ in range(200):
            optimizer.zero_grad()
            sum(segmentation_loss(logits, labels, known)).backward()
            optimizer.step()
        return logits.detach().softmax(1)

    masked = torch.tensor([[True, True, False]])
    undecided = descend(masked, belief=0.0)
    assert undecided[:, 1].max() < 0.01
    assert torch.allclose(undecided[:, 2], undecided[:, 0])
    assert descend(masked, belief=1.0)[:, 2].min() > math.e / (2 + math.e)
    assert descend(all_known(1, 3), belief=1.0)[:, 2].max() < 0.05


def test_images_that_lack_a_bones_label_do_not_count_in_its_dice():
    logits, labels, _ = random_case(2)
    known = all_known(3, 4)
    known[2, 1:] = False
    without = segmentation_loss(logits[:2], labels[:2], known[:2])[1]
    assert torch.equal(segmentation_loss(logits, labels, known)[1], without)
    known[:, 1:] = False
    assert segmentation_loss(logits, labels, known)[1] == 0


def test_the_term_is_the_mean_over_domains_with_its_weights():
    logits, batches = {}, {}
    for seed, name in enumerate(("knee", "ankle", "shoulder")):
        logits[name], labels, known = random_case(seed)
        batches[name] = Batch(name, torch.zeros(3, 1, 5, 6), labels, known, ["a", "b", "c"])
    term = SegmentationTerm(Segmentation(weight=2.0, cross_entropy=0.5, dice=3.0))
    parts = [segmentation_loss(logits[name], batch.labels, batch.known) for name, batch in batches.items()]
    expected = 2.0 * sum(0.5 * entropy + 3.0 * dice for entropy, dice in parts) / 3
    context = Context(0, 1)
    assert term(Output(logits, [], [], {}), batches, context).item() == pytest.approx(expected.item())
    assert context.values["segmentation"].item() == pytest.approx(expected.item() / 2)


def test_half_precision_logits_are_summed_in_single():
    logits, labels, known = random_case(3)
    entropy, dice = segmentation_loss(logits.bfloat16(), labels, known)
    assert entropy.dtype == dice.dtype == torch.float32
    exact = segmentation_loss(logits.bfloat16().double(), labels, known)
    assert (entropy.item(), dice.item()) == pytest.approx([value.item() for value in exact], rel=1e-5)


def test_a_bone_that_is_nowhere_can_be_left_out_of_dice():
    logits = torch.zeros(1, 3, 1, 4, dtype=torch.float64)  # each of three classes has p = 1/3 everywhere
    labels = torch.tensor([[[0, 1, 1, 0]]])
    shown = 1 - (2 * 2 / 3 + 1) / (4 / 3 + 2 + 1)
    absent = 1 - 1 / (4 / 3 + 1)
    both = segmentation_loss(logits, labels, all_known(1, 3))[1]
    torch.testing.assert_close(both, torch.tensor((shown + absent) / 2, dtype=torch.float64))
    alone = segmentation_loss(logits, labels, all_known(1, 3), dice_of_absent=False)[1]
    torch.testing.assert_close(alone, torch.tensor(shown, dtype=torch.float64))
    assert segmentation_loss(logits, 0 * labels, all_known(1, 3), dice_of_absent=False)[1] == 0
