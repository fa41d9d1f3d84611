"""The attack stage: what it stores is true, an interrupted one goes on, amplified and noise sets are what they say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from intriguing.adversarial_set import AdversarialSet
from intriguing.attacking import AttackJob, craft, shards
from intriguing.checkpoints import load_model
from intriguing.cli.config import training_job
from intriguing.data.arrays import digits
from intriguing.errors import UserError
from intriguing.runs.records import read_run
from intriguing.storage.files import file_sha256
from intriguing.training import fit

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two small networks, trained once for all tests of this file."""
    from hydra import compose, initialize_config_dir

    from intriguing.cli.config import plain, training_job

    runs = tmp_path_factory.mktemp("runs")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for overrides in (
            ["network=fc10_1e-2"],
            ["network=fc100_100_10_p1", "model.settings.widths=[12,9]"],
        ):
            config = compose(
                "train", overrides=[f"runs={runs}", "logger=csv", "data=digits", "trainer.max_epochs=30", *overrides]
            )
            fit(training_job(plain(config)))
    return runs


def _jobs(composed: Callable[..., dict], trained: Path, *overrides: str) -> list[AttackJob]:
    checkpoints = f"checkpoints={trained}/train/*/model.ckpt"
    return AttackJob.from_config(composed("attack", checkpoints, "limit=40", *overrides))


@pytest.mark.parametrize("targets", ["random", "runner_up", "least_likely", "closest"])
def test_success_and_distortion_hold_for_the_stored_images(
    composed: Callable[..., dict], trained: Path, targets: str
) -> None:
    for job in _jobs(composed, trained, f"attack.targets={targets}", "subset=test"):
        made = AdversarialSet.load(craft(job) / "set.safetensors")
        assert job.source is not None
        model = job.source.model
        with torch.no_grad():
            answers = model(made.adv_inputs).argmax(1)
        assert len(made) == 40 and bool(made.success.all())
        assert torch.equal(answers, made.targets)
        assert bool((answers != made.labels).all())
        root_mean_square = (made.adv_inputs - made.inputs).flatten(1).square().mean(1).sqrt()
        torch.testing.assert_close(root_mean_square, made.distortion, atol=1e-7, rtol=1e-5)
        assert torch.equal(made.inputs, digits().images["test"][made.indices])


def test_closest_is_never_farther_than_another_rule(composed: Callable[..., dict], trained: Path) -> None:
    found = {}
    for rule in ("closest", "random", "runner_up"):
        job = _jobs(composed, trained, f"attack.targets={rule}")[0]
        found[rule] = AdversarialSet.load(craft(job) / "set.safetensors").distortion
    assert bool((found["closest"] <= found["random"] * 1.02 + 1e-6).all())
    assert float(found["closest"].mean()) <= float(found["runner_up"].mean()) * 1.005


def test_training_images_of_a_half_are_those_the_network_saw(composed: Callable[..., dict], trained: Path) -> None:
    from intriguing.data import half_indices

    job = next(job for job in _jobs(composed, trained, "subset=train") if "p1" in job.name)
    made = AdversarialSet.load(craft(job) / "set.safetensors")
    assert set(made.indices.tolist()) <= set(half_indices(1437, "p1", 0).tolist())


def test_an_interrupted_attack_goes_on_and_gives_the_same_set(
    composed: Callable[..., dict], trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, part = (_jobs(composed, trained, "shard=16", f"runs={trained}/{name}")[0] for name in ("whole", "part"))
    expected = (craft(whole) / "set.safetensors").read_bytes()

    def stop(done: int, total: int, success: int) -> None:
        if done > 32:  # within the third shard
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        craft(part, progress=stop)
    folder = Path(part.runs) / "attack" / part.name
    assert len(list((folder / "shards").iterdir())) == 2
    assert not (folder / "set.safetensors").exists()
    made = []
    original = shards._make
    monkeypatch.setattr(shards, "_make", lambda *args: made.append(args[4].start) or original(*args))
    told: list[tuple[int, int, int]] = []
    assert (craft(part, progress=lambda *news: told.append(news)) / "set.safetensors").read_bytes() == expected
    assert told[:3] == [(0, 40, 0), (16, 40, 16), (32, 40, 32)] and told[-1] == (40, 40, 40)  # every attack succeeds
    within = [done for done, _, success in told[3:-1] if success == 32]
    assert within == sorted(set(within)) and within[-1] == 40 and len(within) > 1  # before the third shard is saved
    assert made == [32]
    assert not (folder / "shards").exists()


@pytest.mark.parametrize("place", [0.5, None])
def test_a_damaged_shard_is_named_and_made_again(
    composed: Callable[..., dict], trained: Path, caplog: pytest.LogCaptureFixture, place: float | None
) -> None:
    def stop(done: int, total: int, success: int) -> None:
        if done > 32:  # within the third shard
            raise KeyboardInterrupt

    whole, part = (_jobs(composed, trained, "shard=16", f"runs={trained}/{n}{place}")[0] for n in ("sound", "hurt"))
    expected = (craft(whole) / "set.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        craft(part, progress=stop)
    first, second = sorted((Path(part.runs) / "attack" / part.name / "shards").iterdir())
    content = bytearray(first.read_bytes())
    if place is None:
        content = content[:-9]
    else:
        content[int(place * len(content))] ^= 2
    first.write_bytes(content)
    assert (craft(part) / "set.safetensors").read_bytes() == expected
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(first) in said and str(second) not in said and said.endswith("this shard is made again")


def test_two_processes_make_the_set_of_one(composed: Callable[..., dict], trained: Path) -> None:
    settings = ("shard=10", "attack=adam_l1", "attack.settings.num_steps=20")
    one, two = (
        _jobs(composed, trained, *settings, f"trainer.devices={n}", f"runs={trained}/devices{n}")[0] for n in (1, 2)
    )
    assert (craft(one) / "set.safetensors").read_bytes() == (craft(two) / "set.safetensors").read_bytes()


@pytest.mark.slow
def test_two_nodes_make_the_set_of_one(trained: Path) -> None:
    """Two processes as torchrun starts them on two nodes, one on each, over the local network interface."""
    port = _free_port()
    attack = [
        *(sys.executable, str(ROOT / "attack.py"), f"checkpoints={trained}/train/digits_fc10_*", "attack=lbfgs"),
        *("shard=10", "limit=30", "logger=csv"),
    ]
    alone = subprocess.run([*attack, f"runs={trained}/alone"], capture_output=True, text=True, check=True)
    nodes = []
    for rank in (0, 1):
        own = {"RANK": rank, "GROUP_RANK": rank, "NODE_RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": 2}
        common = {"LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x"}
        environment = os.environ | {key: str(value) for key, value in (own | common).items()}
        command = [*attack, f"runs={trained}/nodes", "trainer.num_nodes=2"]
        nodes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    one, two = (next((trained / runs / "attack").glob("*/set.safetensors")) for runs in ("alone", "nodes"))
    assert one.read_bytes() == two.read_bytes()
    assert "30/30 succeeded" in alone.stderr
    assert [b"30/30 succeeded" in error for _, error in said] == [True, False]  # the first one speaks


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("by", ["set", "image"])
def test_amplified_perturbations_have_the_stddev_and_the_direction(
    composed: Callable[..., dict], trained: Path, by: str
) -> None:
    # too few steps for some of the images, whose attack fails
    few = [f"attack.settings.{key}={n}" for key, n in (("max_iter", 1), ("search_steps", 1))]
    job = _jobs(composed, trained, "attack.amplify=0.3", f"attack.amplify_by={by}", *few)[0]
    folder = craft(job)
    made = AdversarialSet.load(folder / "set.safetensors")
    plain = AdversarialSet.load(Path(str(folder).replace(job.attack.amplification, "")) / "set.safetensors")
    moved, found = plain.distortion.isfinite() & (plain.distortion > 0), plain.success
    assert int(found.sum()) > 0
    assert torch.equal(made.success, found) and torch.equal(made.adv_inputs[~found], made.inputs[~found])
    if by == "set":  # of the examples that were found
        torch.testing.assert_close(float(made.distortion[found].mean()), 0.3, atol=1e-5, rtol=0)
        factor = made.distortion[moved] / plain.distortion[moved]
        torch.testing.assert_close(factor, factor[:1].expand_as(factor), atol=0, rtol=1e-3)
    else:
        torch.testing.assert_close(made.distortion[moved], torch.full((int(moved.sum()),), 0.3), atol=1e-5, rtol=0)
    cosine = torch.cosine_similarity(
        (made.adv_inputs - made.inputs)[moved].flatten(1), (plain.adv_inputs - plain.inputs)[moved].flatten(1)
    )
    torch.testing.assert_close(cosine, torch.ones_like(cosine))
    assert made.metadata["amplify"] == 0.3 and made.metadata["clip"] is False
    assert made.metadata["attack"]["amplify_by"] == by and "amplify_by" not in plain.metadata["attack"]


def test_noise_of_two_sizes_is_not_the_same_noise(composed: Callable[..., dict]) -> None:
    sets = []
    for stddev in (0.1, 0.3):
        (job,) = AttackJob.from_config(
            composed("attack", "attack=gaussian", "data=digits", "subset=test", f"attack.stddev={stddev}")
        )
        made = AdversarialSet.load(craft(job) / "set.safetensors")
        sets.append((made.adv_inputs - made.inputs).flatten())
    correlation = float(torch.corrcoef(torch.stack(sets))[0, 1])
    assert abs(correlation) < 5 / len(sets[0]) ** 0.5


@pytest.mark.parametrize("clip", [True, False])
def test_noise_has_the_stddev_and_is_clipped_only_when_asked(composed: Callable[..., dict], clip: bool) -> None:
    (job,) = AttackJob.from_config(
        composed("attack", "attack=gaussian", "data=digits", "subset=full", "limit=null", f"attack.clip={clip}".lower())
    )
    made = AdversarialSet.load(craft(job) / "set.safetensors")
    assert len(made) == 1437 and made.metadata["source"] is None
    inside = bool(((made.adv_inputs >= 0) & (made.adv_inputs <= 1)).all())
    assert inside is clip
    if not clip:
        assert float((made.adv_inputs - made.inputs).std()) == pytest.approx(0.1, rel=0.01)


def test_the_metadata_names_the_source_by_its_digest(composed: Callable[..., dict], trained: Path) -> None:
    job = _jobs(composed, trained)[0]
    assert job.source is not None
    source = AdversarialSet.load(craft(job) / "set.safetensors").metadata["source"]
    assert source["checkpoint_sha256"] == file_sha256(job.source.trained.path)
    assert source["label"] == "FC10(1e-2)" and source["split"] == "full"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["checkpoints=null"], "checkpoints has no value"),
        (["checkpoints=nowhere/*"], "matches no checkpoint"),
        (["attack.targets=nice"], "attack.targets"),
        (["limit=0"], "limit"),
        (["subset=training"], "subset"),
        (["data=mnist"], "was trained on digits"),
        (["attack=gaussian", "data=from_checkpoint"], "data=mnist or data=digits"),
        (["attack=gaussian", "data=digits", "attack.stddev=-1"], "expected attack.stddev"),
        (["name=one"], "shared by 2 checkpoints"),
    ],
)
def test_wrong_settings_are_named(
    composed: Callable[..., dict], trained: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        _jobs(composed, trained, *overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["+attack.settings.max_iters=3"],
            "attack.settings.max_iters is no setting of lbfgs; did you mean max_iter? it has",
        ),
        (["attack.settings.max_iter=many"], "expected attack.settings.max_iter as a whole number >= 1, got 'many'"),
        (["attack.settings.c_factor=0.5"], "expected attack.settings.c_factor as a finite number > 1, got 0.5"),
        (["attack.settings.c_start=1e9"], "attack.settings: expected 0 < c_min <= c_start <= c_max"),
        (["attack.settings.chunk_size=0"], "expected attack.settings.chunk_size as a whole number >= 1, got 0"),
        (
            ["attack=nearest", "attack.settings.num_rivals=0"],
            "expected attack.settings.num_rivals as a whole number >= 1, got 0",
        ),
        (["attack=nearest", "+attack.settings.targets=1"], "targets is no setting of nearest"),
        (
            ["attack=gaussian", "data=digits", "attack.stddev=0"],
            "expected attack.stddev as a finite number > 0",
        ),
        (["attack=gaussian", "data=digits", "+attack.mean=1"], "mean is no setting of gaussian; it has stddev, clip"),
    ],
)
def test_settings_that_the_attack_does_not_take_are_named(
    composed: Callable[..., dict], trained: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        _jobs(composed, trained, *overrides)


def _opens(opened: Counter[str], jobs: list[AttackJob]) -> list[int]:
    return [opened[str(job.source.trained.path)] for job in jobs if job.source is not None]


@pytest.mark.parametrize(
    "overrides",
    [
        ["attack.targets=runner_up"],
        ["attack.amplify=0.3", "attack.settings.max_iter=2"],
        ["attack=nearest", "trainer.devices=2", "shard=10"],
    ],
)
def test_a_checkpoint_is_opened_once(
    composed: Callable[..., dict],
    trained: Path,
    count_opens: Callable[[], AbstractContextManager[Counter[str]]],
    overrides: list[str],
) -> None:
    """Also where the plain set is made for the amplified one, and where several processes share the work."""
    with count_opens() as opened:
        jobs = _jobs(composed, trained, *overrides, f"runs={trained}/opens{len(overrides)}")
        for job in jobs:
            craft(job)
    assert _opens(opened, jobs) == [1, 1]


def test_a_checkpoint_is_opened_once_where_an_attack_goes_on(
    composed: Callable[..., dict], trained: Path, count_opens: Callable[[], AbstractContextManager[Counter[str]]]
) -> None:
    def stop(done: int, total: int, success: int) -> None:
        raise KeyboardInterrupt

    settings = ("attack=nearest", "shard=16", f"runs={trained}/opens_resumed")
    with pytest.raises(KeyboardInterrupt):
        craft(_jobs(composed, trained, *settings)[0], progress=stop)
    for count in (1, 1):  # resumed, then finished
        with count_opens() as opened:
            jobs = _jobs(composed, trained, *settings)[:1]
            craft(jobs[0])
        assert _opens(opened, jobs) == [count]


def test_a_shard_that_no_process_made_is_missed(composed: Callable[..., dict], trained: Path, tmp_path: Path) -> None:
    job = _jobs(composed, trained, "shard=16")[0]
    fabric = shards.make_fabric(job.processes)
    shards.fill(fabric, job, shards.pick_images(job), tmp_path / "shards", "code", None)
    sorted((tmp_path / "shards").iterdir())[1].unlink()
    with pytest.raises(UserError, match="lacks 1 of 3 shards; run the same command again"):
        shards.merge(job, 40, tmp_path / "shards", "code")


def test_a_network_without_images_is_built_and_cannot_be_attacked(composed: Callable[..., dict]) -> None:
    given = ("data=blank", "data.shape=[1,3,2]", "data.num_classes=4", "model=fc10", "trainer.max_epochs=0")
    folder = fit(training_job(composed("train", *given)))
    model = load_model(folder / "model.ckpt")
    assert (tuple(model.input_shape), model.num_classes) == ((1, 3, 2), 4)
    assert read_run(folder).result["errors"] == {}
    (job,) = AttackJob.from_config(composed("attack", f"checkpoints={folder}"))
    with pytest.raises(UserError, match="there are no train images"):
        craft(job)
    with pytest.raises(UserError, match="data=blank has no images to train on"):
        training_job(composed("train", *given[:-1]))


def test_a_study_trains_some_networks_once(composed: Callable[..., dict]) -> None:
    from intriguing.cli.study import study_steps

    config = composed("analyze", "study=lambda", "study.seeds=[0,1]")
    networks = {"a": ["model=fc10"], "b": ["model=fc10", "weight_decay.value=1"]}
    config["study"] |= {"attack": [], "train": {"all": ["data=digits"], "networks": networks, "once": ["b"]}}
    assert [step.key for step in study_steps(config)] == ["a seed 0", "b seed 0", "a seed 1"]
