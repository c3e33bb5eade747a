"""What listens around an application that was taken over, and that it is reached from where it may be."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import StreetNode, inside

__all__ = ["ABSTRACT", "PORT", "Surroundings"]

PORT: Final = 22
"""Where site, node and camera listen: what somebody who got out of the container would try first."""

ABSTRACT: Final = "\0umec-demo"
"""A socket of the node without a file: its name belongs to the node's network."""

_LISTEN: Final = f"""
import socket, sys
port = socket.create_server(("0.0.0.0", {PORT}))
local = socket.socket(socket.AF_UNIX)
local.bind({ABSTRACT!r})
local.listen()
print("there", flush=True)
sys.stdin.read()
"""

_CONNECT: Final = """
import socket, sys
source, address, port = sys.argv[1:]
socket.create_connection((address, int(port)), 5, (source, 0) if source else None)
"""

_CONNECT_LOCAL: Final = f"import socket; socket.socket(socket.AF_UNIX).connect({ABSTRACT!r})"


class Surroundings:
    """Listeners on the site, on one node and on the camera beside it."""

    def __init__(self, run: Run, node: StreetNode) -> None:
        self._node = node
        line = [sys.executable, "-c", _LISTEN]
        for one in (line, inside(node.name, line), inside(node.camera, line)):
            process = subprocess.Popen(one, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            run.clean_up.callback(process.wait)
            run.clean_up.callback(process.kill)
            if process.stdout is None or process.stdout.readline() != "there\n":
                raise Broken(f"nothing listens: {one}")

    def check_reached(self, namespace: str, places: Sequence[tuple[str, int]], *, source: str = "") -> None:
        """Raise `Broken` unless each of these addresses and ports is reached from a namespace, and answers `source`."""
        for address, port in places:
            self._check(namespace, [_CONNECT, source, address, str(port)], f"{address} port {port}")

    def check_local(self) -> None:
        """Raise `Broken` unless the socket without a file is reached from the node."""
        self._check(self._node.name, [_CONNECT_LOCAL], "the socket without a file")

    def _check(self, namespace: str, words: list[str], what: str) -> None:
        line = inside(namespace, [sys.executable, "-c", *words])
        if subprocess.run(line, check=False, capture_output=True).returncode != 0:
            raise Broken(f"{what} is not reached from {namespace} either")
