"""What becomes of a value where another type is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from asyncworker.mapreduce.conversion import CONVERSIONS, ConversionError

NO = object()
WANTED = ["int_", "float_", "number_", "bool_", "str_"]


@pytest.mark.parametrize(
    ("value", *WANTED),
    [
        (12, 12, 12.0, 12, NO, "12"),
        ("12", 12, 12.0, 12, NO, "12"),
        (12.0, 12, 12.0, 12.0, NO, "12.0"),
        ("12.0", 12, 12.0, 12.0, NO, "12.0"),
        ("-3.5", NO, -3.5, -3.5, NO, "-3.5"),
        (12.5, NO, 12.5, 12.5, NO, "12.5"),
        (1, 1, 1.0, 1, True, "1"),
        ("0", 0, 0.0, 0, False, "0"),
        (True, NO, NO, NO, True, "true"),
        ("true", NO, NO, NO, True, "true"),
        ("False", NO, NO, NO, False, "False"),
        ("FALSE", NO, NO, NO, False, "FALSE"),
        ("yes", NO, NO, NO, NO, "yes"),
        ("1_000", NO, NO, NO, NO, "1_000"),
        ("nan", NO, NO, NO, NO, "nan"),
        (" 1", NO, NO, NO, NO, " 1"),
        (float("inf"), NO, NO, NO, NO, "inf"),
        (2**63, NO, 2.0**63, 2**63, NO, str(2**63)),
        ([1], NO, NO, NO, NO, NO),
        ({"a": 1}, NO, NO, NO, NO, NO),
    ],
)
def test_s17_conversions_are_read_in_full_or_refused(
    value: Any, int_: Any, float_: Any, number_: Any, bool_: Any, str_: Any
) -> None:
    for name, wanted in zip(WANTED, (int_, float_, number_, bool_, str_), strict=True):
        convert = CONVERSIONS[name.removesuffix("_")]
        if wanted is NO:
            with pytest.raises(ConversionError) as caught:
                convert(value)
            assert repr(value) not in str(caught.value).replace("nan or infinity", "")
        else:
            found = convert(value)
            assert (type(found), found) == (type(wanted), wanted)
