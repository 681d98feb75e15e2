"""Names an object after the address of the client, for a limit of connections per address."""

import ipaddress
from typing import Any, cast

from asgiref.typing import WebSocketScope

from echo.conf import Network, conf

UNKNOWN = "ip-unknown"  # the client has no address, for example on a UNIX socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def by_address(scope: WebSocketScope) -> str:
    """Return the name of the object of the client's address: `ip-192.0.2.7`.

    An IPv6 client usually has a whole /64 network, so its object is that of the network:
    `ip-2001:db8:1:2::`. If the request comes from one of ECHO_TRUSTED_PROXIES, the client is the
    last address in X-Forwarded-For that is not one of them. With any trusted proxy, the peer on a
    UNIX socket is one, too. What is not an address ends the search: the client is then the proxy
    that has added it.
    """
    client, proxies = scope.get("client"), conf.ECHO_TRUSTED_PROXIES
    address = _parse(str(client[0])) if client else None
    if proxies:
        forwarded = _forwarded_for(scope)
        while forwarded and (address is None or _is_in(address, proxies)):
            previous = _parse(forwarded.pop())
            if previous is None:
                break
            address = previous
    if address is None:
        return UNKNOWN
    if address.version == 6:
        return f"ip-{ipaddress.ip_network((address, 64), strict=False).network_address}"
    return f"ip-{address}"


def _forwarded_for(scope: WebSocketScope) -> list[str]:
    headers = cast(Any, scope)["headers"]
    values = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return ",".join(values).split(",") if values else []


def _parse(text: str) -> Address | None:
    """Return the address; an IPv4 address for an IPv6 address that contains one.

    Some proxies append the port of the client: `192.0.2.7:4711`, `[2001:db8::1]:4711`.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in(address: Address, networks: frozenset[Network]) -> bool:
    return any(address.version == each.version and address in each for each in networks)
