"""A training step with pools: gradients against separate passes, perturbations against their definition."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from intriguing.callbacks import LayerPool, Pool, PoolMixing, PoolSettings
from intriguing.callbacks.pool_mixing import _stepped
from intriguing.callbacks.split_network import SplitNetwork, chain_of, injectable_layers

SETTINGS = {
    "size": 6, "refresh": 1.0, "every": 1, "mix": 1.0, "weight": 1.0, "keep_scale": False, "turns": "together",
    "attack": "gradient", "num_steps": 1, "max_iter": 20, "c_tolerance": 1.0,
}  # fmt: skip


def network(activation: type[nn.Module] = nn.Sigmoid) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 4)
    ).double()


def feed(net: nn.Sequential, layers=None, distortion: float = 0.05, **changes) -> PoolMixing:
    pools = [
        LayerPool(one, distortion, Pool(6)) for one in injectable_layers(net) if layers is None or one.name in layers
    ]
    return PoolMixing(net, pools, PoolSettings(**{**SETTINGS, **changes}), seed=0)


def batch(count: int = 6, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, 4, 4, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 4, (count,), generator=generator)


def gradients(net: nn.Sequential) -> list[torch.Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in net.parameters()]


def test_layers_have_names_and_ranges():
    found = {one.name: (one.position, one.lower, one.upper) for one in injectable_layers(network())}
    assert found == {"input": (0, 0.0, 1.0), "hidden1": (3, 0.0, 1.0), "hidden2": (5, 0.0, 1.0)}
    assert injectable_layers(network(nn.ReLU))[1].upper == math.inf
    assert injectable_layers(network(nn.Tanh))[2].lower == -1.0


class Branched(nn.Module):
    """Two layers, with a function between them that only training calls, or a branch around them."""

    def __init__(self, between: str):
        super().__init__()
        self.between, self.first, self.act, self.second = (
            between,
            nn.Linear(4, 4),
            nn.ReLU(inplace=True),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        hidden = self.act(self.first(torch.flatten(x, 1)))
        if self.between == "dropout":
            hidden = F.dropout(hidden, 0.5, self.training)
        logits = self.second(hidden)
        return logits + x.flatten(1)[:, :3] if self.between == "branch" else logits


@pytest.mark.parametrize(("between", "layers"), [("", 2), ("dropout", 1), ("branch", 1)])
def test_a_chain_is_found_where_modules_run_one_after_the_other(between: str, layers: int) -> None:
    net = nn.Sequential(nn.Identity(), nn.Sequential(Branched(between), nn.Identity())).eval()
    images = torch.rand(3, 1, 2, 2)
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    chain = chain_of(net, (1, 2, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(chain(images.clone()), net(images.clone()))
    assert len(injectable_layers(chain)) == layers and not net.training
    modules = {id(one) for one in net.modules()}
    assert all(id(one) in modules or isinstance(one, nn.Flatten) for one in chain)


def test_injected_rows_have_the_logits_of_the_layers_above():
    net = network()
    fed, (images, _) = SplitNetwork(net, injectable_layers(net)), batch()
    rows = {"input": images[:2] / 2, "hidden2": torch.rand(3, 6, dtype=torch.float64)}
    logits, outputs = fed(images, rows)
    expected = torch.cat([net(images), net(rows["input"]), net[5](rows["hidden2"])])
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(outputs["hidden1"][:6], net[:3](images))
    torch.testing.assert_close(fed.above("hidden1", net[:3](images)), net(images))


@pytest.mark.parametrize("turns", ["together", "alternate"])
def test_a_step_is_the_originals_loss_and_that_of_each_pool(turns):
    net = network()
    one = feed(net, turns=turns, weight=0.5)
    for seed in (1, 2, 3, 4):  # fills every pool, for both kinds of turns
        one.step(*batch(seed=seed))[0].backward()
        one.renew()
    net.zero_grad()
    held = {p.layer.name: (p.layer.position, p.pool.examples.clone(), p.pool.labels.clone()) for p in one.pools}
    images, labels = batch(seed=9)
    loss, clean, logits = one.step(images, labels)
    loss.backward()
    got = gradients(net)
    net.zero_grad()
    torch.testing.assert_close(logits, net(images))
    expected = own = F.cross_entropy(net(images), labels)
    for name in held if turns == "together" else ["hidden1"]:  # the fifth step is the second pool's turn
        position, examples, truth = held[name]
        expected = expected + 0.5 * F.cross_entropy(net[position:](examples), truth)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(clean, own)
    for mine, theirs in zip(got, gradients(net), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_keep_scale_divides_the_loss():
    net = network()
    losses = []
    for keep in (False, True):
        one = feed(net, keep_scale=keep, weight=0.5)
        one.step(*batch(seed=1))[0].backward()
        one.renew()
        losses.append(float(one.step(*batch(seed=2))[0].detach()))
    assert losses[1] == pytest.approx(losses[0] / (1 + 3 * 0.5))


def test_a_hidden_pool_trains_the_layers_above_it_only():
    net = network()
    one = feed(net, layers=["hidden2"])
    one.step(*batch())[0].backward()
    one.renew()
    images, labels = batch(seed=2)
    net.zero_grad()
    F.cross_entropy(net(images), labels).backward()
    alone = gradients(net)
    net.zero_grad()
    one.step(images, labels)[0].backward()
    together = gradients(net)
    for k in range(4):  # both layers below hidden2's output, weights and biases
        torch.testing.assert_close(together[k], alone[k])
    assert not torch.allclose(together[4], alone[4])


@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("layer", ["input", "hidden1", "hidden2"])
def test_one_step_ascends_the_loss_by_its_length_inside_the_range(activation, layer):
    net = network(activation)
    one = feed(net, layers=[layer], distortion=1e-3)
    images, labels = batch()
    images = 0.1 + 0.8 * images
    one.step(images, labels)[0].backward()
    one.renew()
    pool, place = one.pools[0].pool, one.pools[0].layer
    values = net[: place.position](images).detach().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(net[place.position :](values), labels, reduction="sum"), values)
    length = 1e-3 * math.sqrt(values[0].numel())
    wanted = values + length * slope / slope.flatten(1).norm(dim=1).view(-1, *[1] * (slope.dim() - 1))
    torch.testing.assert_close(pool.examples, wanted.detach().clamp(place.lower, place.upper))
    assert torch.equal(pool.labels, labels)
    assert (pool.distortion <= 1e-3 * (1 + 1e-9)).all()


def test_more_steps_find_a_higher_loss_within_the_same_length():
    net = network()
    images, labels = batch(6, seed=4)
    losses = []
    for steps in (1, 8):
        one = feed(net, layers=["input"], distortion=0.2, num_steps=steps)
        one.step(images, labels)[0].backward()
        one.renew()
        pool = one.pools[0].pool
        assert (pool.distortion <= 0.2 * (1 + 1e-9)).all()
        with torch.no_grad():
            losses.append(float(F.cross_entropy(net(pool.examples), labels)))
            clean = float(F.cross_entropy(net(images), labels))
    assert losses[1] > losses[0] > clean


def test_noise_has_the_given_length_and_lbfgs_fools_within_it():
    net = network()
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.Linear):  # odd about mid-grey: the mirror image of an image has negated logits
                module.weight.mul_(6)
                module.bias.copy_(-0.5 * module.weight.sum(dim=1))
        net[5].weight.div_(net[5].weight.abs().sum(dim=1, keepdim=True) / 10)
        net[5].weight[2:] = -net[5].weight[:2]  # each class wins at a corner of the range of hidden2
        net[5].bias.copy_(-0.5 * net[5].weight.sum(dim=1))
    images = 0.3 + 0.4 * batch()[0]
    labels = net(images).argmax(dim=1)
    noise = feed(net, layers=["input"], distortion=0.01, attack="noise")
    noise.step(images, labels)[0].backward()
    noise.renew()
    torch.testing.assert_close(noise.pools[0].pool.distortion, torch.full((6,), 0.01, dtype=torch.float64))
    paper = feed(net, layers=["input", "hidden2"], distortion=1.0, attack="lbfgs")
    paper.step(images, labels)[0].backward()
    paper.renew()
    for one in paper.pools:
        pool = one.pool
        assert len(pool) > 0
        answers = net[one.layer.position :](pool.examples[: len(pool)]).argmax(dim=1)
        assert (answers != pool.labels[: len(pool)]).all()
    metrics = paper.epoch_metrics()
    assert metrics["pool/fooled_input"] == metrics["pool/fooled_hidden2"] == 1.0


def test_the_share_that_is_renewed_and_how_often():
    one = feed(network(), layers=["input"], refresh=0.5, every=3)
    replaced = []
    for seed in range(9):
        one.step(*batch(seed=seed))[0].backward()
        one.renew()
        replaced.append(one.pools[0].pool.replaced + len(one.pools[0].pool))
    assert replaced == [3, 3, 3, 6, 6, 6, 9, 9, 9]


def test_metrics_describe_the_epoch():
    one = feed(network())
    clean = []
    for seed in range(3):
        loss, own, _ = one.step(*batch(seed=seed))
        loss.backward()
        one.renew()
        clean.append(float(own.detach()))
    metrics = one.epoch_metrics()
    assert metrics["pool/clean_loss"] == pytest.approx(sum(clean) / 3)
    assert metrics["pool/renewal_seconds"] > 0
    assert metrics["pool/distortion_hidden1"] == pytest.approx(0.05, rel=0.2)
    assert "pool/clean_loss" not in one.epoch_metrics()  # a new epoch
    one.step(*batch(seed=2))  # the pools hold these images after a step up the loss, and no weight has changed
    metrics = one.epoch_metrics()
    assert metrics["pool/loss"] > metrics["pool/clean_loss"] == pytest.approx(clean[2])


@pytest.mark.parametrize("attack", ["gradient", "noise", "lbfgs"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_a_step_and_a_renewal_do_not_modify_their_arguments(attack, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Dropout(0.5, inplace=True), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Sigmoid(), nn.Linear(8, 4)
    )
    one = feed(net, attack=attack, num_steps=2)
    images, labels = batch()
    images, labels = images.float(), labels.to(dtype)
    before, versions = (images.clone(), labels.clone()), (images._version, labels._version)
    one.step(images, labels)[0].backward()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    slopes, modes = gradients(net), [module.training for module in net.modules()]
    one.renew()
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert all(map(torch.equal, gradients(net), slopes))
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert (images._version, labels._version) == versions
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("layer", ["input", "hidden1"])
def test_values_that_autocast_made_in_half_precision_are_perturbed_by_the_given_distance(steps, layer):
    net = network(nn.Tanh).float()
    one = feed(net, layers=[layer], distortion=0.01, num_steps=steps)
    images, labels = batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss = one.step(images.float().clamp(0.1, 0.9), labels)[0]
    loss.backward()
    one.renew()
    pool = one.pools[0].pool
    assert pool.examples is not None
    assert pool.examples.dtype == torch.float32
    torch.testing.assert_close(pool.distortion, torch.full((6,), 0.01), rtol=0.1, atol=0)


def test_slopes_that_are_zero_or_not_finite_do_not_spoil_a_step():
    layer = injectable_layers(network())[0]
    values = torch.full((3, 4), 0.5)
    slopes = torch.tensor([[0.0, 0, 0, 0], [math.nan, 1e-30, 0, -math.inf], [1e30, 0, -1e30, 0]])
    expected = torch.tensor([[0.0, 0, 0, 0], [0, 0.2, 0, 0], [0.2 / 2**0.5, 0, -0.2 / 2**0.5, 0]])
    torch.testing.assert_close(_stepped(values, slopes, 0.2, layer) - values, expected)
    long = _stepped(values, slopes, 1e6, layer)  # longer than any number times the inverse of the least one
    assert torch.equal(long[0], values[0])


def test_a_pool_continues_from_a_state_without_modifying_it():
    pool, other = Pool(3), Pool(3)
    pool.renew(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3))
    state = pool.state_dict()
    other.load_state_dict(state)
    other.renew(torch.ones(3, 2), torch.ones(3, dtype=torch.int64), torch.ones(3))
    assert all((state[name] == 0).all() for name in ("examples", "labels", "distortion"))


def test_the_penalty_method_fills_pools_of_values_in_half_precision():
    net = network().to(torch.bfloat16)
    one = feed(net, layers=["input"], attack="lbfgs", distortion=1.0)
    images, labels = batch()
    one.step(images.bfloat16(), labels)[0].backward()
    one.renew()
    pool = one.pools[0].pool
    assert pool.examples is not None
    assert pool.examples.dtype == torch.bfloat16
    assert pool.filled > 0
    filled = pool.examples[: pool.filled]
    assert 0 <= filled.min() <= filled.max() <= 1
