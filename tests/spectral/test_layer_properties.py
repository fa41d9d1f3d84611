"""Every layer's bound against dense Jacobians of random instances; random networks against pairs of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from intriguing.spectral import Certifier, jacobian_norms, lipschitz_bounds, product_bound

Draw = Callable[[st.SearchStrategy], Any]
Made = tuple[Callable[[Tensor], Tensor], tuple[int, ...]]
FEW = settings(max_examples=8, deadline=None)


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def whole(draw: Draw, low: int, high: int) -> int:
    return draw(st.integers(low, high))


def image(draw: Draw, axes: int = 2, low: int = 3, high: int = 6) -> tuple[int, ...]:
    return (whole(draw, 1, 3), *(whole(draw, low, high if axes < 3 else 4) for _ in range(axes)))


def convolution(draw: Draw) -> Made:
    axes, groups = whole(draw, 1, 3), whole(draw, 1, 2)
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    mode = draw(st.sampled_from(["zeros", "zeros", "circular", "reflect", "replicate"]))
    settings = {"stride": whole(draw, 1, 3), "padding": whole(draw, 0, 2), "dilation": whole(draw, 1, 2)}
    shape = (2 * groups, *(whole(draw, 3, 5 if axes < 3 else 3) for _ in range(axes)))
    kernel = whole(draw, 1, 2)
    return kind(2 * groups, 3 * groups, kernel, groups=groups, padding_mode=mode, **settings), shape


def transposed(draw: Draw) -> Made:
    axes, groups, stride = whole(draw, 1, 3), whole(draw, 1, 2), whole(draw, 1, 3)
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[axes - 1]
    dilation = whole(draw, 1, 2)
    more = whole(draw, 0, max(stride, dilation) - 1)
    layer = kind(
        2 * groups,
        3 * groups,
        whole(draw, 2, 3),
        stride,
        1,
        more,
        groups=groups,
        dilation=dilation,
        dtype=torch.float64,
    )
    return layer, (2 * groups, *(whole(draw, 3, 4 if axes < 3 else 3) for _ in range(axes)))


def resized(draw: Draw) -> Made:
    axes = whole(draw, 1, 3)
    linear = ("linear", "bilinear", "trilinear")[axes - 1]
    mode = draw(st.sampled_from(["nearest", "nearest-exact", linear, "area", *(["bicubic"] if axes == 2 else [])]))
    kwargs: dict[str, Any] = {"mode": mode}
    if mode in (linear, "bicubic"):
        kwargs["align_corners"] = draw(st.booleans())
    if draw(st.booleans()):
        kwargs["size"] = tuple(whole(draw, 1, 6) for _ in range(axes))
    else:
        kwargs["scale_factor"] = draw(st.sampled_from([0.5, 1.7, 2.0]))
    return nn.Upsample(**kwargs) if mode != "area" else (lambda x: F.interpolate(x, **kwargs)), image(draw, axes)


def padded(draw: Draw) -> Made:
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    pads = [whole(draw, -1 if mode == "constant" else 0, 2) for _ in range(4)]
    value = {"value": 3.0} if mode == "constant" else {}
    return lambda x: F.pad(x, pads, mode=mode, **value), image(draw)


def linear(draw: Draw) -> Made:
    weight = torch.randn(whole(draw, 1, 5), 4, dtype=torch.float64)
    return draw(
        st.sampled_from(
            [
                lambda x: F.linear(x, weight, torch.ones(len(weight), dtype=torch.float64)),
                lambda x: x @ weight.T,
                lambda x: torch.einsum("nij,kj->nki", x, weight),
                nn.Linear(4, 3, dtype=torch.float64),
            ]
        )
    ), (3, 4)


def rearranged(draw: Draw) -> Made:
    index, weight = torch.tensor([0, 2, 2, 1]), torch.randn(4, dtype=torch.float64)
    step = whole(draw, 1, 3)
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: x[:, :, ::step, 1:],
        lambda x: x[..., index],
        lambda x: x.index_select(3, index),
        lambda x: x.flip(2).roll(1, 3).permute(0, 3, 1, 2),
        lambda x: torch.cat([x, step * x[:, :1]], 1),
        lambda x: torch.stack([x, -x], 1),
        lambda x: torch.cat([part * (i + 1) for i, part in enumerate(x.chunk(2, 2))], 2),
        lambda x: x.split([1, 3], 3)[1] + x.split([1, 3], 3)[0],
        lambda x: x.mean((2, 3), keepdim=True) - x,
        lambda x: x.sum((1, 2)),
        lambda x: x[:, 0].unsqueeze(1).expand(-1, 3, -1, -1),
        lambda x: F.unfold(x, 2, padding=1),
        lambda x: F.pixel_unshuffle(x, 2),
        lambda x: F.channel_shuffle(x, 2),
        lambda x: (x * weight + 1) / (weight + 3),
        lambda x: torch.where(weight > 0, x, 2 * x),
        lambda x: torch.lerp(x, 3 * x.flip(3), 0.3),
        lambda x: torch.maximum(x, 2 * x.flip(2)),
        lambda x: x.repeat(1, step, 1, 1),
        lambda x: 1 - step * x,
    ]
    return draw(st.sampled_from(calls)), (2, 4, 4)


def pooled(draw: Draw) -> Made:
    axes, k, s = whole(draw, 1, 3), whole(draw, 2, 3), whole(draw, 1, 3)
    size = whole(draw, 1, 3)
    names = [f"{name}{axes}d" for name in ("avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool")]
    choice = draw(st.sampled_from(names))
    function = getattr(F, choice)
    settings = (
        {"output_size": (size,) * axes} if "adaptive" in choice else {"kernel_size": k, "stride": s, "padding": 1}
    )
    if axes == 1 and "adaptive" in choice:
        settings = {"output_size": size}
    return lambda x: function(x, **settings), image(draw, axes)


def bent(draw: Draw) -> Made:
    slope = draw(st.sampled_from([-2.0, 0.1, 3.0]))
    calls: list[Callable[[Tensor], Tensor]] = [
        *(F.relu, F.softplus, F.mish, F.hardswish, F.silu, F.gelu, F.selu, F.hardsigmoid, F.softsign, F.tanhshrink),
        *(F.logsigmoid, F.hardtanh, F.relu6, F.celu, torch.sigmoid, torch.tanh, torch.sin, torch.abs, torch.erf),
        lambda x: F.leaky_relu(negative_slope=slope, input=x),
        lambda x: F.elu(x, abs(slope)),
        lambda x: F.prelu(x, torch.tensor([slope], dtype=x.dtype)),
        lambda x: x.clamp(-0.5, max=slope + 3),
        lambda x: F.softmax(x, dim=1),
        lambda x: F.log_softmax(x, dim=1),
        lambda x: x.logsumexp(1),
        lambda x: x.max(1).values,
        lambda x: x.norm(dim=1, keepdim=True),
        lambda x: x.sort(1).values,
        nn.Threshold(0.0, 0.0),
    ]
    return draw(st.sampled_from(calls)), (4,)


def normalised(draw: Draw) -> Made:
    weight = torch.randn(4, dtype=torch.float64)
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.layer_norm(x, (3, 3), eps=0.1),
        lambda x: F.group_norm(x, 2, weight, eps=0.1),
        lambda x: F.instance_norm(x, weight=weight, eps=0.1),
        lambda x: F.rms_norm(x, (3,), eps=0.1),
        lambda x: F.rms_norm(x, (3,), torch.arange(3.0, dtype=x.dtype), 0.1),
        lambda x: F.batch_norm(x, torch.zeros(4, dtype=x.dtype), weight.abs() + 0.1, weight),
        lambda x: F.local_response_norm(x, 3, alpha=2.0),
    ]
    return draw(st.sampled_from(calls)), (4, 3, 3)


EXACT = (padded, linear, resized)
KINDS = (convolution, transposed, rearranged, pooled, bent, normalised, *EXACT)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_bounds_are_never_below_dense_jacobians(kind: Callable[[Draw], Made]) -> None:
    @FEW
    @given(st.data())
    def check(data: st.DataObject) -> None:
        seed = data.draw(st.integers(0, 99))
        torch.manual_seed(seed)
        function, shape = kind(data.draw)
        model = Calls(function.double() if isinstance(function, nn.Module) else function).eval()
        model.anchor = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # the network's type
        bound = product_bound(model, shape)
        for scale in (0.1, 2.0):
            x = scale * torch.randn(shape, dtype=torch.float64)
            jacobian = torch.autograd.functional.jacobian(lambda one: model(one[None])[0].flatten(), x)
            met = float(torch.linalg.matrix_norm(jacobian.reshape(-1, x.numel()), 2))
            assert met <= bound * (1 + 1e-9)
        if kind in EXACT:
            assert met == pytest.approx(bound, rel=1e-6)

    check()


class Block(nn.Module):
    def __init__(self, channels: int, ways: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.last, self.ways = nn.Conv2d(channels, channels, 1), ways

    def forward(self, x: Tensor) -> Tensor:
        out = self.last(F.relu(self.norm(self.first(x)), inplace=True))
        if self.ways == 0:
            out += x
            return F.relu_(out)
        if self.ways == 1:  # a shortcut without weights, as in the ResNets for CIFAR-10
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
            return F.relu(F.pad(out[:, :, ::2, ::2], (0, 0, 0, 0, 0, 2)) + x)
        return torch.cat([out, x], dim=1)


def random_network(draw: Draw) -> nn.Module:
    activation = draw(st.sampled_from([nn.ReLU(inplace=True), nn.Sigmoid(), nn.Mish(), nn.ELU(1.5)]))
    layers: list[nn.Module] = [nn.Conv2d(1, 2, 3, padding=1), activation]
    channels = 2
    for ways in draw(st.lists(st.integers(0, 2), max_size=2)):
        layers.append(nn.Sequential(Block(channels, ways)))
        channels = channels if ways == 0 else channels + 2 if ways == 1 else 2 * channels
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 3))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_no_pair_of_images_is_moved_apart_by_more_than_the_bound(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    model = random_network(data.draw).double().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.2, 2)
    certifier = Certifier(model, (1, 6, 6))
    bound = certifier.constant(num_steps=10)
    assert bound <= product_bound(model, (1, 6, 6)) * (1 + 1e-9)
    x, y = torch.rand(2, 30, 1, 6, 6, dtype=torch.float64)
    pair = torch.cat([x, y]).requires_grad_()
    adam = torch.optim.Adam([pair], lr=0.05)
    for _ in range(5):  # pairs that are moved apart by more and more
        a, b = pair[:30], pair[30:]
        ratios = (model(a) - model(b)).norm(dim=1) / (a - b).flatten(1).norm(dim=1)
        assert float(ratios.detach().max()) <= bound
        adam.zero_grad()
        (-ratios.sum()).backward()
        adam.step()
    assert float(jacobian_norms(model, pair.detach()).max()) <= bound * (1 + 1e-9)
    a, b = pair.detach()[:30], pair.detach()[30:]
    gaps = (model(a.clone()) - model(b.clone())).detach()
    for j, k in ((0, 1), (1, 2)):
        moved = (gaps[:, j] - gaps[:, k]).abs() / (a - b).flatten(1).norm(dim=1)
        assert float(moved.max()) <= certifier.pair_constant(j, k, num_steps=3)


def test_branches_are_summed_and_concatenated() -> None:
    def slower(x: Tensor) -> Tensor:
        return x + F.relu(3 * x)

    def joined(x: Tensor) -> Tensor:
        return torch.cat([3 * x, 4 * x], dim=1)

    assert lipschitz_bounds(Calls(slower), (4,)) == [("add", "residual sum", 4.0)]
    assert lipschitz_bounds(Calls(joined), (4,)) == [("cat", "concatenation", 5.0)]
    with pytest.raises(ValueError, match="'mul'"):
        lipschitz_bounds(Calls(lambda x: x * F.relu(x)), (4,))
