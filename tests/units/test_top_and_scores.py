"""Top images and their scores against brute force and closed forms."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from intriguing.units.scores import RunningMoments, label_entropy, label_purity, similarity, unit_rows
from intriguing.units.top import TopImages


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 6))
def test_top_images_are_those_of_a_stable_sort_for_all_batches_and_orders(seed: int, n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    responses = torch.randint(-3, 4, (n, 3), generator=generator).float() / 7  # many ties, both signs, both zeros
    responses[responses == 0] *= -1
    expected = [sorted(range(n), key=lambda i, j=j: (-float(responses[i, j]), i))[:k] for j in range(3)]
    order, size = torch.randperm(n, generator=generator), int(torch.randint(1, n + 1, (1,), generator=generator))
    top = TopImages(k)
    for part in order.split(size):
        top.update(responses[part], part)
    assert top.indices.tolist() == expected


def test_a_nan_response_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        TopImages(2).update(torch.tensor([[torch.nan]]), torch.tensor([0]))
    with pytest.raises(ValueError, match="at least one image"):
        _ = TopImages(2).indices


def test_purity_and_entropy_in_closed_form() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    top = torch.tensor([[0, 1, 2, 3], [0, 1, 4, 5], [0, 4, 6, 7]])
    assert label_purity(labels, top).tolist() == [1.0, 0.5, 0.5]
    assert label_entropy(labels, top).tolist() == pytest.approx([0.0, 1.0, 1.5])


def test_similarity_is_the_mean_cosine_of_all_pairs() -> None:
    torch.manual_seed(0)
    rows = unit_rows(torch.rand(20, 1, 3, 3))
    top = torch.stack([torch.randperm(20)[:5] for _ in range(4)])
    for found, chosen in zip(similarity(rows, top), top, strict=True):
        pairs = [float(rows[i] @ rows[j]) for i, j in itertools.combinations(chosen.tolist(), 2)]
        assert float(found) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_moments_are_scipys_even_far_from_zero() -> None:
    torch.manual_seed(0)
    responses = torch.empty(3000, 4).exponential_() * torch.tensor([1.0, 2, 3, 0]) + torch.tensor([0.0, 300, -50, 7])
    labels = torch.randint(0, 3, (3000,))
    responses[labels == 1, 0] += 2
    sums = RunningMoments(4)  # a class that no image has
    for rows, theirs in zip(responses.split(700), labels.split(700), strict=True):
        sums.update(rows, theirs)
    found = sums.finish()
    expected = torch.from_numpy(stats.kurtosis(responses[:, :3].double().numpy()))
    torch.testing.assert_close(found.kurtosis[:3], expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found.std[:3], responses[:, :3].double().std(0, correction=0))
    means = torch.stack([responses[labels == c, 0].double().mean() for c in range(3)])
    assert int(found.best_class[0]) == 1
    expected = (means[1] - means[[0, 2]].mean()) / responses[:, 0].double().std(correction=0)
    torch.testing.assert_close(found.selectivity[0], expected)
    assert bool(found.kurtosis[3].isnan()) and bool(found.selectivity[3].isnan())  # constant responses


def test_selectivity_and_kurtosis_do_not_change_with_offset_or_scale() -> None:
    torch.manual_seed(0)
    responses, labels = torch.randn(500, 3), torch.randint(0, 5, (500,))
    plain, moved = RunningMoments(5), RunningMoments(5)
    plain.update(responses, labels)
    moved.update(responses * 4 - 9, labels)
    torch.testing.assert_close(plain.finish().selectivity, moved.finish().selectivity, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.finish().kurtosis, moved.finish().kurtosis, atol=1e-5, rtol=1e-5)
