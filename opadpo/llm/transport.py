"""How a server is reached: addresses, the SDK's client of each provider, and what headers say."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opadpo.errors import EndpointError
from opadpo.llm.keys import Secrets, entra_token_provider
from opadpo.llm.wire import read_json
from opadpo.recipe.endpoints import EndpointSection

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"

_AZURE_V1 = re.compile(r"/openai/v1/?$")


def make_sdk(
    section: EndpointSection, base_url: str, key: str | None, secrets: Secrets, *, connections: int
) -> "openai.AsyncOpenAI":
    """The SDK's client for a provider, for so many requests at once. It retries nothing: `ChatClient` does.

    Raises:
        DependencyMissing: without azure-identity where `entra` needs it.
    """
    import openai

    from opadpo.llm.connections import http_client

    http = http_client(connections, local=is_local(base_url))
    common: dict[str, Any] = {"timeout": section.timeout, "max_retries": 0, "http_client": http}
    token = _entra_token(secrets) if section.entra else None
    if section.provider == "azure" and section.api_version:
        credential = {"azure_ad_token_provider": token} if token else {"api_key": key or "none"}
        return openai.AsyncAzureOpenAI(azure_endpoint=base_url, api_version=section.api_version, **credential, **common)
    if section.provider == "azure" and not _AZURE_V1.search(base_url):
        base_url = f"{base_url.rstrip('/')}/openai/v1/"
    return openai.AsyncOpenAI(api_key=token or key or "none", base_url=base_url, **common)


def chat_path(section: EndpointSection) -> str:
    """Path of chat completions below the address."""
    if section.provider == "azure" and section.api_version:
        return f"/deployments/{section.model}/chat/completions"
    return "/chat/completions"


def batch_path(section: EndpointSection) -> str:
    """The path that a batch names for its requests: Azure knows it without the version."""
    return "/chat/completions" if section.provider == "azure" else "/v1/chat/completions"


def check_url(url: str, section: EndpointSection) -> None:
    """See that the address can be one.

    Raises:
        EndpointError: if it is none, or holds what does not belong there; that is not shown, as it may be a secret.
    """
    if not url and section.provider == "azure":
        raise EndpointError(
            "Azure needs the address of the resource",
            seen="endpoint.base_url: none",
            remedy="set endpoint.base_url, for example https://NAME.openai.azure.com",
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number or too large, brackets that are not closed
        parts, usable = None, False
    if parts is not None and (parts.username or parts.password):
        raise EndpointError(
            "The endpoint's address holds a password",
            seen=f"{parts.scheme}://***@{parts.hostname}",
            remedy="leave it out of endpoint.base_url; keys belong into the variable that endpoint.api_key_env names",
        )
    plain, mark, _ = re.split(r"([?#])", url, maxsplit=1) if re.search(r"[?#]", url) else (url, "", "")
    if not usable or re.search(r"\s", plain):
        raise EndpointError(
            "The endpoint's address is no URL", seen=plain, remedy="write it like https://host/v1 (endpoint.base_url)"
        )
    if mark:
        raise EndpointError(
            f"The endpoint's address goes on after a {mark}",
            seen=f"{plain}{mark}***",
            remedy="leave that out of endpoint.base_url; keys belong into the variable that endpoint.api_key_env names,"
            " and Azure's version into endpoint.api_version",
        )


def is_local(url: str) -> bool:
    """True for an address of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def retry_after(response: "httpx2.Response") -> float | None:
    """Seconds of a Retry-After header (a number or an HTTP date) or of retry-after-ms; None without one."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(response.headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        moment = parsedate_to_datetime(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def listed_models(response: "httpx2.Response") -> list[str]:
    """The names in a list of models; empty if the reply is none."""
    try:
        return [str(card["id"]) for card in read_json(response.content)["data"]]
    except (ValueError, TypeError, KeyError):
        return []


def _entra_token(secrets: Secrets) -> Callable[[], Awaitable[str]]:
    provider = entra_token_provider()

    async def token() -> str:
        from azure.core.exceptions import AzureError

        try:
            text = await asyncio.to_thread(provider)
        except AzureError as error:
            raise EndpointError(
                "Signing in with Microsoft Entra has failed",
                seen=" ".join(str(error).split())[:300],
                remedy="sign in (`az login`), or give this machine an identity; or use a key: set entra: false",
            ) from error
        secrets.add(text)
        return text

    return token
