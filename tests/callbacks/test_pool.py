"""The pool against a reference implementation with a list."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from intriguing.callbacks import Pool


def batch(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    numbers = torch.arange(first, first + count)
    return numbers[:, None].float().expand(-1, 3), numbers % 10, numbers.float() / 100


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 12), counts=st.lists(st.integers(1, 15), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_it_fills_first_and_then_replaces_a_random_subset(size, counts, seed):
    pool, first, before = Pool(size, seed=seed), 0, set()
    for count in counts:
        came = set(range(first, first + min(count, size)))
        pool.renew(*batch(first, count))
        held = {int(row[0]) for row in pool.examples[: len(pool)]}
        assert came <= held <= before | came
        assert len(held) == len(pool) == min(size, len(before) + len(came))
        first, before = first + count, held
    assert torch.equal(pool.labels[: len(pool)], pool.examples[: len(pool), 0].long() % 10)
    torch.testing.assert_close(pool.distortion[: len(pool)], pool.examples[: len(pool), 0] / 100)


def test_every_example_is_as_likely_to_be_replaced():
    gone = torch.zeros(8)
    for seed in range(2000):
        pool = Pool(8, seed=seed)
        pool.renew(*batch(0, 8))
        pool.renew(*batch(100, 2))
        gone += torch.tensor([float(i not in pool.examples[:, 0]) for i in range(8)])
    assert ((gone / 2000 - 0.25).abs() < 4 * (0.25 * 0.75 / 2000) ** 0.5).all()


def test_drawing_takes_different_examples_and_all_where_there_are_no_more():
    pool = Pool(6)
    pool.renew(*batch(0, 6))
    examples, labels = pool.draw(4)
    assert len({int(row[0]) for row in examples}) == 4
    assert torch.equal(labels, examples[:, 0].long())
    assert pool.draw(9)[0].shape == (6, 3)


def test_a_restored_pool_continues_identically():
    one, other = Pool(5, seed=1), Pool(5, seed=2)
    one.renew(*batch(0, 5))
    state = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in one.state_dict().items()}
    other.load_state_dict(state)
    for pool in (one, other):
        pool.renew(*batch(50, 2))
    assert torch.equal(one.examples, other.examples)
    assert torch.equal(one.draw(3)[0], other.draw(3)[0])
    with pytest.raises(ValueError, match="size 5, this one 4"):
        Pool(4).load_state_dict(state)
    with pytest.raises(ValueError, match="whole number >= 1"):
        Pool(0)
