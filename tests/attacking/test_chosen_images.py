"""Which images are attacked, and towards which class; and that chunks change no result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking import AttackJob, craft
from intriguing.attacking.shards import pick_images
from intriguing.attacks import lbfgs, nearest
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.models import ConvNet
from intriguing.training import fit

NAMES = ("ant", "bee", "cat", "dog")
PER_CLASS = 3


@pytest.fixture
def jobs(composed: Callable[..., dict], tmp_path: Path) -> Callable[..., AttackJob]:
    draws = torch.Generator().manual_seed(0)
    for part in ("train", "test"):
        for label, name in enumerate(NAMES):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(PER_CLASS):
                pixels = (torch.rand(6, 6, generator=draws) * 60 + 60 * label).byte().numpy()
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{i}.png")
    folder = f"data.folder={tmp_path / 'pets'}"
    config = composed("train", "data=image_folder", folder, "model=fc10", "trainer.max_epochs=3", "logger=csv")
    checkpoint = fit(training_job(config)) / "model.ckpt"

    def job(*overrides: str) -> AttackJob:
        (made,) = AttackJob.from_config(composed("attack", f"checkpoints={checkpoint}", "subset=test", *overrides))
        return made

    return job


def test_one_of_every_class_in_turn_and_none_of_the_target(jobs: Callable[..., AttackJob]) -> None:
    assert pick_images(jobs("order=label", "limit=6")).labels.tolist() == [0, 0, 1, 1, 2, 3]
    aimed = jobs("order=label", "limit=4", "attack.targets=bee")
    assert pick_images(aimed).labels.tolist() == [0, 0, 2, 3]
    assert pick_images(jobs("limit=null", "attack.targets=bee")).labels.tolist() == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    assert pick_images(jobs("limit=12", "order=label")).indices.tolist() == list(range(12))
    drawn, again = (pick_images(jobs("limit=6", f"seed={seed}")).indices.tolist() for seed in (0, 0))
    assert drawn == again != pick_images(jobs("limit=6", "seed=1")).indices.tolist()


def test_a_class_is_one_target_however_it_is_named(jobs: Callable[..., AttackJob]) -> None:
    by_name, by_number = jobs("attack.targets=bee"), jobs("attack.targets=1")
    assert by_name.identity == by_number.identity and by_name.name == by_number.name
    assert by_name.attack.description["targets"] == "bee" and by_name.attack.description["target_class"] == 1
    made = AdversarialSet.load(craft(by_name) / "set.safetensors")
    assert made.targets is not None and set(made.targets.tolist()) == {1} and 1 not in made.labels
    assert by_name.source is not None
    with torch.no_grad():
        assert bool((by_name.source.model(made.adv_inputs).argmax(1) == 1)[made.success].all())
    with pytest.raises(UserError, match="no class is called bea; did you mean bee"):
        jobs("attack.targets=bea")


def test_the_order_counts_where_it_chooses(jobs: Callable[..., AttackJob]) -> None:
    drawn, label = jobs("limit=4"), jobs("limit=4", "order=label")
    assert "order" not in drawn.identity and label.identity["order"] == "label"
    assert jobs("limit=null", "order=label").identity == jobs("limit=null").identity


class OneByOne(nn.Module):
    """Run a network on one image at a time, so that its rounding does not depend on the size of a batch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.network(image) for image in images.split(1)])


@pytest.mark.parametrize(("attack", "resolution"), [(lbfgs, 1e-6), (nearest, 1e-3)])
def test_chunks_change_no_result(attack: Callable, resolution: float) -> None:
    torch.manual_seed(0)
    network = ConvNet(
        channels=[4], kernels=[3], widths=[8], label="net", input_shape=[3, 6, 6], num_classes=4, weight_decay=0.0
    )
    model = OneByOne(network.double())
    inputs = torch.rand(3, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        labels, targets = model(inputs).topk(2).indices.T
    given = {"targets": targets} if attack is lbfgs else {"labels": labels, "targets": targets}
    whole = attack(model, inputs, **given)
    assert bool(whole.success.all())
    for size in (1, 2):
        cut = attack(model, inputs, chunk_size=size, **given)
        torch.testing.assert_close(cut.distortion, whole.distortion, rtol=resolution, atol=0)
        torch.testing.assert_close(cut.adv_inputs, whole.adv_inputs, rtol=0, atol=resolution)
