"""Address and key of a service: what is refused, and what messages show."""

from __future__ import annotations

import pytest

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.services.settings import api_key, shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("https://user:pass@host/v1?key=secret#part", "https://host/v1"),
        ("https://user:p@ss@host/v1", "https://host/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_messages_show_an_address_without_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize("value", [None, ""])
def test_a_key_that_is_not_set_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "key")
    assert api_key("SOME_KEY", "service 's'", "export it.") == "key"
    monkeypatch.setenv("SOME_KEY", value or "")
    if value is None:
        monkeypatch.delenv("SOME_KEY")
    problem = r"the key of service 's' must be in the environment variable 'SOME_KEY', which is not set\. HINT: export"
    with pytest.raises(ConfigurationError, match=problem):
        api_key("SOME_KEY", "service 's'", "export it.")
    with pytest.raises(ConfigurationError, match="environment variable None, which is not set"):
        api_key(None, "service 's'", "export it.")
