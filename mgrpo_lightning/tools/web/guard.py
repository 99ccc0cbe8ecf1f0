"""PublicTransport: HTTP to public addresses only, whatever a URL, a name server or a redirect says.

A host is resolved once, every address that it has must be public, and the connection goes to the address that was
checked: what the name server says a moment later plays no part. Each redirect is a request of its own and is checked
alike. So a policy, or a page that it reads, cannot make a tool talk to this machine, its network or a cloud's metadata.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx2
from typing_extensions import override

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.services.client import certificates

PORTS = (80, 443, 8080, 8443)
"""Where web servers listen; others would let a tool talk to mail servers and databases."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's metadata and name server, at an address of the public internet
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # relays of 6to4
        "64:ff9b:1::/48",  # translation of local use
        "2001::/23",  # protocol assignments, Teredo's tunnels among them
        "2002::/16",  # tunnels of 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # sites, before fc00::/7
    )
]
"""Beside what ``ipaddress`` knows, whose tables differ between patch levels of one Python."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PublicTransport(httpx2.AsyncHTTPTransport):
    """A transport for ``httpx2.AsyncClient(trust_env=False)``: a proxy would connect in its place, unchecked.

    Args:
        allowed: ``host:port`` pairs that may be private, such as a search engine of one's own.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        super().__init__(verify=certificates(), trust_env=False)
        self._allowed = frozenset(allowed)

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request to the address that was checked.

        Raises:
            ToolError: The URL may not be asked, or its host is not there.
        """
        url = request.url
        check_url(url, self._allowed)
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await public_address(url.host, port, allowed=f"{url.host}:{port}" in self._allowed)
        checked = httpx2.Request(
            request.method,
            url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": url.host},  # the certificate is the name's
        )
        return await super().handle_async_request(checked)


def check_url(url: httpx2.URL, allowed: frozenset[str] = frozenset()) -> None:
    """Refuse what is no plain address of a web page.

    Args:
        url: To be asked.
        allowed: See ``PublicTransport``.

    Raises:
        ToolError: It has another scheme, a user's name in it, no host, or an unusual port.
    """
    if url.scheme not in ("http", "https"):
        raise ToolError(f"{url.scheme or 'nothing'!r} is no scheme of a web page.", hint="give an http or https URL.")
    if url.userinfo:
        raise ToolError("a URL with a user's name in it is not asked.", hint="leave out what stands before the @.")
    if not url.host:
        raise ToolError("the URL names no host.", hint="give a whole URL, such as https://example.org/page.")
    if url.port is not None and url.port not in PORTS and f"{url.host}:{url.port}" not in allowed:
        raise ToolError(f"port {url.port} is none of a web server.", hint=f"the ports are {list(PORTS)}.")


async def public_address(host: str, port: int, *, allowed: bool = False) -> str:
    """The address of a host, all of whose addresses are public.

    Args:
        host: A name, or an address in any notation.
        port: Of the service.
        allowed: Whether it may be private.

    Raises:
        ToolError: One of them is not, or there is none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        raise ToolError(f"there is no host {host!r}.", hint="check the URL, or search for the page.") from error
    addresses = [ipaddress.ip_address(place[0]) for *_, place in found]
    if not allowed and not all(map(is_public, addresses)):
        raise ToolError(f"{host!r} is not on the public web.", hint="read another page.")
    return str(addresses[0])


def is_public(address: Address) -> bool:
    """Whether an address, or the one to which it leads, is one of the public internet.

    Args:
        address: Of either version.
    """
    reached = _reached(address)
    ordinary = reached.is_global and not reached.is_multicast and not reached.is_reserved
    return ordinary and not any(reached in network for network in _NOT_PUBLIC)


def _reached(address: Address) -> Address:
    """The IPv4 address that stands in an IPv6 one, where a socket or a translator would take it; else the address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:  # networks without IPv4 reach all of its internet so
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
