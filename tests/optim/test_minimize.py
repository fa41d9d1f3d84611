"""minimize_box against closed forms and SciPy's L-BFGS-B."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen, rosen_der

from intriguing.optim import Status, minimize_box


def quadratics(num_rows: int, n: int, dtype: torch.dtype = torch.float64, seed: int = 0):
    """Convex quadratics with condition numbers of some hundreds, one per row."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(num_rows, n, n, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT / n + 0.01 * torch.eye(n, dtype=torch.float64)
    linear = 2 * torch.randn(num_rows, n, generator=generator, dtype=torch.float64)
    return matrix.to(dtype), linear.to(dtype)


def value_of(matrix: torch.Tensor, linear: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.einsum("ni,nij,nj->n", x, matrix, x) - (linear * x).sum(dim=1)


def test_a_separable_quadratic_ends_at_the_clamped_minimum():
    centre = torch.tensor([[-1.0, 0.3, 2.0], [0.5, 9.0, -4.0]], dtype=torch.float64)
    result = minimize_box(
        lambda x: ((x - centre) ** 2 * torch.tensor([1.0, 10.0, 100.0])).sum(dim=1),
        torch.full((2, 3), 0.5, dtype=torch.float64),
        lower=0.0,
        upper=1.0,
        gradient_tolerance=1e-9,
        value_tolerance=0.0,
    )
    assert result.converged.all()
    torch.testing.assert_close(result.x, centre.clamp(0, 1), rtol=0, atol=1e-8)


def test_without_bounds_a_quadratic_ends_at_its_solution():
    matrix, linear = quadratics(5, 12)
    result = minimize_box(
        lambda x: value_of(matrix, linear, x),
        torch.zeros(5, 12, dtype=torch.float64),
        lower=-torch.inf,
        upper=torch.inf,
        gradient_tolerance=1e-9,
        value_tolerance=0.0,
    )
    torch.testing.assert_close(result.x, torch.linalg.solve(matrix, linear), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dtype", "gap"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_box_quadratics_match_scipy(dtype, gap):
    matrix, linear = quadratics(8, 40)
    result = minimize_box(
        lambda x: value_of(matrix.to(dtype), linear.to(dtype), x),
        torch.full((8, 40), 0.5, dtype=dtype),
        lower=0.0,
        upper=1.0,
        value_tolerance=0.0,
        gradient_tolerance=1e-7,
    )
    assert result.x.dtype == dtype
    assert ((result.x == 0) | (result.x == 1)).any(dim=1).all()  # some bounds are active
    for row in range(8):
        q, b = matrix[row].numpy(), linear[row].numpy()
        reference = minimize(
            lambda x, q=q, b=b: (0.5 * x @ q @ x - b @ x, q @ x - b),
            np.full(40, 0.5),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0, 1)] * 40,
            options={"ftol": 1e-15, "gtol": 1e-8},
        )
        found = value_of(matrix[row : row + 1], linear[row : row + 1], result.x[row : row + 1].double())
        assert abs(float(found) - reference.fun) < gap


@pytest.mark.parametrize("upper", [2.0, 0.8])
def test_rosenbrock_matches_scipy(upper):
    x0 = torch.rand(6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.7
    result = minimize_box(
        lambda x: (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(dim=1),
        x0,
        lower=-2.0,
        upper=upper,
        gradient_tolerance=1e-7,
        value_tolerance=0.0,
    )
    for row in range(6):
        reference = minimize(
            rosen,
            x0[row].numpy(),
            jac=rosen_der,
            method="L-BFGS-B",
            bounds=[(-2, upper)] * 10,
            options={"ftol": 1e-15, "gtol": 1e-8},
        )
        assert abs(float(result.value[row]) - reference.fun) < 1e-8
        assert int(result.num_evaluations[row]) < 3 * reference.nfev


def test_converged_rows_are_no_longer_evaluated():
    scale = torch.tensor([1.0, 1.0, 1.0, 1000.0], dtype=torch.float64)
    spread = torch.logspace(0, 1, 20, dtype=torch.float64)
    batches = []

    def fun(x, rows):
        batches.append(len(rows))
        stretched = torch.where(scale[rows, None] > 1, spread**2, 1.0)
        return (stretched * (x - 0.3) ** 2).sum(dim=1)

    result = minimize_box(fun, torch.zeros(4, 20, dtype=torch.float64), lower=0.0, upper=1.0, value_tolerance=0.0)
    assert result.converged.all()
    assert batches[0] == 4
    assert batches[-1] == 1
    assert int(result.num_evaluations[3]) > 2 * int(result.num_evaluations[0])


def test_a_function_without_rows_always_receives_all_rows():
    matrix, linear = quadratics(4, 10)
    shapes = set()

    def fun(x):
        shapes.add(tuple(x.shape))
        return value_of(matrix, linear, x)

    result = minimize_box(fun, torch.zeros(4, 10, dtype=torch.float64), lower=0.0, upper=1.0)
    assert shapes == {(4, 10)}
    same = minimize_box(
        lambda x, rows: value_of(matrix[rows], linear[rows], x),
        torch.zeros(4, 10, dtype=torch.float64),
        lower=0.0,
        upper=1.0,
    )
    torch.testing.assert_close(result.x, same.x)


def test_fun_may_return_its_gradient():
    matrix, linear = quadratics(3, 10)

    def fun(x):
        return value_of(matrix, linear, x).detach(), (matrix @ x[:, :, None]).squeeze(2).detach() - linear

    x0 = torch.zeros(3, 10, dtype=torch.float64)
    both = minimize_box(fun, x0, lower=0.0, upper=1.0)
    alone = minimize_box(lambda x: value_of(matrix, linear, x), x0, lower=0.0, upper=1.0)
    torch.testing.assert_close(both.x, alone.x)


def test_statuses():
    x0 = torch.full((2, 3), 0.5, dtype=torch.float64)

    def status(fun, **settings):
        return minimize_box(fun, x0, lower=0.0, upper=1.0, **settings).status.tolist()

    assert status(lambda x: (x**2).sum(dim=1) * 0) == [Status.GRADIENT] * 2
    assert status(lambda x: (x - 0.2).abs().pow(1.5).sum(dim=1), max_iter=1) == [Status.MAX_ITER] * 2
    assert status(lambda x: x.sum(dim=1) * torch.tensor([1.0, torch.nan])) == [Status.GRADIENT, Status.NON_FINITE]
    assert (
        status(lambda x: ((x**2).sum(dim=1), -x)) == [Status.STALLED] * 2
    )  # not the gradient of f: no step decreases f


def test_a_step_into_a_region_where_fun_is_not_finite_is_shortened():
    result = minimize_box(
        lambda x: (x - torch.log(x)).sum(dim=1), torch.full((1, 4), 3.0, dtype=torch.float64), lower=-5.0, upper=5.0
    )
    torch.testing.assert_close(result.x, torch.ones(1, 4, dtype=torch.float64), atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), n=st.integers(1, 12), history_size=st.integers(1, 6))
def test_the_box_is_never_left_and_first_order_conditions_hold(seed, n, history_size):
    matrix, linear = quadratics(3, n, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    lower = torch.rand(3, n, generator=generator, dtype=torch.float64) - 1
    upper = lower + torch.rand(3, n, generator=generator, dtype=torch.float64)

    def fun(x, rows):
        assert (x >= lower[rows]).all()
        assert (x <= upper[rows]).all()
        return value_of(matrix[rows], linear[rows], x)

    x0 = torch.randn(3, n, generator=generator, dtype=torch.float64)
    result = minimize_box(
        fun, x0, lower=lower, upper=upper, history_size=history_size, gradient_tolerance=1e-6, value_tolerance=0.0
    )
    gradient = (matrix @ result.x[:, :, None]).squeeze(2) - linear
    moved = result.x - (result.x - gradient).clamp(lower, upper)
    assert moved.abs().max() < 1e-5


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), row=st.integers(0, 5))
def test_a_row_does_not_depend_on_its_neighbours(seed, row):
    matrix, linear = quadratics(6, 8, seed=seed)
    x0 = torch.zeros(6, 8, dtype=torch.float64)
    together = minimize_box(lambda x: value_of(matrix, linear, x), x0, lower=0.0, upper=1.0)
    one = slice(row, row + 1)
    alone = minimize_box(lambda x: value_of(matrix[one], linear[one], x), x0[one], lower=0.0, upper=1.0)
    torch.testing.assert_close(together.x[one], alone.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings_", "error", "message"),
    [
        ({"x0": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "floating-point"),
        ({"x0": torch.zeros(3)}, ValueError, r"shape \(N, n\)"),
        ({"lower": 2.0}, ValueError, "lower <= upper"),
        ({"max_iter": -1}, ValueError, "max_iter"),
        ({"history_size": 0}, ValueError, "history_size"),
        ({"fun": lambda x: x.sum()}, ValueError, "one value per row"),
        ({"fun": lambda x: (x.sum(dim=1), x[:, :1])}, ValueError, "gradient of shape"),
    ],
)
def test_wrong_calls_are_refused(settings_, error, message):
    arguments = {"fun": lambda x: x.sum(dim=1), "x0": torch.zeros(2, 3), "lower": 0.0, "upper": 1.0} | settings_
    fun, x0 = arguments.pop("fun"), arguments.pop("x0")
    with pytest.raises(error, match=message):
        minimize_box(fun, x0, **arguments)
