"""Who is asking, and may they: bearer tokens, ServiceAccount tokens and RBAC."""

import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from codetune_local.apiserver.errors import unauthorized
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"
ISSUER = "codetune-local"


@dataclass(frozen=True)
class User:
    """Somebody who was authenticated."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict, compare=False)

    @property
    def is_master(self) -> bool:
        """Whether nothing is refused."""
        return "system:masters" in self.groups


ADMIN = User("codetune-admin", ("system:masters", "system:authenticated"))


@dataclass(frozen=True)
class Attributes:
    """What somebody wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    """`pods`, or `pods/log`."""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """For what is not a resource, e.g. `/healthz`."""


class Tokens:
    """The admin's token and the key that signs ServiceAccount tokens; both live in the state folder."""

    def __init__(self, folder: Path | None) -> None:
        self.admin = _secret(folder, "admin.token")
        self._key = _secret(folder, "serviceaccount.key")

    def issue(self, account: Obj, audiences: list[str], seconds: int) -> tuple[str, float]:
        """A token for a ServiceAccount and the time at which it ends."""
        expires = time.time() + seconds
        metadata = account["metadata"]
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "aud": audiences or [ISSUER],
            "exp": int(expires),
            "iat": int(time.time()),
            "kubernetes.io": {
                "namespace": metadata["namespace"],
                "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
            },
        }
        return jwt.encode(claims, self._key, algorithm="HS256"), expires

    def authenticate(self, authorization: str, registry: Registry) -> User:
        """The user of an Authorization header. Raises: ApiError (401)."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        return self.identify(token.strip(), registry)

    def identify(self, token: str, registry: Registry) -> User:
        """The user of a token. Raises: ApiError (401)."""
        if hmac.compare_digest(token.encode(), self.admin.encode()):
            return ADMIN
        try:
            claims = jwt.decode(token, self._key, algorithms=["HS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError as error:
            raise unauthorized() from error
        about = claims["kubernetes.io"]
        namespace, account = about["namespace"], about["serviceaccount"]
        found = registry.storage.get("serviceaccounts", namespace, account["name"])
        if found is None or found["metadata"]["uid"] != account["uid"]:
            raise unauthorized()
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return User(claims["sub"], groups, account["uid"])


def _secret(folder: Path | None, name: str) -> str:
    if folder is None:
        return secrets.token_urlsafe(32)
    path = folder / name
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text().strip()


def is_allowed(user: User, wanted: Attributes, registry: Registry) -> bool:
    """RBAC: whether any rule bound to the user allows it."""
    return user.is_master or any(_allows(rule, wanted) for rule in rules_for(user, wanted.namespace, registry))


def rules_for(user: User, namespace: str, registry: Registry) -> Iterable[Obj]:
    """Every rule that holds for a user, cluster-wide and in one namespace."""
    for binding in registry.storage.all(f"clusterrolebindings.{RBAC}"):
        if _binds(binding, user, ""):
            yield from _role_rules(binding["roleRef"], "", registry)
    if namespace:
        for binding in registry.storage.all(f"rolebindings.{RBAC}", namespace):
            if _binds(binding, user, namespace):
                yield from _role_rules(binding["roleRef"], namespace, registry)


def _binds(binding: Obj, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        if subject["kind"] == "ServiceAccount":
            where = subject.get("namespace") or namespace
            if user.name == f"system:serviceaccount:{where}:{subject['name']}":
                return True
        elif (subject["kind"] == "User" and subject["name"] == user.name) or (
            subject["kind"] == "Group" and subject["name"] in user.groups
        ):
            return True
    return False


def _role_rules(reference: Obj, namespace: str, registry: Registry) -> list[Obj]:
    if reference["kind"] == "ClusterRole":
        role = registry.storage.get(f"clusterroles.{RBAC}", "", reference["name"])
        return _aggregated(role, registry) if role else []
    role = registry.storage.get(f"roles.{RBAC}", namespace, reference["name"])
    return list((role or {}).get("rules") or [])


def _aggregated(role: Obj, registry: Registry) -> list[Obj]:
    rules = list(role.get("rules") or [])
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or []:
        wanted = selector.get("matchLabels") or {}
        for other in registry.storage.all(f"clusterroles.{RBAC}"):
            labels = other["metadata"].get("labels") or {}
            if wanted and all(labels.get(key) == value for key, value in wanted.items()):
                rules += other.get("rules") or []
    return rules


def _allows(rule: Obj, wanted: Attributes) -> bool:
    if not _has(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(
            url == "*" or url == wanted.path or (url.endswith("*") and wanted.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs") or []
        )
    if not _has(rule.get("apiGroups"), wanted.group):
        return False
    names = rule.get("resourceNames")
    if names and wanted.name not in names:
        return False
    subresource = wanted.resource.partition("/")[2]
    resources = rule.get("resources") or []
    return _has(resources, wanted.resource) or bool(subresource and f"*/{subresource}" in resources)


def _has(values: list[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def describe_refusal(user: User, wanted: Attributes) -> str:
    """The sentence of a 403, as the API server words it."""
    if wanted.path:
        return f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
    scope = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    return f'User "{user.name}" cannot {wanted.verb} resource "{wanted.resource}" in API group "{wanted.group}" {scope}'
