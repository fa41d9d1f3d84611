"""What is computed on a GPU is what the CPU computes; every stage runs there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import intriguing as ig
from intriguing.attacks import AttackResult, adam_l1, gaussian, lbfgs, nearest
from intriguing.optim import minimize_box
from intriguing.spectral import Certifier, lipschitz_bounds, operator_norm

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 4, 3, stride=2, padding=1)
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.Sigmoid(), nn.Linear(12, 5))
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        last = model[-1]
        assert isinstance(last, nn.Linear)
        last.bias.sub_(model(torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64))[0])  # every class is somewhere
    return model


def images_and_labels(model: nn.Module) -> tuple[Tensor, Tensor]:
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return images, model(images).argmax(dim=1)


def second(model: nn.Module, images: Tensor) -> Tensor:
    """The class with the second largest logit, which a search can reach."""
    return model(images).topk(2, dim=1).indices[:, 1]


ATTACKS: dict[str, Callable[..., AttackResult]] = {
    "nearest": lambda model, images, labels: nearest(model, images, labels, effort="fast"),
    "nearest towards targets": lambda model, images, labels: nearest(
        model, images, labels, targets=second(model, images), effort="fast"
    ),
    "nearest from starts": lambda model, images, labels: nearest(model, images, labels, starts="batch"),
    "nearest with 256 levels": lambda model, images, labels: nearest(model, images, labels, effort="fast", levels=256),
    "lbfgs": lambda model, images, labels: lbfgs(model, images, second(model, images)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_finds_on_the_gpu_what_it_finds_on_the_cpu(name: str) -> None:
    model = small_network()
    images, labels = images_and_labels(model)
    here = ATTACKS[name](model, images, labels)
    there = ATTACKS[name](model.cuda(), images.cuda(), labels.cuda())
    assert there.adv_inputs.is_cuda and there.success.is_cuda and there.distortion.is_cuda
    assert here.success.all()
    assert there.success.tolist() == here.success.tolist()
    torch.testing.assert_close(there.distortion.mean().cpu(), here.distortion.mean(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attacks_run_in_every_type_of_a_gpu(dtype: torch.dtype) -> None:
    model = small_network()
    images, labels = images_and_labels(model)
    expected = nearest(model, images, labels).distortion.mean().item()
    model, images, labels = model.cuda().to(dtype), images.cuda().to(dtype), labels.cuda()
    labels = model(images).argmax(dim=1)
    for result in (nearest(model, images, labels), lbfgs(model, images, second(model, images))):
        assert result.success.all()
        assert (model(result.adv_inputs.to(dtype)).argmax(dim=1) != labels).all()
    assert nearest(model, images, labels).distortion.mean().item() < 1.3 * expected


def test_adam_starts_from_noise_of_the_device() -> None:
    model = small_network()
    images, _ = images_and_labels(model)
    targets = second(model, images).cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    result = adam_l1(model.cuda(), images.cuda(), targets, num_steps=50, generator=generator)
    assert result.adv_inputs.is_cuda and result.num_forwards.is_cuda


def test_noise_has_the_devices_generator() -> None:
    images = torch.full((200, 1, 16, 16), 0.5, device="cuda")
    noisy = gaussian(images, 0.1, generator=torch.Generator("cuda").manual_seed(0))
    assert noisy.is_cuda
    assert (noisy - images).std().item() == pytest.approx(0.1, rel=0.02)


def test_the_optimiser_finds_the_nearest_point_of_the_box() -> None:
    point = torch.linspace(-1, 2, 12, device="cuda", dtype=torch.float64).view(2, 6)
    result = minimize_box(lambda x: (x - point).square().sum(dim=1), torch.full_like(point, 0.5), lower=0.0, upper=1.0)
    assert result.x.is_cuda
    torch.testing.assert_close(result.x, point.clamp(0, 1))


def test_bounds_are_those_of_the_cpu() -> None:
    model = small_network()
    here, there = lipschitz_bounds(model, (1, 8, 8)), lipschitz_bounds(model.cuda(), (1, 8, 8))
    assert [one.bound for one in there] == pytest.approx([one.bound for one in here], rel=1e-6)
    weight = torch.randn(5, 7, device="cuda", dtype=torch.float64)
    layer = nn.Linear(7, 5, bias=False).cuda().double()
    with torch.no_grad():
        layer.weight.copy_(weight)
    largest = torch.linalg.svdvals(weight)[0].item()
    assert float(operator_norm(layer, (7,))) == pytest.approx(largest, rel=1e-6)


def test_a_certified_radius_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    images = torch.rand(5, 1, 4, 4)
    labels = model(images).argmax(dim=1)
    here = Certifier(model, (1, 4, 4)).radii(model(images), labels)
    there = Certifier(model.cuda(), (1, 4, 4)).radii(model(images.cuda()), labels.cuda())
    torch.testing.assert_close(torch.as_tensor(there).cpu(), torch.as_tensor(here), rtol=1e-3, atol=1e-5)


def test_the_functions_of_a_notebook_use_the_networks_device() -> None:
    data = ig.data.digits()
    net = ig.fit(ig.models.FullyConnected(widths=[20]), data, epochs=3, accelerator="gpu")
    net = net.cuda()
    images, labels = data.test.images[:16], data.test.labels[:16]
    examples = ig.craft(net, images, labels, attack="nearest")
    table = ig.transfer_table({"net": net}, {"net": examples})
    assert "100" in str(table)


def test_every_stage_runs_on_the_gpu(run_script: Callable[..., tuple], tmp_path: Path) -> None:
    common = ["data=digits", "trainer=gpu", "logger=csv"]
    for arguments in (
        ["train.py", "network=fc100_100_10", *common, "trainer.max_epochs=2", "name=net"],
        ["train.py", "network=fc100_100_10", *common, "trainer.max_epochs=2", "callbacks=back_feeding", "name=fed"],
        ["train.py", "model=convnet", *common, "trainer.max_epochs=1", "name=conv"],
        ["attack.py", "checkpoints=runs/train/*", "attack=nearest", "trainer=gpu", "limit=32", "logger=csv"],
        ["attack.py", "checkpoints=runs/train/net", "attack=lbfgs", "trainer=gpu", "limit=32", "logger=csv"],
        ["analyze.py", "networks=runs/train/*", "sets=runs/attack/*", "name=page", "logger=csv"],
    ):
        status, out, err = run_script(*arguments)
        assert status == 0, (arguments, out[-2000:], err[-2000:])
    assert (tmp_path / "runs" / "analyze" / "page" / "report.html").is_file()
