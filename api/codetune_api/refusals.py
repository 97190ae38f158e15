"""What an API server says when it refuses an object, as a person should read it. Pure."""

import re
from collections.abc import Mapping
from typing import Any

_UNCHECKED = re.compile(
    r', <nil>: Invalid value: "?null"?: some validation rules were not checked because the object was invalid; '
    r"correct the existing errors to complete validation"
)
"""Added to what is wrong wherever rules of the kind could not be looked at for it; it names no field and no mistake."""
_ONE = re.compile(r" is invalid: \[(.*)\]$", re.DOTALL)


def say_refusal(status: Mapping[str, Any]) -> str:
    """The message of a metav1.Status without the note that some rules were not looked at; empty when it has none."""
    message = str(status.get("message") or "")
    told = _UNCHECKED.sub("", message)
    if told == message:
        return message
    causes = (status.get("details") or {}).get("causes") or []
    return _ONE.sub(r" is invalid: \1", told) if len(causes) == 2 else told
