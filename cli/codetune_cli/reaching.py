"""The store service for a look at something: it is asked for where it does not run for an upload source anyway."""

from codetune_api.finetune import FineTune
from codetune_api.project import Project

from codetune_cli.connecting import Connection
from codetune_cli.resources import ask_for_store
from codetune_cli.showing import Screen
from codetune_cli.storing import StoreClient
from codetune_cli.waiting import wait_for_store


def reach_store(connection: Connection, resource: Project | FineTune, seconds: float, screen: Screen) -> StoreClient:
    """A store service that answers. Raises: CliError."""
    has_upload = isinstance(resource, Project) and any(source.upload is not None for source in resource.spec.sources)
    if not has_upload:
        ask_for_store(connection, resource)
    store = StoreClient(connection)
    wait_for_store(store, seconds, screen.say)
    return store
