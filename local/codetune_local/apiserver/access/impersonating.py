"""Acting as somebody else (`kubectl --as`), for those who may."""

from multidict import CIMultiDictProxy

from codetune_local.apiserver.access.authorizing import Attributes, User, is_allowed
from codetune_local.apiserver.errors import bad_request, forbidden
from codetune_local.apiserver.registry import Registry


def impersonate(user: User, headers: CIMultiDictProxy[str], registry: Registry) -> User:
    """The user that the headers name, or `user` when they name none. Raises: ApiError (403, 400)."""
    name, groups = headers.get("Impersonate-User", ""), headers.getall("Impersonate-Group", [])
    if not name:
        if groups:
            raise bad_request("groups can be impersonated only together with a user: Impersonate-User is missing")
        return user
    wanted = [("groups", group) for group in groups]
    parts = name.split(":")
    if name.startswith("system:serviceaccount:") and len(parts) == 4:
        wanted.append(("serviceaccounts", parts[3]))
        groups = groups or ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}"]
    else:
        wanted.append(("users", name))
    for resource, found in wanted:
        namespace = parts[2] if resource == "serviceaccounts" else ""
        if not is_allowed(user, Attributes("impersonate", "", resource, namespace, found), registry):
            why = f'User "{user.name}" cannot impersonate resource "{resource}" in API group "" at the cluster scope'
            raise forbidden(resource, "", found, why)
    return User(name, tuple(dict.fromkeys([*groups, "system:authenticated"])))
