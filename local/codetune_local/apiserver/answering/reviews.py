"""Questions about identity and rights, and tokens for ServiceAccounts: answered, never stored."""

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from codetune_local.apiserver.access.authorizing import ISSUER, Attributes, Tokens, User, is_allowed, rules_for
from codetune_local.apiserver.answering.requests import Target
from codetune_local.apiserver.catalog import REVIEWS
from codetune_local.apiserver.errors import ApiError
from codetune_local.apiserver.registry import Registry

Obj = dict[str, Any]
LONGEST_TOKEN_SECONDS = 7 * 86400


def answer(target: Target, body: Obj, user: User, registry: Registry, tokens: Tokens) -> web.Response:
    """The review with its status filled in."""
    kind = REVIEWS[target.group, target.plural][0]
    spec = body.get("spec") or {}
    reply: Obj = {"apiVersion": f"{target.group}/v1", "kind": kind, "metadata": {}, "spec": spec}
    if kind == "SelfSubjectReview":
        reply["status"] = {"userInfo": {"username": user.name, "uid": user.uid, "groups": list(user.groups)}}
    elif kind == "TokenReview":
        reply["status"] = _review_token(spec.get("token", ""), registry, tokens)
    elif kind == "SelfSubjectRulesReview":
        reply["status"] = _list_rules(user, spec.get("namespace", ""), registry)
    else:
        asked = user
        if not kind.startswith("Self"):
            asked = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""))
        allowed = is_allowed(asked, _attributes(spec), registry)
        reply["status"] = {"allowed": allowed} if allowed else {"allowed": False, "reason": ""}
    return web.json_response(reply, status=201)


def _attributes(spec: Obj) -> Attributes:
    if "nonResourceAttributes" in spec:
        asked = spec["nonResourceAttributes"]
        return Attributes(asked.get("verb", ""), path=asked.get("path", ""))
    asked = spec.get("resourceAttributes") or {}
    resource = asked.get("resource", "")
    if asked.get("subresource"):
        resource = f"{resource}/{asked['subresource']}"
    return Attributes(
        asked.get("verb", ""), asked.get("group", ""), resource, asked.get("namespace", ""), asked.get("name", "")
    )


def _review_token(token: str, registry: Registry, tokens: Tokens) -> Obj:
    try:
        user = tokens.identify(token, registry)
    except ApiError:
        return {"authenticated": False, "error": "invalid bearer token"}
    return {"authenticated": True, "user": {"username": user.name, "uid": user.uid, "groups": list(user.groups)}}


def _list_rules(user: User, namespace: str, registry: Registry) -> Obj:
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    rules = [everything] if user.is_master else list(rules_for(user, namespace, registry))
    return {
        "resourceRules": [rule for rule in rules if "resources" in rule],
        "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
        "incomplete": False,
    }


def issue_token(account: Obj, body: Obj, tokens: Tokens) -> web.Response:
    """The answer to a TokenRequest."""
    spec = body.get("spec") or {}
    seconds = min(int(spec.get("expirationSeconds") or 3600), LONGEST_TOKEN_SECONDS)
    token, expires = tokens.issue(account, spec.get("audiences") or [], seconds)
    status = {
        "token": token,
        "expirationTimestamp": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    metadata = {"name": account["metadata"]["name"], "namespace": account["metadata"]["namespace"]}
    spec = {"audiences": spec.get("audiences") or [ISSUER], "expirationSeconds": seconds}
    return web.json_response(
        {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": metadata,
            "spec": spec,
            "status": status,
        },
        status=201,
    )
