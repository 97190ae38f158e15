"""Where the store service listens."""

import pytest
from codetune_api.contracts import ENV_NAMESPACE, ENV_STORE
from codetune_api.storing import ENV_STORE_TOKEN_FILE
from codetune_store.settings import ENV_BIND_HOST, StoreSettings

NEEDED = {ENV_STORE: "/store", ENV_NAMESPACE: "team", ENV_STORE_TOKEN_FILE: "/token/token"}


@pytest.mark.parametrize(
    ("expected", "environment"),
    [
        pytest.param(None, {}, id="at all addresses of both families"),
        pytest.param(None, {ENV_BIND_HOST: ""}, id="nothing said"),
        pytest.param("127.0.0.5", {ENV_BIND_HOST: "127.0.0.5"}, id="at one address"),
    ],
)
def test_it_listens_at_every_address_unless_told_otherwise(expected: str | None, environment: dict[str, str]) -> None:
    assert StoreSettings.from_environment({**NEEDED, **environment}).host == expected
