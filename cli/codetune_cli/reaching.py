"""The store service for a look at something: it is asked for where it does not run for an upload source anyway."""

from codetune_api.finetune import FineTune
from codetune_api.metadata import API_VERSION, STORE_SERVICE
from codetune_api.project import Project

from codetune_cli.connecting import Connection
from codetune_cli.errors import ApiRefusal
from codetune_cli.resources import ask_for_store
from codetune_cli.showing import Screen
from codetune_cli.storing import StoreClient
from codetune_cli.waiting import wait_for_store


def reach_store(connection: Connection, resource: Project | FineTune, seconds: float, screen: Screen) -> StoreClient:
    """A store service that answers. Raises: CliError."""
    if not _runs_for_uploads(connection):
        ask_for_store(connection, resource)
    store = StoreClient(connection)
    wait_for_store(store, seconds, screen.say)
    return store


def _runs_for_uploads(connection: Connection) -> bool:
    """Whether it is there and nobody had to ask: an owner that is a Project with an upload source keeps it."""
    root = f"/namespaces/{connection.namespace}"
    try:
        service = connection.ask("GET", f"/api/v1{root}/services/{STORE_SERVICE}")
        projects = connection.ask("GET", f"/apis/{API_VERSION}{root}/projects")["items"]
    except ApiRefusal:
        return False
    owners = {owner["uid"] for owner in service["metadata"].get("ownerReferences") or []}
    return any(
        "upload" in source
        for project in projects
        if project["metadata"]["uid"] in owners
        for source in project["spec"].get("sources") or []
    )
