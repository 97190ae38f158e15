"""Scans with `files.quality`: what it rejects, in what order, what brings a file back, and what a rescan measures."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codetune_api.protocol import StageEvent, parse
from codetune_trainer.errors import ModelNotFound, UnsupportedModel
from codetune_trainer.scan.quality.model import load_meter

if TYPE_CHECKING:
    from unit.scan.conftest import Scanned, Workshop

    Run = Callable[..., Scanned]

URI = "file:///tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLAIN = "def add(left, right):\n    return left + right\n" * 4
DENSE = "# " + "".join(chr(33 + (number * 37) % 90) for number in range(160)) + "\n"
CODE = {"dense.py": DENSE, "plain.py": PLAIN, "short.py": "x = 1\n"}


@pytest.fixture
def limits(tiny: Path) -> tuple[float, float, float]:
    """Limits that reject none, one, and both of the two texts that are long enough to be judged."""
    low, high = sorted(entry.loss for entry in load_meter(tiny, URI, "cpu").measure([PLAIN, DENSE]))
    assert high - low > 0.05
    return high + 1, (low + high) / 2, low / 2


@pytest.fixture
def run(workshop: "Workshop", tiny: Path) -> "Run":
    """Scan files with a limit and more rules."""
    workshop.model = tiny

    def scan(limit: float, files: dict[str, str] | None = None, **rules: Any) -> "Scanned":
        workshop.volume("disk", files or CODE)
        holdout = rules.pop("holdout", {"fraction": 0})
        rules = {"quality": {"baseModel": URI, "maxLoss": limit}, **rules}
        return workshop.scan(workshop.from_volume("disk"), files=rules, holdout=holdout)

    return scan


def worst(run: "Run", limit: float) -> str:
    """The name of the file that alone is above a limit."""
    (name,) = [name for name, verdict in run(limit).verdicts().items() if verdict == "LowQuality"]
    return name


def test_files_above_the_limit_are_rejected_with_their_loss(run: "Run", limits: tuple[float, float, float]) -> None:
    none, one, both = limits
    assert set(run(none).verdicts().values()) == {"train"}
    rejected = run(one)
    name = worst(run, one)
    assert name in {"dense.py", "plain.py"}
    detail = rejected.report[f"disk/{name}"]["detail"]
    assert detail.startswith("loss ")
    assert detail.endswith(f" above {one:g}")
    assert (rejected.result.rejections[0].reason, rejected.result.rejections[0].files) == ("LowQuality", 1)
    assert f"disk/{name}" not in rejected.files
    assert run(both).verdicts() == {"dense.py": "LowQuality", "plain.py": "LowQuality", "short.py": "train"}


def test_include_brings_a_file_back_and_says_from_what(run: "Run", limits: tuple[float, float, float]) -> None:
    scanned = run(limits[2], include=["dense.py"])
    assert scanned.verdicts() == {"dense.py": "Included", "plain.py": "LowQuality", "short.py": "train"}
    assert scanned.report["disk/dense.py"]["detail"].startswith("files.include has it, against LowQuality: loss ")


def test_include_says_it_with_the_rules_of_the_files_own(run: "Run", limits: tuple[float, float, float]) -> None:
    scanned = run(limits[2], {"vendor/dense.py": DENSE, "short.py": CODE["short.py"]}, include=["vendor/"])
    detail = scanned.report["disk/vendor/dense.py"]["detail"]
    assert detail.startswith("files.include has 'vendor/', against Vendored: below vendor/; LowQuality: loss ")


def test_exclude_and_every_other_rule_come_first(run: "Run", limits: tuple[float, float, float]) -> None:
    files = {**CODE, "copy.py": DENSE, "vendor/plain.py": f"{PLAIN}\n"}
    verdicts = run(limits[2], files, exclude=["plain.py", "!vendor/plain.py"]).verdicts()
    assert verdicts == {
        "copy.py": "LowQuality",
        "dense.py": "Duplicate",
        "plain.py": "Excluded",
        "short.py": "train",
        "vendor/plain.py": "Vendored",
    }


def test_copies_that_are_allowed_are_rejected_together(run: "Run", limits: tuple[float, float, float]) -> None:
    verdicts = run(limits[2], {**CODE, "copy.py": DENSE}, duplicates="Allow", include=["copy.py"]).verdicts()
    assert verdicts == {"copy.py": "Included", "dense.py": "LowQuality", "plain.py": "LowQuality", "short.py": "train"}


def test_rejected_files_are_not_held_out_either(run: "Run", limits: tuple[float, float, float]) -> None:
    scanned = run(limits[2], {**CODE, "more.py": "y = 2\n"}, holdout={"fraction": 0.1, "paths": ["dense.py"]})
    assert scanned.verdicts()["dense.py"] == "LowQuality"
    assert (scanned.result.files.held_out, scanned.result.files.trained) == (1, 1)


def test_what_is_measured_is_the_text_that_is_trained_on(workshop: "Workshop", run: "Run") -> None:
    secret = f"{PLAIN}TOKEN = 'ghp_{'aB3' * 12}'\n"
    scanned = run(100.0, {"secret.py": secret}, secrets="Redact")
    text = scanned.files["disk/secret.py"]["text"]
    (losses,) = (workshop.places.store / "team/projects/code/sources/quality").iterdir()
    assert "REDACTED" in text
    assert losses.read_text().split()[0] == hashlib.sha256(text.encode()).hexdigest()


def test_another_limit_measures_nothing_again(
    workshop: "Workshop", run: "Run", tiny: Path, limits: tuple[float, float, float]
) -> None:
    fetched = workshop.places.store / "models/org/tiny" / COMMIT
    shutil.copytree(tiny, fetched)
    workshop.model = workshop.root / "model"
    workshop.model.symlink_to(fetched)
    assert "LowQuality" not in run(limits[0]).verdicts().values()
    (fetched / "model.safetensors").unlink()  # whoever loads it now fails
    assert "LowQuality" in run(limits[1]).verdicts().values()
    with pytest.raises(UnsupportedModel):
        run(limits[1], {**CODE, "new.py": "z = 1\n"})


def test_another_model_decides_by_its_own_losses(
    workshop: "Workshop", run: "Run", tmp_path: Path, save_model: Callable[..., Path]
) -> None:
    folder = workshop.places.store / "team/projects/code/sources/quality"
    run(100.0)
    (first,) = folder.iterdir()
    told = first.read_text()
    workshop.model = save_model(tmp_path / "other", seed=1)
    run(100.0)
    (second,) = folder.iterdir()
    assert second.name != first.name
    assert [line.split()[0] for line in second.read_text().splitlines()] == [
        line.split()[0] for line in told.splitlines()
    ]
    assert second.read_text() != told


def test_the_same_files_give_the_same_dataset(run: "Run", limits: tuple[float, float, float], tmp_path: Path) -> None:
    first = run(limits[1])
    again = run(limits[1])
    assert first.result.revision == again.result.revision
    assert first.result.rejections == again.result.rejections


def test_measuring_is_a_stage_of_the_scan(workshop: "Workshop", run: "Run") -> None:
    run(100.0)
    events = [parse(line, "nonce-of-this-test-0001") for line in workshop.events.getvalue().splitlines()]
    stages = list(dict.fromkeys(event.stage for event in events if isinstance(event, StageEvent)))
    assert stages == ["Fetching", "Scanning", "Measuring", "Writing"]


@pytest.mark.parametrize(
    ("words", "failure", "folder"),
    [
        pytest.param("no config.json", ModelNotFound, "missing", id="no such folder"),
        pytest.param("CODETUNE_MODEL", ModelNotFound, None, id="no folder was given"),
    ],
)
def test_a_model_that_is_not_there_ends_the_scan(
    workshop: "Workshop", run: "Run", words: str, failure: type[Exception], folder: str | None
) -> None:
    workshop.model = workshop.root / folder if folder else None
    with pytest.raises(failure, match=words):
        run(3.0)
    assert not list((workshop.places.store / "team/projects/code").glob("*/files.jsonl"))


def test_a_scan_without_the_rule_never_loads_torch() -> None:
    told = "import sys, codetune_trainer.scan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0
