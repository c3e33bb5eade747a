"""Ask again and again from a camera's namespace, and print what came back: a process of its own, one line an attempt.

python -m umec_platform.demo.probe http ADDRESS PORT
python -m umec_platform.demo.probe dns RESOLVER NAME
"""

import http.client
import json
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable

__all__ = ["main"]

EVERY_SECONDS = 0.05
PATIENCE_SECONDS = 0.4
"""Long for two hosts on one machine; an attempt that takes longer has failed."""


def ask_http(address: str, port: str) -> str | None:
    """Return the body of one GET over a new connection, or None."""
    connection = http.client.HTTPConnection(address, int(port), timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.read(4096).decode() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def ask_dns(resolver: str, name: str) -> str | None:
    """Return the first IPv4 address of one query (RFC 1035) over UDP, or None."""
    number = secrets.randbits(16)
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(PATIENCE_SECONDS)
        try:
            asked.sendto(query, (resolver, 53))
            answer = asked.recv(512)
        except OSError:
            return None
    told, flags, _, answers = struct.unpack(">4H", answer[:8])
    if told != number or flags & 0x000F or answers == 0:
        return None
    return socket.inet_ntoa(answer[-4:])


PROBES: dict[str, Callable[[str, str], str | None]] = {"http": ask_http, "dns": ask_dns}


def main() -> None:
    """Probe until the process is killed."""
    kind, where, what = sys.argv[1:4]
    while True:
        asked = time.monotonic()
        answer = PROBES[kind](where, what)
        line = {"asked": asked, "at": time.monotonic(), "answer": answer}
        print(json.dumps(line), flush=True)  # noqa: T201 - this is the output
        time.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    main()
