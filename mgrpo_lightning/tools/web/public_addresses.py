"""PublicTransport: HTTP to public IP addresses and web ports only; protection against SSRF and DNS rebinding.

A host is resolved once, all of its addresses must be public, and the connection goes to the checked address. So a
second DNS answer cannot replace it (DNS rebinding). Each redirect is a separate request and is checked in the same way.
So neither a policy nor a page can make a tool contact this machine, its network or the metadata service of a cloud.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

import httpx2
from typing_extensions import override

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.services.connections import certificates, kept_connections

PORTS = (80, 443, 8080, 8443)
"""Allowed ports. Other ports would let a tool contact mail servers and databases."""
IDLE = 16
"""Maximum idle connections that are kept."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's metadata and DNS service, at a public address
        "192.0.0.0/24",  # protocol assignments; includes Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 for local use
        "2001::/23",  # protocol assignments, including Teredo tunnels
        "2002::/16",  # 6to4 tunnels
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local addresses, replaced by fc00::/7
    )
]
"""Networks refused in addition to the tables of ``ipaddress``, which differ between patch releases of Python."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class PublicTransport(httpx2.AsyncHTTPTransport):
    """A transport for ``httpx2.AsyncClient(trust_env=False)``.

    The client must ignore proxies of the environment: a proxy would connect instead of the transport, unchecked.

    Args:
        allowed: ``host:port`` pairs that may have private addresses, such as a local search server.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        super().__init__(verify=certificates(), trust_env=False, limits=kept_connections(IDLE))
        self._unkept = httpx2.AsyncHTTPTransport(verify=certificates(), trust_env=False, limits=kept_connections(0))
        self._allowed = frozenset(allowed)
        self._hosts: dict[tuple[str, str, int], str] = {}
        """By scheme, address and port: the host whose connections are kept."""

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Resolve and check the host of a request, and send the request to the checked address.

        Raises:
            ToolError: The URL or its address is refused, or the host does not exist.
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
            extensions={**request.extensions, "sni_hostname": url.host},  # TLS verifies the host name, not the address
        )
        # The transport tells connections apart by address. TLS has verified a connection for the name of one host, so
        # another host at the same address (a content delivery network, for instance) gets connections of its own.
        if self._hosts.setdefault((url.scheme, address, port), url.host) != url.host:
            return await self._unkept.handle_async_request(checked)
        return await super().handle_async_request(checked)

    @override
    async def aclose(self) -> None:
        """Close all connections."""
        await self._unkept.aclose()
        await super().aclose()


def check_url(url: httpx2.URL, allowed: frozenset[str] = frozenset()) -> None:
    """Refuse a URL that is not a plain address of a web page.

    Args:
        url: The URL to check.
        allowed: ``host:port`` pairs that are exempt from ``PORTS``; see ``PublicTransport``.

    Raises:
        ToolError: The URL has a scheme other than http(s), a user name, no host, or a port that is not in ``PORTS``.
    """
    if url.scheme not in ("http", "https"):
        raise ToolError(
            f"{url.scheme or 'nothing'!r} is not a scheme of a web page.", hint="give an http or https URL."
        )
    if url.userinfo:
        raise ToolError("a URL with a user name is not read.", hint="remove the part before the @.")
    if not url.host:
        raise ToolError("the URL has no host.", hint="give a whole URL, such as https://example.org/page.")
    if url.port is not None and url.port not in PORTS and f"{url.host}:{url.port}" not in allowed:
        raise ToolError(f"port {url.port} is not a port of a web server.", hint=f"use one of {list(PORTS)}.")


async def public_address(host: str, port: int, *, allowed: bool = False) -> str:
    """Resolve a host, check that all of its addresses are public, and return the first one.

    Args:
        host: Host name, or an IP address in any notation.
        port: Port of the service.
        allowed: Whether private addresses are accepted.

    Raises:
        ToolError: An address is not public, or the host does not exist.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        raise ToolError(f"the host {host!r} cannot be found.", hint="check the URL, or search for the page.") from error
    addresses = [ipaddress.ip_address(place[0]) for *_, place in found]
    if not allowed and not all(map(is_public, addresses)):
        raise ToolError(f"{host!r} is not on the public web.", hint="read another page.")
    return str(addresses[0])


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet; an embedded IPv4 address is checked instead.

    Args:
        address: IPv4 or IPv6 address.
    """
    reached = _reached(address)
    ordinary = reached.is_global and not reached.is_multicast and not reached.is_reserved
    return ordinary and not any(reached in network for network in _NOT_PUBLIC)


def _reached(address: Address) -> Address:
    """The IPv4 address embedded in an IPv6 address, if a socket or a NAT64 gateway would use it; else the address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:  # IPv6-only networks reach the whole IPv4 internet in this way
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
