"""Where a request comes from: what bounds count by, for those who have not proved who they are."""

import ipaddress
from typing import Final

from fastapi import Request

__all__ = ["address_of"]

IPV6_PREFIX: Final = 64
"""Bits: whoever has one IPv6 address has its whole network to choose from."""


def address_of(request: Request) -> str:
    """Return the address of the peer, an IPv6 one as its network; "local" for a peer without one (a unix socket)."""
    if request.client is None:
        return "local"
    try:
        address = ipaddress.ip_address(request.client.host.partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
