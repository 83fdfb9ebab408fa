"""Numbers that no float holds are refused, wherever they stand; what only looks like one is not."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosell_rmq.codec import decode
from autosell_rmq.exceptions import DecodeError


@pytest.mark.parametrize(
    "number",
    ["1e999", "-1E999", "1e+400", "9.9E+309", "1.5e0309", "1" + "0" * 400 + ".0", "12e00400", "1e10000"],
)
def test_too_large_for_a_float(number: str) -> None:
    for body in (number, f'{{"a": [1, {number}]}}'):
        with pytest.raises(DecodeError):
            decode(body.encode())


@pytest.mark.parametrize("number", ["1e308", "1e-999", "1E+10", "5e-324", "7" * 210, "0e999", "1e000"])
def test_not_too_large(number: str) -> None:
    assert decode(number.encode()) == json.loads(number)


def test_text_is_no_number() -> None:
    text = {"a": "1e999 and " + "1" * 300, "e999": "Infinity"}
    assert decode(json.dumps(text).encode()) == text


def too_large(number: str) -> bool:
    return any(mark in number for mark in ".eE") and math.isinf(float(number))


@given(
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,320})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,5})?\Z"),
)
def test_every_number_as_python_judges_it(number: str) -> None:
    if too_large(number):
        with pytest.raises(DecodeError):
            decode(number.encode())
    else:
        assert decode(number.encode()) == json.loads(number)
