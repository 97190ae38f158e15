"""The base of all API models: camelCase on the wire, snake_case in Python, immutable values."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
"""A DNS label."""

FORM = "x-codetune-form"
"""In a model's schema: the sentence that a user reads when a text has not the form of its `pattern`."""
INT_OR_STRING = "x-kubernetes-int-or-string"


def _write_number(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(
        # Short: API servers reckon with its length times that of the text, and to older ones that may be 3 MiB here.
        pattern=r"^[0-9]+([.][0-9]+)?([mkMGTPE]|[KMGTPE]i)?$",
        max_length=32,
        json_schema_extra={
            INT_OR_STRING: True,
            FORM: "write a number that is not negative, with a unit right behind it (m, k, M, G, T, P, E, Ki, Mi, Gi, "
            "Ti, Pi, Ei) or none, as in 4, 500m or 16Gi",
        },
    ),
    BeforeValidator(_write_number),
]
"""A Kubernetes quantity, e.g. `2`, `500m`, `8Gi`; a whole number needs no quotes, as in a pod."""

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC, e.g. `2026-11-23T09:47:00Z`."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A content digest, e.g. `sha256:9f86…`."""


class ApiModel(BaseModel):
    """A value inside a Kubernetes object; fields that this version does not know are ignored on reading."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    @classmethod
    def from_wire(cls, data: Any) -> Self:
        """Parse what an API server returned. Raises: pydantic.ValidationError."""
        return cls.model_validate(data)

    def to_wire(self) -> dict[str, Any]:
        """The camelCase JSON form, without unset optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules for `json_schema_extra`: (expression, the sentence that a user reads when it is false)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def immutable(field: str, cure: str) -> dict[str, Any]:
    """A CEL transition rule: the field can't change once set; the message says what to do instead."""
    return rules(("self == oldSelf", f"{field} can't be changed once set: {cure}"))


def list_map(*keys: str) -> dict[str, Any]:
    """Marks a list as a map by `keys`, so that appliers can own single entries."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
