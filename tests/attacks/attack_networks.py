"""Small networks with known weights for the attack tests."""

import torch
from torch import nn


def linear_network(num_classes: int = 2, shape: tuple[int, ...] = (1, 4, 4), *, seed: int = 0, scale: float = 1.0):
    """Softmax regression on images of the given shape, in float64."""
    generator = torch.Generator().manual_seed(seed)
    n = int(torch.tensor(shape).prod())
    network = nn.Sequential(nn.Flatten(), nn.Linear(n, num_classes)).double()
    with torch.no_grad():
        network[1].weight.copy_(scale * torch.randn(num_classes, n, generator=generator, dtype=torch.float64))
        network[1].bias.zero_()
    return network.eval()


def curved_network(*, seed: int = 0, dtype: torch.dtype = torch.float32):
    """A random 16-12-4 network of sigmoid units; at mid-grey all logits are 0, so that every class is somewhere."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Sigmoid(), nn.Linear(12, 4))
    with torch.no_grad():
        for layer, centre in ((network[1], 0.5), (network[3], 0.5)):
            layer.weight.copy_(2 * torch.randn(layer.weight.shape, generator=generator))
            layer.bias.copy_(-centre * layer.weight.sum(dim=1))
    return network.to(dtype).eval()


def images(num: int, *, low: float = 0.0, high: float = 1.0, seed: int = 1, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(num, 1, 4, 4, generator=generator, dtype=torch.float64)).to(dtype)
