"""Losses that were measured once: no kill, no damage and no other limit makes the model measure them again."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from codetune_trainer.scan.quality.cache import LossCache, Measured, name_model, prune_losses
from codetune_trainer.scan.quality.measuring import measure

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class CountingMeter:
    """Gives each text its length as loss, two texts at a time, and fails as often as it is told to."""

    measured: list[str] = field(default_factory=list)
    fails_at: str = "-"
    loads: int = 0
    was_read: list[str] = field(default_factory=list)
    group_texts: int = 2

    def measure(self, texts: Sequence[str]) -> list[Measured]:
        if self.fails_at in texts:
            raise KeyboardInterrupt
        self.measured += texts
        return [Measured(len(text) / 8, 100) for text in texts]

    def read(self, text: str) -> str:
        self.was_read.append(text)
        return text

    def load(self) -> "CountingMeter":
        self.loads += 1
        return self


def digest(text: str) -> bytes:
    """SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def measure_all(folder: Path, meter: CountingMeter, *texts: str, model: str = "m") -> dict[str, float]:
    """Text → loss, as a scan that comes to its end. Notes in the meter which texts were read."""
    named = {digest(text): text for text in texts}
    with LossCache(folder, model) as losses:
        asked = ((digest(text), partial(meter.read, text)) for text in texts)
        found = {named[key]: entry.loss for key, entry in measure(asked, losses, meter.load)}
        losses.keep_asked()
    prune_losses(folder, model)
    return found


def test_a_text_is_measured_once_and_the_model_loaded_only_for_new_ones(tmp_path: Path) -> None:
    meter = CountingMeter()
    first = measure_all(tmp_path, meter, "a", "bb", "a", "ccc")
    again = measure_all(tmp_path, meter, "ccc", "a", "bb")
    assert (first, meter.measured, meter.loads) == ({"a": 0.125, "bb": 0.25, "ccc": 0.375}, ["a", "bb", "ccc"], 1)
    assert again == first
    assert measure_all(tmp_path, meter, "ccc", "new") == {"ccc": 0.375, "new": 0.375}
    assert (meter.measured[3:], meter.loads) == (["new"], 2)
    assert meter.was_read == ["a", "bb", "ccc", "new"]


def test_what_was_measured_before_a_kill_stays(tmp_path: Path) -> None:
    killed = CountingMeter(fails_at="dddd")
    with pytest.raises(KeyboardInterrupt):
        measure_all(tmp_path, killed, "a", "bb", "ccc", "dddd", "eeeee")
    meter = CountingMeter()
    found = measure_all(tmp_path, meter, "a", "bb", "ccc", "dddd", "eeeee")
    assert (killed.measured, meter.measured) == (["a", "bb"], ["ccc", "dddd", "eeeee"])
    assert list(found.values()) == [0.125, 0.25, 0.375, 0.5, 0.625]


@pytest.mark.parametrize(
    ("measured_again", "harm"),
    [
        pytest.param(["bb"], lambda data: data[:-1], id="the line end is missing"),
        pytest.param(["bb"], lambda data: data[:-9], id="half a line is missing"),
        pytest.param([], lambda data: data + b"ab" * 20, id="half a line more"),
        pytest.param(["a"], lambda data: b"\0" + data[1:], id="a byte is damaged"),
        pytest.param([], lambda data: b"event=result nonce=1\n" + data, id="a line of something else"),
        pytest.param(["a", "bb"], lambda data: b"\xff" * 70, id="nothing is left"),
        pytest.param(["a", "bb"], lambda data: b"", id="empty"),
    ],
)
def test_damage_costs_the_lines_that_have_it(
    tmp_path: Path, measured_again: list[str], harm: Callable[[bytes], bytes]
) -> None:
    first = measure_all(tmp_path, CountingMeter(), "a", "bb")
    (path,) = tmp_path.iterdir()
    path.write_bytes(harm(path.read_bytes()))
    meter = CountingMeter()
    assert measure_all(tmp_path, meter, "a", "bb") == first
    assert meter.measured == measured_again
    assert measure_all(tmp_path, meter, "a", "bb") == first
    assert meter.measured == measured_again


def test_losses_of_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    measure_all(tmp_path, CountingMeter(), "a", "bb", "ccc")
    measure_all(tmp_path, CountingMeter(), "bb")
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().count(b"\n") == 1


def test_another_model_measures_everything_anew_and_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    measure_all(tmp_path, CountingMeter(), "a", "bb")
    meter = CountingMeter()
    measure_all(tmp_path, meter, "a", "bb", model="other")
    assert meter.measured == ["a", "bb"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_model_is_its_commit_in_the_store_and_its_content_elsewhere(
    save_model: Callable[..., Path], tmp_path: Path, tiny: Path
) -> None:
    store = tmp_path / "store"
    fetched = store / "models" / "org" / "tiny" / COMMIT
    fetched.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(fetched)
    other = save_model(tmp_path / "other", seed=1)
    assert name_model(link, store) == COMMIT
    assert name_model(tiny, store) == name_model(save_model(tmp_path / "copy"), store)
    assert len({name_model(folder, store) for folder in (tiny, other, fetched)}) == 3
