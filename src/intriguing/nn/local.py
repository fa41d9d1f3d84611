"""Define QuocNet's layers: standardised features, local filters without shared weights, L2 pooling, normalisation.

Source: Le et al. 2012 (arXiv 1112.6209), section 3; the normalisation is that of Jarrett et al. 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn


def _summed(ours: Tensor) -> Tensor:
    """Return the sum over the processes of a number or an array that each has."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(ours)
    return ours


class Standardize(nn.Module):
    """Subtract each feature's mean and divide by its standard deviation plus .01, of the images observed so far.

    Unlike batch normalisation it has no other mode for training, and changes only by ``observe``. Before it has
    observed images it returns its input divided by 1.01.

    Args:
        shape: of one input, without the batch: every number is a feature.
        center: whether to subtract the mean; False divides alone.

    Attributes:
        mean: of each feature, a buffer.
        variance: of each feature, likewise.
        count: images observed.

    Example:
        >>> layer = Standardize((1,))
        >>> layer.observe(torch.tensor([[1.0], [3.0]]))
        >>> layer(torch.tensor([[3.0]])).item() > 0.98
        True
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, shape: Sequence[int], *, center: bool = True) -> None:
        super().__init__()
        self.center = center
        self.register_buffer("mean", torch.empty(*shape))
        self.register_buffer("variance", torch.empty(*shape))
        self.register_buffer("count", torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Forget the images that were observed."""
        self.mean.zero_()
        self.variance.fill_(1.0)
        self.count.zero_()

    @torch.no_grad()
    def observe(self, inputs: Tensor) -> None:
        """Add images (N, ...) to the statistics, of all processes together; N may be 0 in some of them."""
        ours = _summed(inputs.new_tensor(float(len(inputs))))
        if not ours:
            return
        mean = _summed(inputs.sum(0)) / ours
        # Not the mean square less the squared mean: features far from zero would lose their digits.
        spread = _summed((inputs - mean).square().sum(0)) / ours
        before = self.count / (self.count + ours)  # Chan, Golub and LeVeque 1979
        apart = mean - self.mean
        self.variance.copy_(before * self.variance + (1 - before) * spread + before * (1 - before) * apart.square())
        self.mean.add_((1 - before) * apart)
        self.count.add_(ours)

    @property
    def scale(self) -> Tensor:
        """What each feature is divided by."""
        return self.variance.sqrt() + 0.01

    @property
    def offset(self) -> Tensor:
        """The mean of each divided feature."""
        return self.mean / self.scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardise inputs (N, ...)."""
        return (inputs - self.mean if self.center else inputs) / self.scale

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        return f"{tuple(self.mean.shape)}, center={self.center}"


class LocallyConnected2d(nn.Module):
    """Filter images with kernels that differ from position to position, without padding.

    Output ``(n, d, i, j)`` is the product of ``weight[i * OW + j, d]`` and the window of the input that starts at
    ``(i * stride, j * stride)``, over all its channels.

    Args:
        in_channels: channels of the input.
        out_channels: maps, the number of filters at every position.
        size: height and width of the input; one weight belongs to one position, so another size does not fit.
        kernel_size: side of the receptive fields, in pixels.
        stride: distance of neighbouring receptive fields.
        bias: whether every output has a bias.
        gain: root mean square of the random outputs for inputs of mean square 1.

    Attributes:
        weight: (positions, out_channels, in_channels * kernel_size^2), positions row by row, a window's numbers channel
            by channel and row by row.
        bias: (out_channels, positions), or None.

    Raises:
        ValueError: a number below 1, or an input that is smaller than a receptive field.

    Example:
        >>> layer = LocallyConnected2d(3, 8, size=(32, 32), kernel_size=8)
        >>> layer(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 8, 25, 25])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Sequence[int],
        kernel_size: int,
        stride: int = 1,
        *,
        bias: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, kernel_size, stride) < 1:
            raise ValueError(
                f"expected channels, kernel_size and stride of at least 1, got {in_channels}, {out_channels}, "
                f"{kernel_size} and {stride}"
            )
        if min(size) < kernel_size:
            raise ValueError(f"an input of {size[0]}x{size[1]} is smaller than a receptive field of {kernel_size}")
        self.in_channels, self.out_channels, self.size = in_channels, out_channels, (int(size[0]), int(size[1]))
        self.kernel_size, self.stride, self.gain = kernel_size, stride, gain
        self.out_size = tuple((n - kernel_size) // stride + 1 for n in self.size)
        positions = math.prod(self.out_size)
        self.weight = nn.Parameter(torch.empty(positions, out_channels, in_channels * kernel_size**2))
        self.bias = nn.Parameter(torch.empty(out_channels, positions)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw normal weights of variance ``gain^2`` over the numbers of a window, and set the bias to 0."""
        nn.init.normal_(self.weight, std=self.gain * (self.in_channels * self.kernel_size**2) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def windows(self, inputs: Tensor) -> Tensor:
        """Return the receptive fields (positions, in_channels * kernel_size^2, N) of inputs (N, C, H, W)."""
        if tuple(inputs.shape[1:]) != (self.in_channels, *self.size):
            raise ValueError(
                f"expected inputs of shape {(self.in_channels, *self.size)}, got {tuple(inputs.shape[1:])}: filters "
                "that are not shared between positions fit one size of images alone"
            )
        return F.unfold(inputs, self.kernel_size, stride=self.stride).permute(2, 1, 0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Filter inputs (N, C, H, W) to (N, out_channels, OH, OW)."""
        outputs = torch.bmm(self.weight, self.windows(inputs)).permute(2, 1, 0)
        outputs = outputs if self.bias is None else outputs + self.bias
        return outputs.reshape(len(inputs), self.out_channels, *self.out_size)

    def adjoint(self, outputs: Tensor, weight: Tensor | None = None) -> Tensor:
        """Apply the transposed matrix of the layer, without its bias.

        Args:
            outputs: (N, out_channels, OH, OW).
            weight: other weights of the same shape; None: the layer's.

        Returns:
            (N, C, H, W).
        """
        weight = self.weight if weight is None else weight
        fields = torch.bmm(weight.transpose(1, 2), outputs.flatten(2).permute(2, 1, 0)).permute(2, 1, 0)
        return F.fold(fields, self.size, self.kernel_size, stride=self.stride)

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        return (
            f"{self.in_channels}, {self.out_channels}, size={self.size}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, bias={self.bias is not None}"
        )


class L2Pool2d(nn.Module):
    """Compute ``sqrt(eps + sum of squares)`` over square windows of each map, without padding.

    Args:
        kernel_size: side of the windows.
        stride: distance of neighbouring windows.
        eps: above 0, so that the gradient at zero is zero.

    Raises:
        ValueError: a number that is out of range.

    Example:
        >>> L2Pool2d(2, eps=1e-12)(torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]])).item()
        5.0
    """

    def __init__(self, kernel_size: int, stride: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        if min(kernel_size, stride) < 1 or not eps > 0:
            raise ValueError(
                f"expected kernel_size and stride of at least 1 and eps above 0, got {kernel_size}, {stride} and {eps}"
            )
        self.kernel_size, self.stride, self.eps = kernel_size, stride, eps

    def forward(self, inputs: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (N, C, OH, OW)."""
        sums = F.avg_pool2d(inputs.square(), self.kernel_size, self.stride, divisor_override=1)
        return (sums + self.eps).sqrt()

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, eps={self.eps}"


class LocalContrastNorm2d(nn.Module):
    """Subtract a Gaussian-weighted mean over a window and all maps, and divide by the Gaussian-weighted deviation.

    ``v = x - sum w x`` and ``y = v / max(floor, sqrt(sum w v^2))``; both sums are over the window around a position
    and over all maps, with Gaussian weights that add up to 1. At the image's boundary the weights of the part of the
    window inside the image are scaled up to add up to 1. Height and width stay.

    Args:
        kernel_size: side of the window, odd.
        floor: smallest number to divide by, above 0; the paper's is .01.
        sigma: standard deviation of the Gaussian in pixels; None: a quarter of the window's side. The paper gives none.

    Raises:
        ValueError: a number that is out of range.

    Example:
        >>> LocalContrastNorm2d()(torch.full((1, 3, 8, 8), 0.5)).abs().max().item() < 1e-4
        True
    """

    def __init__(self, kernel_size: int = 5, floor: float = 0.01, sigma: float | None = None) -> None:
        super().__init__()
        sigma = kernel_size / 4 if sigma is None else sigma
        if kernel_size < 1 or kernel_size % 2 == 0 or not floor > 0 or not sigma > 0:
            raise ValueError(
                f"expected an odd kernel_size, floor and sigma above 0, got {kernel_size}, {floor} and {sigma}"
            )
        self.kernel_size, self.floor, self.sigma = kernel_size, floor, sigma

    def window(self) -> list[float]:
        """Return the Gaussian weights along one axis, which add up to 1."""
        half = self.kernel_size // 2
        weights = [math.exp(-(i**2) / (2 * self.sigma**2)) for i in range(-half, half + 1)]
        return [weight / sum(weights) for weight in weights]

    def _averaged(self, maps: Tensor) -> Tensor:
        """Average (N, C, H, W) over windows and maps, to (N, 1, H, W)."""
        half, line = self.kernel_size // 2, torch.tensor(self.window(), dtype=maps.dtype, device=maps.device)
        inside = torch.ones_like(maps[:1, :1])
        both = torch.cat([maps.mean(1, keepdim=True), inside])
        both = F.conv2d(both, line.view(1, 1, -1, 1), padding=(half, 0))
        both = F.conv2d(both, line.view(1, 1, 1, -1), padding=(0, half))
        return both[:-1] / both[-1:]

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        centred = inputs - self._averaged(inputs)
        variance = self._averaged(centred.square())
        return centred / variance.clamp(min=self.floor**2).sqrt()

    def extra_repr(self) -> str:
        """Describe the layer in one line."""
        return f"kernel_size={self.kernel_size}, floor={self.floor}, sigma={self.sigma:g}"
