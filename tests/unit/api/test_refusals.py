"""What a person reads of an API server's refusal."""

from typing import Any

import pytest
from codetune_api.refusals import say_refusal

NOTE = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
NOW, BEFORE = f"<nil>: Invalid value: null: {NOTE}", f'<nil>: Invalid value: "null": {NOTE}'


@pytest.mark.parametrize(
    ("expected", "message", "causes"),
    [
        pytest.param(
            'X "x" is invalid: a: Required value', f'X "x" is invalid: [a: Required value, {NOW}]', 2, id="one"
        ),
        pytest.param(
            'X "x" is invalid: a: Required value',
            f'X "x" is invalid: [a: Required value, {BEFORE}]',
            2,
            id="up to 1.32",
        ),
        pytest.param('X "x" is invalid: [a: 1, b: 2]', f'X "x" is invalid: [a: 1, b: 2, {NOW}]', 3, id="several"),
        pytest.param('X "x" is invalid: [a: 1, b: 2]', f'X "x" is invalid: [a: 1, {NOW}, b: 2]', 3, id="between them"),
        pytest.param('X "x" is invalid: [a: 1, b: 2]', 'X "x" is invalid: [a: 1, b: 2]', 2, id="without the note"),
        pytest.param('pods "x" not found', 'pods "x" not found', 0, id="another refusal"),
        pytest.param("", None, 0, id="no message"),
    ],
)
def test_the_note_on_rules_that_were_not_looked_at_is_left_out(expected: str, message: Any, causes: int) -> None:
    assert say_refusal({"message": message, "details": {"causes": [{}] * causes}}) == expected
