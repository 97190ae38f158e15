"""A pod says which commit of a hub model it serves, as the link that was made for it tells."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from codetune_api.contracts import DesiredAdapters
from codetune_server.pinning import find_commit
from codetune_server.settings import ServerSettings

if TYPE_CHECKING:
    from unit.server.conftest import Pod

    Start = Callable[..., Awaitable[Pod]]

COMMIT = "c0ffee" * 6 + "c0ff"


@pytest.mark.parametrize(
    ("expected", "target"),
    [
        pytest.param(COMMIT, f"store/models/org/name/{COMMIT}", id="fetched"),
        pytest.param(None, "store/models/org/name", id="no commit"),
        pytest.param(None, f"store/team/org/name/{COMMIT}", id="another folder of the store"),
        pytest.param(None, f"elsewhere/models/org/name/{COMMIT}", id="outside the store"),
    ],
)
def test_the_commit_is_read_off_the_link(tmp_path: Path, expected: str | None, target: str) -> None:
    (tmp_path / target).mkdir(parents=True)
    (tmp_path / "store").mkdir(exist_ok=True)
    (tmp_path / "model").symlink_to(tmp_path / target)
    assert find_commit(tmp_path / "store", tmp_path / "model") == expected


def test_a_model_that_is_no_link_or_not_there_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert [find_commit(tmp_path, model) for model in (None, tmp_path, tmp_path / "broken")] == [None] * 3


async def test_the_pod_reports_it(start_pod: "Start", settings: ServerSettings) -> None:
    folder = settings.store / "models" / "org" / "name" / COMMIT
    folder.mkdir(parents=True)
    assert settings.model
    settings.model.symlink_to(folder)
    pod = await start_pod(DesiredAdapters())
    assert (await pod.report()).model_commit == COMMIT
