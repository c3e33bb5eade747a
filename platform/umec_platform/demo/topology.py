"""The street: a site with the authority and the MEC platform, two nodes, and a camera beside each node.

    camera-a ── 192.0.2.0/25 ── node-a ── 10.99.0.0/24 (bridge) ── site (the run's own namespace)
    camera-b ── 192.0.2.128/25 ── node-b ──┘

Every one of them is a network namespace; the links are veth pairs; the packets are real.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["ACCESS_INTERFACE", "NODES", "SITE_ADDRESS", "Street", "StreetNode", "build_street", "inside"]

SITE_ADDRESS: Final = "10.99.0.1"
ACCESS_INTERFACE: Final = "access"


@dataclass(frozen=True, slots=True)
class StreetNode:
    """A node, the tenant whose applications run there, and the camera beside it."""

    name: str
    tenant: str
    camera: str
    uplink: str
    access: str
    camera_address: str
    pool: str

    @property
    def access_address(self) -> str:
        """The node's address on the camera's side, without its prefix length."""
        return self.access.partition("/")[0]


NODES: Final = (
    StreetNode("node-a", "city", "camera-a", "10.99.0.11/24", "192.0.2.1/25", "192.0.2.10/25", "10.64.0.0/16"),
    StreetNode("node-b", "transit", "camera-b", "10.99.0.12/24", "192.0.2.129/25", "192.0.2.138/25", "10.65.0.0/16"),
)


@dataclass(frozen=True, slots=True)
class Street:
    """The namespaces, built."""

    nodes: Sequence[StreetNode]


def inside(namespace: str, command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` in a network namespace, with this mount namespace as it is."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "--", *command]


def build_street(nodes: Sequence[StreetNode] = NODES) -> Street:
    """Make the namespaces, the links and the addresses."""
    _ip("link add site type bridge")
    _ip("link set site up")
    _ip(f"address add {SITE_ADDRESS}/24 dev site")
    for node in nodes:
        for namespace in (node.name, node.camera):
            _ip(f"netns add {namespace}")
            _ip(f"-n {namespace} link set lo up")
        _ip(f"link add {node.name} type veth peer name uplink netns {node.name}")
        _ip(f"link set {node.name} master site up")
        _ip(f"-n {node.name} address add {node.uplink} dev uplink")
        _ip(f"-n {node.name} link set uplink up")
        _ip(f"-n {node.name} link add {ACCESS_INTERFACE} type veth peer name eth0 netns {node.camera}")
        _ip(f"-n {node.name} address add {node.access} dev {ACCESS_INTERFACE}")
        _ip(f"-n {node.name} link set {ACCESS_INTERFACE} up")
        _ip(f"-n {node.camera} address add {node.camera_address} dev eth0")
        _ip(f"-n {node.camera} link set eth0 up")
        _ip(f"-n {node.camera} route add default via {node.access_address}")
        _ip(f"-n {node.name} route add default via {SITE_ADDRESS}")
        # Whoever answers an application finds the way back to it: what keeps it in is netd, and no missing route.
        _ip(f"route add {node.pool} via {node.uplink.partition('/')[0]}")
    return Street(nodes)


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)
