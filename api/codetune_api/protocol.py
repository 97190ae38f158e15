"""The line protocol between a running Job and the operator: logfmt on stdout, one event a line.

`ts=… nonce=… event=progress step=120 total=600 loss=1.8312 …`. Values with anything but plain characters are JSON
strings, so a line never holds a raw line break and reads the same for a person and for the parser. Only lines that
carry the run's nonce count; everything else in the log is talk.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError

from codetune_api.contracts import Contract, ScanResult, TrainResult
from codetune_api.finetune import CheckpointStatus, DatasetStatus, Parameters

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,%-]+")
_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?:\s+|$)')


class Event(Contract):
    """One protocol line; `event` is its discriminator."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class StageEvent(Event):
    """The run began something else: LoadingModel, Tokenizing, Baseline, Training, Evaluating, Saving, Fetching, …"""

    event: Literal["stage"] = "stage"
    stage: str
    message: str = ""


class ProgressEvent(Event):
    """How far the run is."""

    event: Literal["progress"] = "progress"
    step: int
    total: int
    epoch: float = 0
    loss: float | None = None
    holdout_loss: float | None = None
    lr: float | None = None
    tokens: int = 0
    tokens_per_second: float | None = None
    remaining: float | None = None
    """Seconds to the end, as the run estimates."""


class ParametersEvent(Event):
    """The resolved parameters, once they are known."""

    event: Literal["parameters"] = "parameters"
    parameters: Parameters


class ModelEvent(Event):
    """The base model of the hub, once its commit is known."""

    event: Literal["model"] = "model"
    repository: str
    commit: str


class DatasetEvent(Event):
    """The dataset, once it is tokenized."""

    event: Literal["dataset"] = "dataset"
    dataset: DatasetStatus


class CheckpointEvent(Event):
    """A checkpoint is whole in the store; `removed` names those pruned for it."""

    event: Literal["checkpoint"] = "checkpoint"
    checkpoint: CheckpointStatus
    removed: list[str] = []


class ResumedEvent(Event):
    """The run goes on from a checkpoint; steps after it are repeated."""

    event: Literal["resumed"] = "resumed"
    checkpoint: str
    """Empty: it begins anew."""
    step: int
    message: str = ""
    restarted: bool = True
    """Whether this is another attempt; False: the same one went back."""


class ResultEvent(Event):
    """The last line: everything that the run found out."""

    event: Literal["result"] = "result"
    scan: ScanResult | None = None
    train: TrainResult | None = None


EVENTS: dict[str, type[Event]] = {
    "stage": StageEvent,
    "progress": ProgressEvent,
    "parameters": ParametersEvent,
    "model": ModelEvent,
    "dataset": DatasetEvent,
    "checkpoint": CheckpointEvent,
    "resumed": ResumedEvent,
    "result": ResultEvent,
}


def render(event: Event, nonce: str) -> str:
    """One line without its line break."""
    fields: dict[str, Any] = {"nonce": nonce, **event.model_dump(mode="json", exclude_none=True, by_alias=False)}
    fields = {"event": fields.pop("event"), **fields}
    return " ".join(f"{key}={_render_value(value)}" for key, value in fields.items())


def parse(line: str, nonce: str) -> Event | None:
    """The event of a line, or None for a line that is not one of this run's protocol lines."""
    if "event=" not in line or nonce not in line:
        return None
    fields = _split(line.strip())
    if fields is None or fields.get("nonce") != nonce:
        return None
    model = EVENTS.get(fields.get("event", ""))
    if model is None:
        return None
    try:
        return model.model_validate(_decode(model, fields))
    except ValidationError:
        return None


def _render_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _split(line: str) -> dict[str, str] | None:
    fields: dict[str, str] = {}
    position = 0
    while position < len(line):
        match = _PAIR.match(line, position)
        if match is None:
            return None
        raw = match.group(2)
        try:
            fields[match.group(1)] = json.loads(raw) if raw.startswith('"') else raw
        except ValueError:
            return None
        position = match.end()
    return fields


def _decode(model: type[Event], fields: Mapping[str, str]) -> dict[str, Any]:
    """Nested values travel as JSON; scalars as they are, and pydantic reads numbers out of text.

    Text stays text, even where it looks like JSON: a message may be `[]`.
    """
    decoded: dict[str, Any] = {}
    for key, text in fields.items():
        field = model.model_fields.get(key)
        nested = field is not None and field.annotation not in (str, str | None) and text[:1] in {"{", "["}
        try:
            decoded[key] = json.loads(text) if nested else text
        except ValueError:
            decoded[key] = text
    return decoded
