"""attack=module: a function in the working folder is an attack like any other, and its code counts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking import AttackJob, craft
from intriguing.attacking.code import code_digest
from intriguing.checkpoints import load_model
from intriguing.cli import factories
from intriguing.cli.config import training_job
from intriguing.errors import UserError
from intriguing.training import fit

MINE = """
import torch
import torch.nn.functional as F

CALLS = []

def fgsm(model, inputs, labels, *, targets=None, generator=None, eps=0.1):
    CALLS.append(len(inputs))
    x = inputs.requires_grad_()
    goal = labels if targets is None else targets
    loss = F.cross_entropy(model(x), goal)
    (gradient,) = torch.autograd.grad(loss, x)
    return (inputs + (1 if targets is None else -1) * eps * gradient.sign()).clamp(0, 1).detach()

def plain(model, inputs, labels):
    return inputs
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of the user's in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine_attacks", "other_attacks"):
        (tmp_path / f"{name}.py").write_text(MINE)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "mine_attacks.py"


@pytest.fixture
def jobs(composed: Callable[..., dict], mine: Path) -> Callable[..., AttackJob]:
    """Make the job of an attack on a small network, which is trained at the first call."""
    folder: list[Path] = []

    def make(*overrides: str) -> AttackJob:
        if not folder:
            train = ("data=digits", "network=fc10_1e-2", "trainer.max_epochs=3")
            folder.append(fit(training_job(composed("train", *train))))
        config = composed("attack", f"checkpoints={folder[0]}", "limit=24", "attack=module", *overrides)
        return AttackJob.from_config(config, function=factories.attack(config))[0]

    return make


def test_a_users_function_makes_a_set_like_any_attack(jobs: Callable[..., AttackJob]) -> None:
    job = jobs("attack._target_=mine_attacks.fgsm", "+attack.eps=0.2", "shard=10")
    made = AdversarialSet.load(craft(job) / "set.safetensors")
    assert "mine_attacks.fgsm_train24" in job.name and sys.modules["mine_attacks"].CALLS == [10, 10, 4]
    described = {"name": "fgsm", "function": "mine_attacks.fgsm", "targets": None, "settings": {"eps": 0.2}}
    assert made.metadata["attack"] == {**described, "amplify": None, "clip": True, "limit": 24}
    assert job.source is not None
    model = load_model(job.source.trained.path)
    with torch.no_grad():
        wrong, already = model(made.adv_inputs).argmax(1) != made.labels, model(made.inputs).argmax(1) != made.labels
    assert torch.equal(wrong, made.success) and bool(wrong.any())
    assert torch.equal(made.distortion == 0, already)
    assert float((made.adv_inputs - made.inputs).abs().max()) <= 0.2 + 1e-6
    assert set(made.num_forwards.tolist()) == set(made.num_backwards.tolist()) == {1}


def test_targets_levels_and_amplification_work_for_it(jobs: Callable[..., AttackJob]) -> None:
    job = jobs(
        *("attack._target_=mine_attacks.fgsm", "+attack.settings={eps: 0.5, levels: 256}"),
        *("attack.targets=runner_up", "attack.amplify=0.3"),
    )
    plain = AdversarialSet.load(craft(job.plain) / "set.safetensors")
    made = AdversarialSet.load(craft(job) / "set.safetensors")
    assert job.source is not None and bool(plain.success.any())
    with torch.no_grad():
        answers = load_model(job.source.trained.path)(plain.adv_inputs).argmax(1)
    assert torch.equal(answers == plain.targets, plain.success)
    found = plain.adv_inputs[plain.success]
    assert torch.equal((found * 255).round() / 255, found)
    moved = made.success & (plain.distortion > 0)
    assert float(made.distortion[moved].mean()) > float(plain.distortion[moved].mean())


def test_two_functions_of_one_name_are_two_attacks(jobs: Callable[..., AttackJob]) -> None:
    one, other = (jobs(f"attack._target_={name}.fgsm") for name in ("mine_attacks", "other_attacks"))
    assert one.name != other.name and one.identity != other.identity
    assert (one.attack.name, other.attack.name) == ("fgsm", "fgsm")


def test_nothing_of_a_set_is_imported(jobs: Callable[..., AttackJob], mine: Path) -> None:
    path = craft(jobs("attack._target_=mine_attacks.fgsm")) / "set.safetensors"
    mine.unlink()
    del sys.modules["mine_attacks"]
    assert AdversarialSet.load(path).metadata["attack"]["function"] == "mine_attacks.fgsm"
    assert "mine_attacks" not in sys.modules


def test_a_shard_of_changed_code_is_made_again_and_a_finished_set_stays(
    jobs: Callable[..., AttackJob], mine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(done: int, total: int, success: int) -> None:
        if done > 20:
            raise KeyboardInterrupt

    job = jobs("attack._target_=mine_attacks.fgsm", "shard=10")
    with pytest.raises(KeyboardInterrupt):
        craft(job, progress=stop)
    calls, before = sys.modules["mine_attacks"].CALLS, code_digest(job)
    assert calls == [10, 10, 4]
    mine.write_text(MINE + "# changed\n")
    assert code_digest(job) != before
    craft(job)
    assert calls == [10, 10, 4, 10, 10, 4]
    said = [record.getMessage() for record in caplog.records if "made by other code" in record.getMessage()]
    assert len(said) == 3 and all(one.endswith("this shard is made again") for one in said)
    mine.write_text(MINE)
    craft(job)
    assert len(calls) == 6


def test_the_code_of_an_attack_of_the_project_is_its_own(jobs: Callable[..., AttackJob], mine: Path) -> None:
    own = jobs("attack._target_=mine_attacks.fgsm")
    lbfgs = jobs("attack=lbfgs")
    before = code_digest(lbfgs)
    assert before == code_digest(lbfgs) != code_digest(own)
    mine.write_text(MINE + "# changed\n")
    assert code_digest(lbfgs) == before


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("attack._target_=mine_attacks.fgsm", "+attack.epsilon=1"), r"attack.epsilon is no setting of fgsm \(did you"),
        (("attack._target_=mine_attacks.fgsm", "+attack.settings.epsilon=1"), "attack.epsilon is no setting of fgsm"),
        (
            ("attack._target_=mine_attacks.fgsm", "+attack.eps=1", "+attack.settings.eps=2"),
            "attack.eps and attack.settings.eps are one setting",
        ),
        (("attack._target_=mine_attacks.fgsmm",), "attack._target_=mine_attacks.fgsmm: "),
        (("attack._target_=mine_attacks.CALLS",), "is a list, not a class or a function"),
        (("attack._target_=torch.nn.Linear",), "expected an attack as a function"),
        (("attack._target_=mine_attacks.plain", "attack.targets=random"), "mine_attacks.plain takes no targets"),
        (("attack._target_=mine_attacks.plain", "attack.targets=nearby"), "takes no targets"),
        (("attack._target_=mine_attacks.plain", "attack.clip=maybe"), "attack.clip must be true or false"),
        (("attack._target_=intriguing.attacks.lbfgs",), "attack._target_=intriguing.attacks.lbfgs is attack=lbfgs"),
        (("attack._target_=len",), "attack._target_=len: "),
        (("attack=lbfgs", "+attack._target_=mine.fgsm"), "give attack=module attack._target_=mine.fgsm"),
        (("attack=gaussian", "+attack._target_=mine.fgsm"), "give attack=module attack._target_=mine.fgsm"),
        (("attack=lbfgs", "attack.settings.levels=1"), "expected attack.settings.levels as a whole number >= 2, got 1"),
    ],
)
def test_what_cannot_be_an_attack_gets_one_line(
    composed: Callable[..., dict], mine: Path, overrides: tuple[str, ...], words: str
) -> None:
    config = composed("attack", "checkpoints=none", "attack=module", *overrides)
    with pytest.raises(UserError, match=words) as refusal:
        AttackJob.from_config(config, function=factories.attack(config))
    assert "\n" not in str(refusal.value)
