"""Settings are accepted where they are exact, and refused in one line otherwise."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from intriguing.errors import UserError
from intriguing.validation import import_pandas, real_number, refuse_unknown, whole_number

WHOLE = [5, 5.0, np.int8(5), np.uint64(5), np.float32(5), Fraction(5), np.array(5), torch.tensor(5), torch.tensor(5.0)]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_exact_whole_numbers_of_every_type_are_accepted(value):
    found = whole_number("max_iter", value, 0)
    assert found == 5
    assert type(found) is int
    assert real_number("length", value, 0) == 5.0
    assert type(real_number("length", value, 0)) is float


@given(st.integers())
def test_a_whole_number_is_returned_exactly_however_large(value):
    assert whole_number("value", value) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_whole_exactly_where_it_has_no_fraction(value):
    if value.is_integer():
        assert whole_number("value", value) == value
    else:
        with pytest.raises(ValueError, match="whole number"):
            whole_number("value", value)


NOT_NUMBERS = ["5", True, False, np.True_, None, 1j, [5], torch.tensor([5]), torch.tensor(True), np.zeros((3, 3)), b"5"]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=repr)
@pytest.mark.parametrize("check", [whole_number, real_number])
def test_what_is_not_a_number_is_refused_in_one_line(check, value):
    with pytest.raises(TypeError, match=r"^expected max_iter as a .* number >= 0, got ") as caught:
        check("max_iter", value, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float16("nan"), torch.tensor(math.nan), -1, -2.0])
@pytest.mark.parametrize("check", [whole_number, real_number])
def test_values_that_are_not_finite_or_out_of_range_are_refused(check, value):
    with pytest.raises(ValueError, match=r"^expected max_iter as a .* number >= 0, got "):
        check("max_iter", value, 0)


def test_messages_name_the_setting_the_range_and_the_value():
    for call, message in (
        (lambda: whole_number("max_iter", 2.5, 0), "expected max_iter as a whole number >= 0, got 2.5"),
        (lambda: whole_number("k", 9, 1, 4), "expected k as a whole number >= 1 and <= 4, got 9"),
        (lambda: whole_number("n", math.inf), "expected n as a whole number, got inf"),
        (lambda: real_number("c", 1, 1, open_low=True), "expected c as a finite number > 1, got 1"),
        (lambda: real_number("p", 1.0, 0, 1, open_high=True), "expected p as a finite number >= 0 and < 1, got 1.0"),
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
            call()
        assert str(caught.value) == message


def test_a_whole_number_beyond_every_float_is_not_a_real_setting():
    with pytest.raises(ValueError, match=r"finite number, got 1000000.*\.\.\."):
        real_number("c", 10**400)


@given(st.floats(0, 1))
def test_open_ends_are_refused_and_closed_ones_accepted(value):
    assert real_number("p", value, 0, 1) == value
    if 0 < value < 1:
        assert real_number("p", value, 0, 1, open_low=True, open_high=True) == value
    else:
        with pytest.raises(ValueError, match="> 0 and < 1"):
            real_number("p", value, 0, 1, open_low=True, open_high=True)


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    refuse_unknown("logger", {"mode": 1}, ("mode", "entity"))
    with pytest.raises(UserError, match=r"^logger\.entiti is read by nothing \(did you mean entity\?\)"):
        refuse_unknown("logger", ["mode", "entiti"], ("mode", "entity"))
    with pytest.raises(UserError, match=r"^foo is read by nothing; an attack has limit$"):
        refuse_unknown("", {"foo": 1}, iter(["limit"]), whole="an attack")


def test_without_pandas_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame needs pandas: pip install pandas$"):
        import_pandas()
