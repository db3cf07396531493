"""Domain-specific batch normalization against a list of torch's own layers, one per domain."""

import pytest
import torch
from torch import nn

from PedBoneSegLib.network.dsbn import ConvNorm, DomainBatchNorm

CHANNELS = 6
RUNS = ((2, 3), (0, 1), (1, 4))  # not in order, of unequal length


def pair(rows: int) -> tuple[DomainBatchNorm, nn.ModuleList]:
    """The layer and its reference with the same random parameters and statistics, in float64."""
    torch.manual_seed(0)
    ours = DomainBatchNorm(rows, CHANNELS, eps=1e-3, momentum=0.2).double()
    theirs = nn.ModuleList(nn.BatchNorm2d(CHANNELS, eps=1e-3, momentum=0.2) for _ in range(rows)).double()
    for row, layer in enumerate(theirs):
        for name in ("weight", "bias", "running_mean", "running_var"):
            drawn = torch.rand(CHANNELS, dtype=torch.float64) + 0.5
            getattr(ours, name).data[row] = drawn
            getattr(layer, name).data.copy_(drawn)
    return ours, theirs


def reference(layers: nn.ModuleList, x: torch.Tensor, runs) -> torch.Tensor:
    parts = x.split([length for _, length in runs])
    return torch.cat([layers[row](part) for (row, _), part in zip(runs, parts, strict=True)])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_equals_a_list_of_layers(training, memory_format):
    ours, theirs = pair(3)
    ours.train(training), theirs.train(training)
    x = torch.randn(8, CHANNELS, 5, 4, dtype=torch.float64).contiguous(memory_format=memory_format)
    probe = torch.randn(8, CHANNELS, 5, 4, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [ours(inputs[0], RUNS), reference(theirs, inputs[1], RUNS)]
    for output in outputs:
        (output * probe).sum().backward()

    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-12)
    for row, layer in enumerate(theirs):
        for name in ("weight", "bias"):
            torch.testing.assert_close(getattr(ours, name).grad[row], getattr(layer, name).grad, rtol=0, atol=1e-12)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, name)[row], getattr(layer, name), rtol=0, atol=1e-14)
    assert outputs[0].is_contiguous(memory_format=memory_format)


def test_one_domain_is_plain_batch_normalization_over_several_steps():
    ours, theirs = pair(1)
    for _ in range(3):
        x = torch.randn(4, CHANNELS, 3, 3, dtype=torch.float64)
        assert torch.equal(ours(x, ((0, 4),)), theirs[0](x))
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x, ((0, 4),)), theirs[0](x))
    assert torch.equal(ours.running_var[0], theirs[0].running_var)


def test_absent_domains_keep_their_statistics_and_get_no_gradient():
    ours, _ = pair(3)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    ours(torch.randn(4, CHANNELS, 3, 3, dtype=torch.float64), ((1, 4),)).square().sum().backward()
    for name in ("running_mean", "running_var"):
        after = getattr(ours, name)
        assert torch.equal(after[[0, 2]], before[name][[0, 2]])
        assert not torch.equal(after[1], before[name][1])
    assert ours.weight.grad[[0, 2]].abs().max() == 0 < ours.weight.grad[1].abs().max()


@pytest.mark.parametrize("runs", [((0, 3),), ((0, 2), (1, 3)), ()])
def test_runs_must_cover_the_batch(runs):
    with pytest.raises(ValueError, match="the batch has 4"):
        DomainBatchNorm(2, CHANNELS)(torch.zeros(4, CHANNELS, 2, 2), runs)


def test_momentum_of_one_over_k_averages_the_passes():
    layer = DomainBatchNorm(1, 2).double()
    batches = [torch.randn(3, 2, 4, 4, dtype=torch.float64) for _ in range(4)]
    for k, batch in enumerate(batches, start=1):
        layer.momentum = 1 / k
        layer(batch, ((0, 3),))
    torch.testing.assert_close(layer.running_mean[0], torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(layer.running_var[0], torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0))


def test_a_copied_row_is_its_own():
    ours, _ = pair(2)
    ours.append_copy(1)
    for tensor in ours.state_dict().values():
        assert len(tensor) == 3 and torch.equal(tensor[2], tensor[1])
    ours(torch.randn(4, CHANNELS, 3, 3, dtype=torch.float64), ((2, 4),))
    assert not torch.equal(ours.running_mean[2], ours.running_mean[1])
    assert len(list(ours.parameters())) == 2


def test_same_padding_puts_the_odd_pixel_at_the_end():
    """Stride 2, kernel 3 of ones: 6 pixels are padded by (0, 1), 5 pixels by (1, 1); worked by hand."""
    block = ConvNorm(1, 1, 1, kernel=3, stride=2, activation="", eps=0.0).eval()  # a fresh norm changes nothing
    block.conv.weight.data.fill_(1)
    even = torch.tensor([1.0, 2, 3, 4, 5, 6]).reshape(1, 1, 6, 1)
    odd = even[:, :, :5]
    assert block(even, ((0, 1),)).flatten().tolist() == [6, 12, 11]
    assert block(odd, ((0, 1),)).flatten().tolist() == [3, 9, 9]


def test_depthwise_convolutions_stay_in_float32_under_autocast_on_a_cpu():
    torch.manual_seed(0)
    block = ConvNorm(1, 8, 8, kernel=5, groups=8)
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        convolved = block._convolve(x)
        y = block(x, ((0, 2),))
    assert convolved.dtype == torch.bfloat16 and torch.equal(convolved, block.conv(x).bfloat16())  # rounded once
    (y.float() ** 3).sum().backward()
    rounded = block.conv.weight.grad.clone()
    block.zero_grad()
    (block(x, ((0, 2),)) ** 3).sum().backward()
    assert (rounded - block.conv.weight.grad).norm() < 0.03 * block.conv.weight.grad.norm()
