"""Find the images that excite each direction most, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from intriguing.validation import whole_number


class TopImages:
    """Collect the k images with the largest response to each of M directions; of equal responses, the earlier image.

    The result does not depend on the batches or their order: images are ranked by response, then by index.

    Args:
        num: k.

    Raises:
        TypeError: k is not a number.
        ValueError: k is not a whole number of at least 1.

    Example:
        >>> import torch
        >>> top = TopImages(2)
        >>> top.update(torch.tensor([[0.1], [0.9]]), torch.tensor([0, 1]))
        >>> top.update(torch.tensor([[0.5]]), torch.tensor([2]))
        >>> top.indices.tolist()
        [[1, 2]]
    """

    def __init__(self, num: int) -> None:
        self.num = whole_number("num", num, 1)
        self._keys: Tensor | None = None

    def update(self, responses: Tensor, indices: Tensor) -> None:
        """Add images.

        Args:
            responses: (N, M) without NaN; ranked as float32.
            indices: (N,) of the images, at least 0 and below 2^31, of any integer dtype.

        Raises:
            ValueError: the shapes do not match, a response is NaN, or an index is out of range.
        """
        if responses.dim() != 2 or indices.shape != responses.shape[:1]:
            raise ValueError(
                f"responses must be (N, M) and indices (N,), got {tuple(responses.shape)} and {tuple(indices.shape)}"
            )
        if bool(responses.isnan().any()):
            raise ValueError("responses must be numbers, got NaN: the network's weights or its images are not finite")
        indices = indices.long().to(responses.device)
        if bool(((indices < 0) | (indices > 0x7FFFFFFF)).any()):
            raise ValueError("indices must be at least 0 and below 2^31")
        # One integer that sorts by response, then by decreasing index. The bits of a float sort like the number if
        # it is positive, and in reverse if it is negative; -0 becomes 0 first.
        bits = (responses.detach().float() + 0.0).view(torch.int32).long().T
        ranks = torch.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
        keys = (ranks << 31) | (0x7FFFFFFF - indices)
        if self._keys is not None:
            keys = torch.cat([self._keys, keys], dim=1)
        self._keys = keys.topk(min(self.num, keys.shape[1]), dim=1).values

    @property
    def indices(self) -> Tensor:
        """Return image indices (M, k), strongest first; fewer columns if fewer images were added.

        Raises:
            ValueError: no image was added.
        """
        if self._keys is None:
            raise ValueError("expected at least one image, got none")
        return 0x7FFFFFFF - (self._keys & 0x7FFFFFFF)
