"""LowQuality: rejects files that a base model finds improbable, by their mean loss per token.

A loss is measured once for each content and model and kept in the store, so a rescan measures what is new, and another
limit measures nothing. torch and the model are loaded when there is something to measure, and only then.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from codetune_api.contracts import ENV_MODEL, ScanConfig

from codetune_trainer.config import Places
from codetune_trainer.errors import ModelNotFound
from codetune_trainer.reporting import Reporter
from codetune_trainer.scan.quality.cache import LossCache, Measured, name_model, prune_losses

FOLDER = "quality"
"""Inside the Project's cache: losses that were measured."""
LEAST_TOKENS = 64
"""Shorter files are not judged: their first tokens, which nothing stands before, would decide."""
HEAD_CHARACTERS = 16_384
"""What is taken of a text, before it is cut to `MOST_TOKENS`: the tokens of a whole file are not needed."""
MOST_TOKENS = 2048
"""Tokens of a file that are measured."""
_SECONDS_BETWEEN_EVENTS = 2.0

Text = tuple[bytes, Callable[[], str]]
"""SHA-256 of a text in UTF-8, and what reads it."""


class Meter(Protocol):
    """Measures texts under a model."""

    @property
    def group_texts(self) -> int:
        """How many texts are handed over, and then kept, together."""

    def measure(self, texts: Sequence[str]) -> list[Measured]:
        """The loss of each text."""


def find_low_quality(
    config: ScanConfig, places: Places, cache: Path, texts: Iterable[Text], reporter: Reporter
) -> dict[bytes, str]:
    """Digest and what the rule saw, of each text above the limit of `files.quality`; nothing without that rule.

    Args:
        config: The scan's configuration.
        places: The pod's folders.
        cache: The Project's cache folder.
        texts: Of the files that are accepted so far; copies may be among them.
        reporter: Gets stage events.

    Raises:
        ModelNotFound, UnsupportedModel, OutOfMemory, DeviceMissing: The model can't be used here.
    """
    quality = config.files.quality
    if quality is None:
        return {}
    if places.model is None:
        raise ModelNotFound(f"The environment variable {ENV_MODEL} is not set.", "The operator sets it in every Job.")
    reporter.stage("Measuring")
    folder, model = places.model, name_model(places.model, places.store)

    def load() -> Meter:
        from codetune_trainer.scan.quality.model import load_meter

        return load_meter(folder, quality.base_model, config.device)

    found: dict[bytes, str] = {}
    with LossCache(cache / FOLDER, model) as losses:
        for digest, measured in measure(texts, losses, load, _build_teller(reporter)):
            seen = judge_loss(measured, quality.max_loss)
            if seen is not None:
                found[digest] = seen
        losses.keep_asked()
    prune_losses(cache / FOLDER, model)
    return found


def measure(
    texts: Iterable[Text],
    losses: LossCache,
    load: Callable[[], Meter],
    tell: Callable[[int], None] = lambda number: None,
) -> Iterator[tuple[bytes, Measured]]:
    """The loss of each text, each content once, in the order in which it becomes known.

    Args:
        texts: To be measured; one whose loss is known is not read.
        losses: What was measured before; gets what is measured now, group by group, so that no kill takes it away.
        load: Loads the model; called once something has to be measured.
        tell: Gets the number of texts that were measured, after each group.
    """
    meter: Meter | None = None
    group: dict[bytes, str] = {}
    done = 0
    for digest, read in texts:
        if digest in group or losses.was_asked(digest):
            continue
        known = losses.find(digest)
        if known is not None:
            yield digest, known
            continue
        group[digest] = read()[:HEAD_CHARACTERS]
        meter = meter or load()
        if len(group) < meter.group_texts:
            continue
        yield from _measure_group(group, meter, losses)
        done += len(group)
        tell(done)
        group = {}
    if group and meter is not None:
        yield from _measure_group(group, meter, losses)
        tell(done + len(group))


def judge_loss(measured: Measured, limit: float) -> str | None:
    """What is wrong with a file of this loss; None when nothing is. Pure.

    Args:
        measured: Its loss under the model.
        limit: `files.quality.maxLoss`, in nats per token.
    """
    if measured.tokens < LEAST_TOKENS or measured.loss <= limit:
        return None
    return f"loss {measured.loss:.3f} above {limit:g}"


def _measure_group(group: Mapping[bytes, str], meter: Meter, losses: LossCache) -> Iterator[tuple[bytes, Measured]]:
    found = dict(zip(group, meter.measure(list(group.values())), strict=True))
    losses.add(found)
    yield from found.items()


def _build_teller(reporter: Reporter) -> Callable[[int], None]:
    """Says how many files were measured, not more often than a person can read."""
    told_at = time.monotonic()

    def tell(number: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _SECONDS_BETWEEN_EVENTS:
            told_at = time.monotonic()
            reporter.stage("Measuring", f"{number} new files measured")

    return tell
