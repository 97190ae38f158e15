"""The line protocol: what a run prints is what the operator reads, and nothing else is."""

import pytest
from codetune_api.finetune import CheckpointStatus, DatasetStatus, Parameters
from codetune_api.protocol import (
    CheckpointEvent,
    DatasetEvent,
    Event,
    ParametersEvent,
    ProgressEvent,
    ResumedEvent,
    StageEvent,
    parse,
    render,
)
from hypothesis import example, given
from hypothesis import strategies as st

NONCE = "0123456789abcdef"
DIGEST = "sha256:" + "a" * 64
PARAMETERS = Parameters(
    preset="Smaller",
    rank=16,
    alpha=32,
    dropout=0.01,
    target_modules=["q_proj"],
    train_embeddings=False,
    max_steps=5,
    epochs=1.5,
    sequence_length=512,
    batch_tokens=1024,
    learning_rate=3e-4,
    scheduler="Cosine",
    warmup_steps=2,
    weight_decay=0.1,
    fim_rate=0,
    precision="BFloat16",
    gradient_checkpointing=False,
    seed=0,
    every_steps=5,
    notes=['a "note" = here'],
)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(StageEvent(stage="Training"), id="plain"),
        pytest.param(StageEvent(stage="Fetching", message='two\nlines, "quotes" and event=result'), id="hostile-text"),
        pytest.param(StageEvent(stage="Fetching", message="{not json"), id="text-like-json"),
        pytest.param(ProgressEvent(step=3, total=9, loss=1.25, lr=3e-4, remaining=12.5), id="numbers"),
        pytest.param(ParametersEvent(parameters=PARAMETERS), id="nested"),
        pytest.param(DatasetEvent(dataset=DatasetStatus(revision=DIGEST, files=2, tokens=7)), id="dataset"),
        pytest.param(ResumedEvent(checkpoint="step-000200", step=200), id="resumed"),
        pytest.param(
            CheckpointEvent(
                checkpoint=CheckpointStatus(name="step-000002", step=2, loss=1.5, uri="pvc://a/b", digest=DIGEST),
                removed=["step-000001"],
            ),
            id="checkpoint",
        ),
    ],
)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    line = render(event, NONCE)
    assert "\n" not in line
    assert parse(line, NONCE) == event


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(render(StageEvent(stage="Training"), "another-nonce-of-16"), id="another-run"),
        pytest.param("event=stage stage=Training", id="no-nonce"),
        pytest.param(f"event=party nonce={NONCE}", id="unknown-event"),
        pytest.param(f"event=progress nonce={NONCE} step=many total=9", id="wrong-type"),
        pytest.param(f'event=stage nonce={NONCE} stage="broken', id="broken-quote"),
        pytest.param(f'event=stage nonce=x stage="a {NONCE}"', id="nonce-inside-a-value"),
        pytest.param(f"Loading weights: event=progress nonce={NONCE}", id="talk-before"),
        pytest.param("", id="empty"),
    ],
)
def test_a_line_that_is_no_protocol_line_is_skipped(line: str) -> None:
    assert parse(line, NONCE) is None


@given(st.text(max_size=200))
@example("[]")
@example('{"step": 1}')
def test_any_text_survives(text: str) -> None:
    event = StageEvent(stage="Scanning", message=text)
    line = render(event, NONCE)
    assert len(line.splitlines()) == 1
    assert parse(line, NONCE) == event
