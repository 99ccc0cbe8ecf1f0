"""Check a service's URL, show it without secrets, and read its API key from an environment variable."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import httpx2

from mgrpo_lightning.errors import ConfigurationError


def require_http(url: str, what: str) -> None:
    """Check that an address is an http(s) URL with a host.

    Args:
        url: The address to check.
        what: Name of the service, for the error message.

    Raises:
        ConfigurationError: The address is not an http(s) URL with a host.
    """
    try:
        parsed = httpx2.URL(url)
        good = parsed.scheme in ("http", "https") and bool(parsed.host)
    except (httpx2.InvalidURL, ValueError):
        good = False
    if not good:
        raise ConfigurationError(
            f"the url of the {what} is {url!r}.", hint="give a full url, such as http://localhost:8000/v1."
        )


def shown_url(url: str) -> str:
    """The address for messages, without user name and query, which may be secret."""
    place = urlsplit(url)
    return f"{place.scheme}://{place.netloc.rpartition('@')[2]}{place.path}"


def api_key(variable: str | None, service: str, hint: str) -> str:
    """The API key of a service.

    Args:
        variable: Environment variable that holds the key.
        service: Name of the service, for the error message.
        hint: Hint of the error message.

    Raises:
        ConfigurationError: The variable is not set, or ``variable`` is None.
    """
    if not (key := os.environ.get(variable or "")):
        raise ConfigurationError(
            f"the key of {service} must be in the environment variable {variable!r}, which is not set.", hint=hint
        )
    return key
