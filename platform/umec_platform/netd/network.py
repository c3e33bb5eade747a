"""Bridges and veths in the network namespace of netd, and the one interface of each container in its own.

pyroute2 is used for links, addresses and routes only. Names are made of numbers: nothing of a tenant is in them. All
functions block (some milliseconds): call them from a worker thread.
"""

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from umec_platform.netd.errors import LinkFailed, NetdRunning

__all__ = [
    "BRIDGE_PREFIX",
    "VETH_PREFIX",
    "Forwarding",
    "add_bridge",
    "check_access",
    "namespace_lock",
    "plug",
    "remove_link",
    "set_plugged",
    "sweep",
]

BRIDGE_PREFIX: Final = "umb"
VETH_PREFIX: Final = "umv"
_CLONE_NEWNET: Final = 0x40000000
_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")

T = TypeVar("T")


@contextlib.contextmanager
def namespace_lock() -> Iterator[None]:
    """Be the only netd of this network namespace; raises `NetdRunning`.

    Abstract socket names belong to a network namespace, and the kernel frees them when their process ends.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as name:
        try:
            name.bind("\0umec-netd")
        except OSError as error:
            raise NetdRunning("another netd runs in this network namespace") from error
        yield


class Forwarding:
    """Turns on the forwarding of IPv4 packets, and at the end sets it back to what it was."""

    def __init__(self) -> None:
        self._before: str | None = None

    def enable(self) -> None:
        """Raises `LinkFailed` where /proc/sys is read-only."""
        try:
            self._before = _FORWARD.read_text()
            _FORWARD.write_text("1\n")
        except OSError as error:
            raise LinkFailed(f"forwarding cannot be turned on: {error}") from error

    def restore(self) -> None:
        """Set forwarding back."""
        if self._before is not None:
            _FORWARD.write_text(self._before)


def check_access(interface: str, address: IPv4Interface) -> None:
    """Check that the access interface is there and has its address; raises `LinkFailed`."""
    with _links() as links:
        index = _index(links, interface)
        held = {message.get_attr("IFA_ADDRESS") for message in links.get_addr(index=index)}
    if str(address.ip) not in held:
        raise LinkFailed(
            f"interface {interface} has not the address {address.ip}",
            advice="give the host's address on that interface",
        )


def add_bridge(name: str, gateway: IPv4Interface) -> None:
    """Make a bridge with the gateway's address, without IPv6; raises `LinkFailed`."""
    with _links() as links:
        _do(links, "add", ifname=name, kind="bridge", br_forward_delay=0, br_mcast_snooping=0)
        _without_ipv6(name)
        index = _index(links, name)
        try:
            links.addr("add", index=index, address=str(gateway.ip), prefixlen=gateway.network.prefixlen)
        except NetlinkError as error:
            raise LinkFailed(f"bridge {name} does not take {gateway}: {error}") from error
        _do(links, "set", index=index, state="up")


def plug(pid: int, *, veth: str, bridge: str, address: IPv4Address, subnet: IPv4Network) -> None:
    """Give the network namespace of a process its `eth0`: address, loopback, default route by the bridge.

    The host's end is left down: `set_plugged` connects it once the instance may be reached. Raises `LinkFailed`.
    """
    gateway = subnet.network_address + 1
    with _links() as links:
        _do(links, "add", ifname=veth, kind="veth", peer={"ifname": "eth0", "net_ns_pid": pid})
        _without_ipv6(veth)
        _do(links, "set", index=_index(links, veth), master=_index(links, bridge))

    def inside() -> None:
        with _links() as links:
            _do(links, "set", index=_index(links, "lo"), state="up")
            index = _index(links, "eth0")
            links.addr("add", index=index, address=str(address), prefixlen=subnet.prefixlen)
            _do(links, "set", index=index, state="up")
            # The host's end is down still, so the kernel takes the route only with "onlink".
            links.route("add", dst="default", gateway=str(gateway), oif=index, flags=["onlink"])

    _in_namespace(Path(f"/proc/{pid}/ns/net"), inside)


def set_plugged(veth: str, *, plugged: bool) -> None:
    """Connect or cut the host's end of a container's interface; raises `LinkFailed`."""
    with _links() as links:
        _do(links, "set", index=_index(links, veth), state="up" if plugged else "down")


def remove_link(name: str) -> None:
    """Remove an interface if it is there; raises `LinkFailed`."""
    with _links() as links:
        found = links.link_lookup(ifname=name)
        if found:
            _do(links, "del", index=found[0])


def sweep() -> list[str]:
    """Remove what an earlier netd left behind in this namespace, and return the names."""
    with _links() as links:
        names: list[str] = [link.get_attr("IFLA_IFNAME") for link in links.get_links()]
    left = [name for name in names if name.startswith((VETH_PREFIX, BRIDGE_PREFIX)) and name[3:4].isdigit()]
    for name in left:
        remove_link(name)
    return left


def _links() -> Any:  # noqa: ANN401 - pyroute2 has no types
    return IPRoute()


def _do(links: Any, command: str, **what: Any) -> None:  # noqa: ANN401 - pyroute2 has no types
    try:
        links.link(command, **what)
    except NetlinkError as error:
        raise LinkFailed(f"link {command} failed: {error}") from error


def _index(links: Any, name: str) -> int:  # noqa: ANN401 - pyroute2 has no types
    found = links.link_lookup(ifname=name)
    if not found:
        raise LinkFailed(f"there is no interface {name}")
    return int(found[0])


def _without_ipv6(name: str) -> None:
    switch = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if switch.exists():
        switch.write_text("1\n")


def _in_namespace(namespace: Path, work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own that has entered a network namespace: no other thread ever moves."""
    results: list[T] = []
    failures: list[Exception] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(descriptor)
            results.append(work())
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=enter, name="netd-namespace")
    thread.start()
    thread.join()
    if failures:
        raise LinkFailed(f"inside the container's network: {failures[0]}") from failures[0]
    return results[0]
