"""The adapter routes of serving pods: tell them what to hold, and ask what they hold."""

import asyncio
from collections.abc import Mapping

import aiohttp
from codetune_api.contracts import ServerReport
from pydantic import ValidationError

from codetune_operator.reconcile.plan import AdapterPush

_PATH = "/codetune/adapters"
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_WORDS = 300


async def push_adapters(push: AdapterPush, *, wait_seconds: float) -> dict[str, ServerReport | str]:
    """Hand the set to all pods at once; pod name → its report, or why there is none.

    Args:
        push: Pods, set and token.
        wait_seconds: How long a pod may take to settle before it answers with what it has so far.
    """
    body = push.adapters.model_dump_json(by_alias=True, exclude_none=True)
    return await _ask_all("PUT", push.pods, push.token, body=body, wait_seconds=wait_seconds)


async def fetch_reports(pods: Mapping[str, str], *, token: str) -> dict[str, ServerReport | str]:
    """What pods hold now; pod name → its report, or why there is none."""
    return await _ask_all("GET", pods, token, body=None, wait_seconds=0)


async def _ask_all(
    method: str, pods: Mapping[str, str], token: str, *, body: str | None, wait_seconds: float
) -> dict[str, ServerReport | str]:
    timeout = aiohttp.ClientTimeout(
        total=_CONNECT_SECONDS + wait_seconds + _ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS
    )
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    params = {"wait": f"{wait_seconds:g}"} if wait_seconds else {}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        answers = await asyncio.gather(
            *(_ask(session, method, f"{url}{_PATH}", body=body, params=params) for url in pods.values())
        )
    return dict(zip(pods, answers, strict=True))


async def _ask(
    session: aiohttp.ClientSession, method: str, url: str, *, body: str | None, params: Mapping[str, str]
) -> ServerReport | str:
    try:
        async with session.request(method, url, data=body, params=params) as response:
            text = await response.text()
            if response.status != 200:
                return f"{method} {url} was answered with HTTP {response.status}: {text[:_WORDS]}"
            return ServerReport.model_validate_json(text)
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
        return f"{method} {url} failed: {error or type(error).__name__}"
    except ValidationError as error:
        return f"{method} {url} was answered with something else than a report: {error.errors()[0]['msg']}"
