"""Run the attacks in AttackBench: functions with the signature that ``attackbench.run_attack`` calls.

For example::

    import attackbench  # pip install 'intriguing[attackbench]'
    from intriguing.integrations.attackbench import nearest

    found = attackbench.run_attack(model, loader, nearest, "l2")

AttackBench (Cina et al., arXiv 2404.19460; package attackbenchlib 2) counts the forward and backward passes of each
image, keeps the nearest adversarial image that the network was shown, and stops an image after 2,000 passes unless
``query_budget`` says otherwise. It clips images with ``torch.clamp``, which in torch 2.15 has no gradient at 0 and 1;
where many pixels are black or white, pass ``BenchModel(model, enforce_box=False)``, since the images of these attacks
lie in the box anyway. This module does not import the package.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from intriguing.attacks import ATTACKS


def nearest(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targeted: bool = False,
    targets: Tensor | None = None,
    threat_model: str = "l2",
    **settings: Any,
) -> Tensor:
    """Find the nearest images (L2) of other classes, or of the targets; see ``intriguing.attacks.nearest``.

    Args:
        model: images in [0, 1] to logits (N, K).
        inputs: (N, ...) in [0, 1].
        labels: (N,) integers, the classes to leave.
        targeted: whether the targets are to be reached.
        targets: (N,) integers, read with ``targeted`` only.
        threat_model: ``"l2"``, the norm that the attack minimises.
        settings: of the attack; ``attackbench.run_attack`` passes its own further keywords on.

    Returns:
        Images (N, ...) in [0, 1]; where the attack failed, the image as it was.

    Raises:
        TypeError: an unknown setting.
        ValueError: another threat model, no targets with ``targeted``, or what the attack itself refuses.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2))
        >>> network.load_state_dict({"1.weight": torch.tensor([[-1.0], [1.0]]), "1.bias": torch.tensor([0.5, -0.5])})
        <All keys matched successfully>
        >>> images = nearest(network, torch.tensor([[[[0.3]]]]), torch.tensor([0]), threat_model="l2")
        >>> round(images.item(), 3)  # class 1 begins at 0.5
        0.5
    """
    return _attack("nearest", model, inputs, labels, targeted, targets, threat_model, settings)


def lbfgs(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targeted: bool = False,
    targets: Tensor | None = None,
    threat_model: str = "l2",
    **settings: Any,
) -> Tensor:
    """Minimise the paper's penalty towards the targets, or towards every wrong class; see ``intriguing.attacks.lbfgs``.

    Arguments, result and errors are those of ``nearest``.
    """
    return _attack("lbfgs", model, inputs, labels, targeted, targets, threat_model, settings)


def _attack(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    targeted: bool,
    targets: Tensor | None,
    threat_model: str,
    settings: dict[str, Any],
) -> Tensor:
    if threat_model != "l2":
        raise ValueError(f"expected threat_model 'l2', the norm that {name} minimises, got {threat_model!r}")
    if targeted and targets is None:
        raise ValueError("expected targets (N,) with targeted=True, got None")
    settings = ATTACKS[name].check(settings)
    return ATTACKS[name](model, inputs, labels, targets=targets if targeted else None, **settings).adv_inputs
