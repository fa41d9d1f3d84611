"""minimize_box on badly scaled, singular and invalid functions and arguments."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from intriguing.optim import ProjectedLbfgs, Status, minimize_box

BOX: dict[str, Any] = {"lower": 0.0, "upper": 1.0}


def bowl(x):
    """Its minimum is 0.3 in every variable."""
    return ((x - 0.3) ** 2).sum(dim=1)


def start(n_rows=2, n=4, dtype=torch.float32):
    return torch.ones(n_rows, n, dtype=dtype)


# Scales


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 10.0**k) for k in (10, 15, 19, 25, 37)] + [(torch.float64, 10.0**k) for k in (100, 154, 200, 300)],
)
def test_a_function_of_any_large_scale_reaches_its_minimum(dtype, scale):
    result = minimize_box(lambda x: scale * bowl(x), start(dtype=dtype), **BOX)
    torch.testing.assert_close(result.x, torch.full_like(result.x, 0.3))


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e-30), (torch.float64, 1e-200)])
def test_a_small_scale_meets_the_tolerances_at_once_and_without_them_the_minimum_is_found(dtype, scale):
    def fun(x):
        return scale * bowl(x)

    at_once = minimize_box(fun, start(dtype=dtype), **BOX)
    assert at_once.status.tolist() == [Status.GRADIENT] * 2
    assert (at_once.num_iterations == 0).all()
    result = minimize_box(fun, start(dtype=dtype), **BOX, gradient_tolerance=0, value_tolerance=0, max_iter=1)
    assert (result.value < at_once.value).all()


def test_rows_of_different_scales_are_solved_together_as_alone():
    scale = torch.logspace(-4, 36, 11)
    result = minimize_box(lambda x: scale * bowl(x), start(11), **BOX)
    torch.testing.assert_close(result.x, torch.full_like(result.x, 0.3), rtol=0, atol=2e-3)
    torch.testing.assert_close(result.value, scale * bowl(result.x))


def test_variables_of_different_scales_are_all_moved():
    size = torch.tensor([1e30, 1.0, 1e10])
    result = minimize_box(lambda x: (size * (x - 0.3) ** 2).sum(dim=1), start(1, 3) / 2, **BOX)
    torch.testing.assert_close(result.x, torch.full((1, 3), 0.3))


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 1e8), (torch.float32, 1e18), (torch.float64, 1e18)])
def test_a_start_so_far_away_that_rounding_swallows_a_step_of_length_1_is_left(dtype, far):
    result = minimize_box(lambda x: ((x - 3) ** 2).sum(dim=1), far * start(dtype=dtype), lower=-math.inf, upper=2 * far)
    torch.testing.assert_close(result.x, torch.full_like(result.x, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_that_is_not_that_of_the_function_does_not_converge(dtype):
    result = minimize_box(lambda x: ((x**2).sum(dim=1), -x), start(dtype=dtype) / 2, **BOX)
    assert result.status.tolist() == [Status.STALLED] * 2


# Infinite and nan slopes


def brute_force(fun, num=200001, upper=1.0):
    """The least value of a function of one variable on a grid."""
    grid = torch.linspace(0, upper, num, dtype=torch.float64)
    return float(fun(grid).min())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("first", [0.0, 0.2])
def test_a_variable_held_by_an_infinite_slope_does_not_stop_the_others(dtype, first):
    def fun(x):
        return x.sqrt().sum(dim=1) + (x[:, 0] - 1) ** 2 + 0.1 * (x - 1).square().sum(dim=1)

    x0 = torch.tensor([[0.2, first, first]], dtype=dtype)
    result = minimize_box(fun, x0, lower=0, upper=9)
    assert result.converged.all()
    assert result.x[0, 1:].tolist() == [0, 0]
    assert (result.gradient[0, 1:] == math.inf).all()
    best = brute_force(lambda z: z.sqrt() + 1.1 * (z - 1) ** 2)
    assert abs(float(result.value) - min(best, 1.1) - 0.2) < 1e-5


def test_an_infinite_slope_that_points_into_the_box_is_followed():
    result = minimize_box(lambda x: (x.sqrt() - 0.5).square().sum(dim=1), torch.zeros(2, 3), **BOX)
    assert result.converged.all()
    torch.testing.assert_close(result.x, torch.full((2, 3), 0.25), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_an_entry_that_is_never_finite_is_masked_and_reported(bad):
    def fun(x):
        gradient = 2 * (x - 0.3)
        gradient[:, 0] = bad
        return bowl(x), gradient

    result = minimize_box(fun, start() / 2, **BOX)
    assert result.status.tolist() == [Status.NON_FINITE] * 2
    torch.testing.assert_close(result.x[:, 1:], torch.full((2, 3), 0.3), rtol=0, atol=1e-4)
    torch.testing.assert_close(result.gradient[:, 0], torch.full((2,), bad), equal_nan=True)


def test_a_norm_at_its_zero_does_not_stop_the_other_variables():
    def fun(x):  # the slope of the first part is nan at 0, where it is least
        return x[:, :2].square().sum(dim=1) ** 0.5 + (x[:, 2:] - 0.7).square().sum(dim=1)

    result = minimize_box(fun, torch.zeros(1, 4, dtype=torch.float64), **BOX)
    torch.testing.assert_close(result.x, torch.tensor([[0, 0, 0.7, 0.7]], dtype=torch.float64), rtol=0, atol=1e-5)
    assert result.status.tolist() == [Status.NON_FINITE]  # it is unknown whether a step away from 0 would help


def test_rows_with_bad_slopes_do_not_change_their_neighbours():
    def fun(x, rows):
        value, gradient = bowl(x), 2 * (x - 0.3)
        gradient[rows == 1, 0] = math.nan
        gradient[rows == 2] = math.nan
        return value, gradient

    x0 = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = minimize_box(fun, x0, **BOX)
    assert result.status[[1, 2]].tolist() == [Status.NON_FINITE] * 2
    alone = minimize_box(lambda x: (bowl(x), 2 * (x - 0.3)), x0[[0, 3]], **BOX)
    torch.testing.assert_close(result.x[[0, 3]], alone.x)
    torch.testing.assert_close(result.x[2], x0[2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_value_rejects_a_trial_and_stops_a_start(value):
    def fun(x):
        return torch.where(x[:, 0] < 0.25, value, bowl(x))

    assert minimize_box(fun, torch.zeros(1, 2), **BOX).status.tolist() == [Status.NON_FINITE]
    result = minimize_box(fun, start(1, 2), **BOX)
    torch.testing.assert_close(result.x, torch.full((1, 2), 0.3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("x0", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_a_failed_row(x0):
    points = torch.tensor([[x0, 0.5], [0.5, 0.5]])
    result = minimize_box(bowl, points, lower=-math.inf, upper=math.inf)
    assert result.status[0] == Status.NON_FINITE
    assert result.converged[1]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), power=st.sampled_from([0.3, 0.5, 0.8]))
def test_functions_with_infinite_slopes_end_at_local_minima(seed, n, power):
    """The slope of w x^p + (x - c)^2 at 0 is inf for w > 0, a local minimum, and -inf for w < 0, which is none."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(n, generator=generator, dtype=torch.float64) - 0.5
    centre = torch.rand(n, generator=generator, dtype=torch.float64)

    def fun(x):
        return (weights * x**power + (x - centre) ** 2).sum(dim=1)

    x0 = torch.rand(3, n, generator=generator, dtype=torch.float64)
    x0[0, : (n + 1) // 2] = 0
    result = minimize_box(fun, x0, **BOX, gradient_tolerance=1e-7, value_tolerance=0)
    assert (result.value <= fun(x0)).all()
    assert result.converged.all()
    slope = weights * power * result.x ** (power - 1) + 2 * (result.x - centre)
    torch.testing.assert_close(result.gradient, slope)
    ends = ((result.x == 0) & (slope > 0)) | ((result.x == 1) & (slope < 0))
    assert (ends | (slope.abs() < 1e-4)).all()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), power=st.sampled_from([0.3, 0.5, 0.8]))
def test_convex_functions_with_infinite_slopes_match_scipy(seed, n, power):
    generator = torch.Generator().manual_seed(seed)
    weights = -torch.rand(n, generator=generator, dtype=torch.float64)
    centre = torch.rand(n, generator=generator, dtype=torch.float64)

    def fun(x):
        return (weights * x**power + (x - centre) ** 2).sum(dim=1)

    result = minimize_box(fun, torch.zeros(1, n, dtype=torch.float64), **BOX, gradient_tolerance=1e-7)
    reference = minimize(
        lambda x: (
            float(fun(torch.from_numpy(x)[None])),
            (weights * power * torch.from_numpy(x) ** (power - 1)).numpy() + 2 * (x - centre.numpy()),
        ),
        np.full(n, 0.5),
        jac=True,
        method="L-BFGS-B",
        bounds=[(1e-12, 1)] * n,
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    assert abs(float(result.value) - reference.fun) < 1e-7


# Bounds and arrays


@settings(deadline=None, max_examples=30)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_bounds_of_every_kind_give_the_clamped_minimum(data, dtype):
    centre = torch.tensor([[-2.0, 0.25, 3.0, 0.5], [0.5, -1.0, 0.0, 9.0]], dtype=dtype)

    def bound(name, numbers):
        number = data.draw(st.sampled_from(numbers), label=name)
        shape = data.draw(st.sampled_from([None, (1,), (4,), (2, 1), (2, 4), (1, 4)]), label=name)
        if shape is None:
            return number
        array = np.full(shape, number)
        kind = data.draw(st.sampled_from(["tensor", "float64", "array", "list"]), label=name)
        if kind in {"array", "list"}:
            return array if kind == "array" else array.tolist()
        return torch.tensor(array).to(dtype if kind == "tensor" else torch.float64)

    lower = bound("lower", [0, -1.5, -math.inf, 0.25])
    upper = bound("upper", [1, 0.75, math.inf, 4.0])
    result = minimize_box(
        lambda x: ((x - centre) ** 2).sum(dim=1), torch.zeros(2, 4, dtype=dtype), lower=lower, upper=upper
    )
    low, high = (torch.as_tensor(one, dtype=dtype).expand(2, 4) for one in (lower, upper))
    assert ((result.x >= low) & (result.x <= high)).all()
    torch.testing.assert_close(result.x, centre.clamp(low, high), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("x0", "dtype"),
    [
        (np.ones((2, 3)), torch.float64),
        (np.ones((2, 3), np.float32), torch.float32),
        (np.ones((2, 3), ">f8"), torch.float64),
        (np.ones((3, 2)).T, torch.float64),
        ([[1.0, 1, 1], [1, 1, 1]], torch.float32),
        ([[1, 1, 1], (1, 1, 1)], torch.float32),
    ],
)
def test_arrays_and_lists_are_starting_points(x0, dtype):
    result = minimize_box(bowl, x0, **BOX)
    assert result.x.dtype == result.value.dtype == dtype
    torch.testing.assert_close(result.x, torch.full((2, 3), 0.3, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_points_are_worked_on_in_float32(dtype):
    seen = set()

    def fun(x):
        seen.add(x.dtype)
        return bowl(x)

    result = minimize_box(fun, start(dtype=dtype), **BOX)
    assert seen == {dtype}
    assert result.x.dtype == dtype
    assert result.value.dtype == result.gradient.dtype == torch.float32
    torch.testing.assert_close(result.x, torch.full_like(result.x, 0.3))


@pytest.mark.parametrize(
    ("x0", "answer", "finer"),
    [
        (torch.float32, torch.float64, torch.float64),
        (torch.float64, torch.float32, torch.float64),
        (torch.float32, torch.float16, torch.float32),
        (torch.bfloat16, torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("arrays", [False, True])
def test_values_of_another_dtype_than_x0_are_used_in_the_finer(x0, answer, finer, arrays):
    def fun(x):
        x = x.to(torch.float64)
        value, gradient = bowl(x).to(answer), (2 * (x - 0.3)).to(answer)
        return (value.detach().numpy(), gradient.detach().numpy()) if arrays else value

    result = minimize_box(fun, start(dtype=x0), **BOX)
    assert result.x.dtype == x0
    assert result.value.dtype == result.gradient.dtype == finer
    assert result.converged.all()
    torch.testing.assert_close(result.x, torch.full_like(result.x, 0.3), rtol=0, atol=2e-2)


@pytest.mark.parametrize(("n_rows", "n"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("fun", [bowl, lambda x: torch.zeros(len(x)), lambda x, rows: bowl(x)])
def test_no_rows_and_no_variables_are_solved(n_rows, n, fun):
    result = minimize_box(fun, torch.zeros(n_rows, n), **BOX)
    assert result.x.shape == result.gradient.shape == (n_rows, n)
    assert result.status.tolist() == [Status.GRADIENT] * n_rows
    assert result.value.tolist() == [0] * n_rows


# What fun may do


def buffered(x, value=torch.zeros(2), gradient=torch.zeros(2, 4)):  # noqa: B008 - the same tensors at every call
    value.copy_(bowl(x.detach()))
    gradient.copy_(2 * (x.detach() - 0.3))
    return value, gradient


def buffered_rows(x, rows, value=torch.zeros(2), gradient=torch.zeros(2, 4)):  # noqa: B008
    value[: len(x)] = bowl(x.detach())
    gradient[: len(x)] = 2 * (x.detach() - 0.3)
    rows.zero_()
    return value[: len(x)], gradient[: len(x)]


def in_place(x):
    x.sub_(0.3)
    return x.square_().sum(dim=1)


def in_place_rows(x, rows):
    x -= 0.3
    return (x**2).sum(dim=1)


def in_place_without_gradient(x):
    with torch.no_grad():
        x.sub_(0.3)
        return (x * x).sum(dim=1), x.mul_(2)


def own_backward(x):
    value = bowl(x)
    value.sum().backward()
    return value.detach(), x.grad


def expanded(x, rows):
    """A function with a gradient that autograd stores as one number per row (an expanded tensor)."""
    return (x.sum(dim=1) - 1.2).square()


def listed(x):
    return [bowl(x).detach().numpy(), (2 * (x - 0.3)).detach().numpy()]


FUNCTIONS = [
    buffered,
    buffered_rows,
    in_place,
    in_place_rows,
    in_place_without_gradient,
    own_backward,
    expanded,
    listed,
]


@pytest.mark.parametrize("fun", FUNCTIONS, ids=lambda fun: fun.__name__)
def test_functions_that_reuse_or_write_to_tensors_are_minimised(fun):
    x0 = torch.tensor([[1.0, 0.0, 0.5, 0.3], [0.9, 0.8, 0.7, 0.0]])
    result = minimize_box(fun, x0, **BOX)
    assert result.converged.all()
    if fun is expanded:
        torch.testing.assert_close(result.x.sum(dim=1), torch.full((2,), 1.2), rtol=0, atol=1e-4)
    else:
        torch.testing.assert_close(result.x, torch.full((2, 4), 0.3), rtol=0, atol=1e-4)


CONTEXTS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "grad disabled": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("context", CONTEXTS)
def test_results_do_not_depend_on_the_context(context):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 3)

    def fun(x):
        with torch.autocast("cpu", enabled=False):  # for the forward pass only
            return layer(x).square().sum(dim=1)

    plain = minimize_box(fun, start(), **BOX)
    with CONTEXTS[context]():
        x0 = start()
        result = minimize_box(fun, x0, lower=torch.zeros(4), upper=1)
    assert torch.equal(result.x, plain.x)
    assert not result.x.is_inference()
    assert layer.weight.grad is None


@pytest.mark.parametrize("kind", ["plain", "view", "expanded", "inference", "requires_grad", "memory map"])
def test_arguments_are_not_written_to(kind, tmp_path):
    def make(number):
        if kind == "memory map":
            np.save(tmp_path / f"{number}.npy", np.full((2, 4), number, np.float32))
            return np.load(tmp_path / f"{number}.npy", mmap_mode="r")
        if kind == "inference":
            with torch.inference_mode():
                return torch.full((2, 4), number)
        tensor = torch.full((4, 4), number)
        views = {"view": tensor[::2], "expanded": torch.full((1, 4), number).expand(2, 4)}
        return views.get(kind, torch.full((2, 4), number)).requires_grad_(kind == "requires_grad")

    arguments = [make(number) for number in (2.0, 0.0, 1.0)]
    tensors = [one for one in arguments if isinstance(one, torch.Tensor) and not one.is_inference()]
    before = [one._version for one in tensors], [np.array(one.tolist()) for one in arguments]
    result = minimize_box(bowl, arguments[0], lower=arguments[1], upper=arguments[2])
    assert [one._version for one in tensors] == before[0]
    for one, was in zip(arguments, before[1], strict=True):
        np.testing.assert_array_equal(np.array(one.tolist()), was)
    assert not result.x.requires_grad
    result.x.fill_(9)  # shares nothing with an argument
    np.testing.assert_array_equal(np.array(arguments[0].tolist()), before[1][0])


def test_a_start_that_is_the_solution_is_returned_as_a_copy():
    x0 = torch.full((1, 2), 0.5)
    result = minimize_box(lambda x: ((x - 0.5) ** 2).sum(dim=1), x0, **BOX)
    result.x.zero_()
    assert (x0 == 0.5).all()


def test_a_state_does_not_modify_its_arguments():
    x, centre = start(2, 3), torch.full((2, 3), 0.5)
    value, gradient, ridge = bowl(x), 2 * (x - 0.3), torch.tensor([1.0, 2.0])
    arguments = (x, centre, value, gradient, ridge)
    versions = [one._version for one in arguments]
    state = ProjectedLbfgs.start(x, value, gradient, lower=0.0, upper=1.0, history_size=3, ridge=ridge)
    state.change_ridge(torch.tensor([0]), torch.tensor([5.0]), centre[:1])
    for _ in range(3):
        trial = state.trial()
        state.update(trial, bowl(trial), 2 * (trial - 0.3))
    assert [one._version for one in arguments] == versions


def test_a_row_that_is_moved_continues_as_one_that_starts_there():
    x, there = start(2, 3), torch.tensor([[1.0, 0.6, 0.0]])
    fresh = ProjectedLbfgs.start(
        there, bowl(there), 2 * (there - 0.3), lower=0.0, upper=1.0, history_size=3, initial_length=0.2
    )
    state = ProjectedLbfgs.start(x, bowl(x), 2 * (x - 0.3), lower=0.0, upper=1.0, history_size=3, initial_length=0.2)
    before, other = x.clone(), state.trial()[0]
    state.move(torch.tensor([1]), there, bowl(there), 2 * (there - 0.3))
    assert torch.equal(x, before)
    for name in ("x", "value", "gradient", "free", "free_gradient", "free_norm"):
        assert torch.equal(getattr(state, name)[1:], getattr(fresh, name)), name
    trial = state.trial()
    assert torch.equal(trial[0], other)
    torch.testing.assert_close(trial[1:], fresh.trial())


def test_an_infinite_slope_outlasts_a_change_of_the_quadratic_part():
    x = torch.tensor([[0.0, 0.5]])
    gradient = torch.tensor([[math.inf, 1.0]])
    state = ProjectedLbfgs.start(x, torch.ones(1), gradient, lower=0.0, upper=1.0, history_size=3)
    state.change_ridge(torch.tensor([0]), torch.tensor([100.0]), torch.full((1, 2), 0.9))  # pulls upwards
    assert state.free.tolist() == [[0, 1]]
    assert state.free_norm.isfinite().all()
    assert (state.trial()[:, 0] == 0).all()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_iter": 2.5}, ValueError, "expected max_iter as a whole number >= 0, got 2.5"),
        ({"max_iter": "5"}, TypeError, "expected max_iter as a whole number >= 0, got '5'"),
        ({"max_iter": True}, TypeError, "expected max_iter as a whole number >= 0, got True"),
        ({"max_iter": math.nan}, ValueError, "expected max_iter"),
        ({"history_size": 0}, ValueError, "expected history_size as a whole number >= 1, got 0"),
        ({"gradient_tolerance": math.nan}, ValueError, "expected gradient_tolerance as a finite number >= 0, got nan"),
        ({"value_tolerance": -1}, ValueError, "expected value_tolerance"),
        ({"initial_length": 0.0}, ValueError, "expected initial_length as a finite number > 0, got 0.0"),
        ({"initial_length": math.inf}, ValueError, "expected initial_length"),
        ({"lower": math.nan}, ValueError, "expected lower without nan"),
        ({"upper": torch.tensor([1, math.nan, 1, 1])}, ValueError, "expected upper without nan"),
        ({"lower": [2, 0, 0, 0]}, ValueError, "expected lower <= upper"),
        ({"lower": torch.zeros(3)}, ValueError, r"broadcasts to \(2, 4\), got shape \(3,\)"),
        ({"upper": torch.ones(3, 2, 4)}, ValueError, r"broadcasts to \(2, 4\), got shape \(3, 2, 4\)"),
        ({"lower": "0"}, TypeError, "expected lower as real numbers .* got a value of type str"),
        ({"upper": None}, TypeError, "expected upper as real numbers .* got a value of type NoneType"),
        ({"upper": True}, TypeError, "expected upper as real numbers"),
        ({"upper": [[1, 2], [3]]}, ValueError, "expected upper as lists of equal lengths"),
        ({"lower": math.inf, "upper": math.inf}, ValueError, "without a finite point"),
        ({"x0": torch.zeros(2, 4, dtype=torch.complex64)}, TypeError, "expected x0 as real numbers .*complex64"),
        ({"x0": np.zeros((2, 4), int)}, TypeError, "floating-point dtype"),
        ({"x0": np.zeros(4)}, ValueError, r"shape \(N, n\)"),
        ({"x0": "abc"}, TypeError, "expected x0 as real numbers"),
        ({"fun": 3}, TypeError, "expected fun as a function"),
        ({"fun": lambda x: bowl(x).detach()}, ValueError, "autograd follows"),
        ({"fun": lambda x: torch.zeros(2)}, ValueError, "autograd follows"),
        ({"fun": lambda x: torch.zeros(2, requires_grad=True) * 1}, ValueError, "autograd follows"),
        ({"fun": lambda x: bowl(x).detach().numpy()}, ValueError, "autograd follows"),
        ({"fun": lambda x: bowl(x)[:, None]}, ValueError, r"one value per row, shape \(2,\), got \(2, 1\)"),
        ({"fun": lambda x: bowl(x).sum()}, ValueError, r"one value per row, shape \(2,\), got \(\)"),
        ({"fun": lambda x: (bowl(x),)}, ValueError, "got 1 parts"),
        ({"fun": lambda x: (bowl(x), 2 * x, x)}, ValueError, "got 3 parts"),
        ({"fun": lambda x: (bowl(x), x[0])}, ValueError, r"a gradient of shape \(2, 4\), got \(4,\)"),
        (
            {"fun": lambda x: (bowl(x), None)},
            TypeError,
            "gradient as a tensor of real numbers, got a value of type None",
        ),
        ({"fun": lambda x: None}, TypeError, "value as a tensor of real numbers, got a value of type NoneType"),
        ({"fun": lambda x: 1.0}, TypeError, "value as a tensor of real numbers, got a value of type float"),
        ({"fun": lambda x: x.sum(dim=1) > 0}, TypeError, "got dtype torch.bool"),
        ({"fun": lambda x: x.sum(dim=1) * 1j}, TypeError, "got dtype torch.complex64"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(arguments, error, message):
    arguments = {"fun": bowl, "x0": start()} | BOX | arguments
    fun, x0 = arguments.pop("fun"), arguments.pop("x0")
    with pytest.raises(error, match=message) as caught:
        minimize_box(fun, x0, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [3, np.int64(3), 3.0, torch.tensor(3)])
def test_exact_settings_of_other_types_are_accepted(value):
    result = minimize_box(bowl, start(), **BOX, max_iter=value, history_size=value, initial_length=value)
    assert (result.num_iterations <= 3).all()
    torch.testing.assert_close(result.x, torch.full((2, 4), 0.3))
