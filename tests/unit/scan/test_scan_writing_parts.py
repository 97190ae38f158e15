"""Pieces that are written to one file without being joined first."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from codetune_trainer.manifests import write_parts


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="none"),
        pytest.param([b"a"], id="one"),
        pytest.param([b"a", b"", b"bcd"], id="an-empty-one"),
        pytest.param([b"%d " % number for number in range(2500)], id="more-than-one-call-takes"),
    ],
)
@pytest.mark.parametrize("at_a_time", [1, 7, 10**6])
def test_all_parts_are_appended_however_few_bytes_the_system_takes(
    parts: list[bytes], at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_some(descriptor: int, given: Sequence[bytes]) -> int:
        return os.write(descriptor, b"".join(given)[:at_a_time])

    monkeypatch.setattr(os, "writev", take_some)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        assert write_parts(file, [b"before"]) == 0
        assert write_parts(file, parts) == 6
    assert (tmp_path / "file").read_bytes() == b"before" + b"".join(parts)
