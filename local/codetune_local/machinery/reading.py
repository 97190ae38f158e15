"""Reading single objects that may not exist."""

from codetune_local.machinery.client import ApiError, Client
from codetune_local.machinery.objects import Obj


async def get_or_none(client: Client, resource: str, name: str, namespace: str | None = None) -> Obj | None:
    """An object, or None when there is none. Raises: ApiError for anything but 404."""
    try:
        return await client.get(resource, name, namespace or None)
    except ApiError as error:
        if error.code != 404:
            raise
        return None
