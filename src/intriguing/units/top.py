"""Which images excite each direction most, kept while they stream by."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.validation import whole_number


class TopImages:
    """The k images with the largest response to each of M directions; of equal responses the earlier image.

    The same whatever the batches and their order: an image is ranked by its response and then by its index.

    Args:
        num: k.

    Raises:
        TypeError, ValueError: k is not a whole number of at least 1.
    """

    def __init__(self, num: int) -> None:
        self.num = whole_number("num", num, 1)
        self._keys: Tensor | None = None

    def update(self, responses: Tensor, indices: Tensor) -> None:
        """Adds images.

        Args:
            responses: (N, M) without NaN; ranked as float32.
            indices: (N,) of the images, each from 0 and below 2^31, of any integer dtype.

        Raises:
            ValueError: the shapes do not fit, a response is not a number, or an index is out of range.
        """
        if responses.dim() != 2 or indices.shape != responses.shape[:1]:
            raise ValueError(
                f"responses must be (N, M) and indices (N,), got {tuple(responses.shape)} and {tuple(indices.shape)}"
            )
        if bool(responses.isnan().any()):
            raise ValueError("responses must be numbers, got NaN: the network's weights or its images are not finite")
        indices = indices.long().to(responses.device)
        if bool(((indices < 0) | (indices > 0x7FFFFFFF)).any()):
            raise ValueError("indices must be from 0 and below 2^31, got one outside")
        # One whole number that orders by response, then by falling index. The bits of a float order like the number
        # where it is positive and the other way round where it is negative; -0 becomes 0 first.
        bits = (responses.detach().float() + 0.0).view(torch.int32).long().T
        ranks = torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
        keys = (ranks << 31) | (0x7FFFFFFF - indices)
        if self._keys is not None:
            keys = torch.cat([self._keys, keys], dim=1)
        self._keys = keys.topk(min(self.num, keys.shape[1]), dim=1).values

    @property
    def indices(self) -> Tensor:
        """(M, k) image indices, the strongest first; fewer columns where fewer images came by."""
        if self._keys is None:
            raise ValueError("no image came by")
        return 0x7FFFFFFF - (self._keys & 0x7FFFFFFF)
