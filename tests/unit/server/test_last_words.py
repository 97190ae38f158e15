"""Last words: the exception that ends an engine goes to the termination log, and nothing else does."""

import logging
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from codetune_server.speaking import MAX_BYTES, LastWords, listen

ENGINE = "vllm.v1.engine.core"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty termination log that vLLM's loggers write to."""
    path = tmp_path / "termination-log"
    path.touch()
    before = list(logging.getLogger("vllm").handlers)
    listen({"CODETUNE_TERMINATION_LOG": str(path)})
    listen({"CODETUNE_TERMINATION_LOG": str(path)})  # vLLM calls it more than once
    assert len(logging.getLogger("vllm").handlers) == len(before) + 1
    yield path
    for handler in [h for h in logging.getLogger("vllm").handlers if h not in before]:
        logging.getLogger("vllm").removeHandler(handler)


def fail(name: str, error: Exception, *, level: int = logging.ERROR) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger(name).log(level, "it failed", exc_info=True)


def test_the_cause_stays_and_those_who_pass_it_on_do_not_cover_it(place: Path) -> None:
    fail(ENGINE, ValueError("No available memory for the cache blocks."))
    fail(ENGINE, RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}"))
    fail("vllm.v1.executor.multiproc_executor", RuntimeError("initialization failed. See stack trace for root cause"))
    assert place.read_text() == "ValueError: No available memory for the cache blocks."


@pytest.mark.parametrize(
    ("name", "level"),
    [
        pytest.param("vllm.entrypoints.openai.serving", logging.ERROR, id="a request that went wrong"),
        pytest.param(ENGINE, logging.WARNING, id="a warning"),
        pytest.param("uvicorn.error", logging.ERROR, id="another library"),
    ],
)
def test_what_ends_nobody_is_not_written(name: str, level: int, place: Path) -> None:
    fail(name, ValueError("x"), level=level)
    assert place.read_text() == ""


def test_an_error_without_an_exception_is_not_written(place: Path) -> None:
    logging.getLogger(ENGINE).error("something")
    assert place.read_text() == ""


def test_the_newest_words_stay_and_they_are_bounded(place: Path) -> None:
    fail(ENGINE, ValueError("first"))
    fail(ENGINE, RuntimeError("é" * 5000))
    assert place.read_bytes().startswith(b"RuntimeError: \xc3\xa9")
    assert len(place.read_bytes()) == MAX_BYTES


def test_without_a_place_nothing_is_changed() -> None:
    listen({})
    assert not any(isinstance(handler, LastWords) for handler in logging.getLogger("vllm").handlers)


def test_vllm_finds_it_by_its_entry_point() -> None:
    (found,) = [entry for entry in entry_points(group="vllm.general_plugins") if entry.name == "codetune"]
    assert found.load() is listen
