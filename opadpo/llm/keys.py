"""Keys of endpoints: found in the environment or the system's keyring, shown nowhere."""

import os
import re
from collections.abc import Callable, Iterable

from opadpo.errors import DependencyMissing, EndpointError
from opadpo.recipe.endpoints import EndpointSection

KEYRING_SERVICE = "opadpo"
"""Service in the system's keyring; the user name there is the name of the environment variable."""
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
"""What a Microsoft Entra token has to be good for."""


def endpoint_key(endpoint: EndpointSection) -> str | None:
    """The endpoint's key; None if there is none and none is needed.

    Raises:
        EndpointError: if the endpoint needs one, or it cannot be one.
    """
    needed = endpoint.api_key_required and not endpoint.entra
    name = endpoint.api_key_env
    key = os.environ.get(name, "").strip() or (_from_keyring(name) if needed else "")
    if not key and not _VARIABLE.fullmatch(name):
        raise EndpointError(
            "endpoint.api_key_env is the name of a variable, not the key itself",
            seen=f"{len(name)} characters that are no name such as OPENAI_API_KEY; not shown, as they may be a key",
            remedy="write the name there and put the key into that variable; if a key was in the recipe, have the"
            " provider replace it",
        )
    if not key and needed:
        raise EndpointError(
            "The endpoint needs a key",
            seen=f"environment variable {name} is not set, and the keyring has no such entry",
            remedy=f"set it: export {name}=..., or keep it in the keyring: keyring set {KEYRING_SERVICE} {name}; for a"
            " server without keys set api_key_required: false",
        )
    if not key.isascii() or not key.isprintable():
        raise EndpointError(
            "The endpoint's key cannot be sent: it holds characters that no key has",
            seen=f"environment variable or keyring entry {endpoint.api_key_env}",
            remedy="copy the key again: one line of letters, digits and signs",
        )
    return key or None


def entra_token_provider() -> Callable[[], str]:
    """A function that gives a current Microsoft Entra token (it may wait for the network).

    Raises:
        DependencyMissing: without azure-identity.
    """
    try:
        from azure.identity import DefaultAzureCredential, get_bearer_token_provider
    except ImportError as error:
        raise DependencyMissing(
            "Signing in with Microsoft Entra needs azure-identity",
            seen=str(error),
            remedy="pip install 'opadpo[azure]', or use a key: set entra: false",
        ) from error
    return get_bearer_token_provider(DefaultAzureCredential(), ENTRA_SCOPE)


class Secrets:
    """What must never be shown, and texts without it."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        self._secrets = {secret for secret in secrets if secret}

    def add(self, secret: str) -> None:
        """One more."""
        self._secrets.add(secret)

    def redact(self, text: str) -> str:
        """The text with `***` for every secret in it."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _from_keyring(name: str) -> str:
    """The key of that name in the system's keyring; empty if there is no keyring or no such entry."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return ""
    try:
        return (keyring.get_password(KEYRING_SERVICE, name) or "").strip()
    except KeyringError:
        # A locked keyring, or none that works here: the same to the user as an entry that is not there.
        return ""
