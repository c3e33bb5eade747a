"""Doors to the site for other programs of the node: what they send goes through TLS that shows the node's certificate.

The key of that certificate stays here. A program asks for a door at the agent's socket and speaks HTTP through it; for
the tokens that it shows there it asks as well. A door closes with the certificate that it was opened with, also where
that has got a successor meanwhile; and soon after the node's credentials were taken away: what comes then is the news.
"""

import asyncio
import contextlib
from typing import Final

from umec_attest.agent.errors import DoorsBusy

__all__ = ["MOST_DOORS", "Door", "Doors"]

MOST_DOORS: Final = 32
"""Doors at once: a relay has one for its poll, some for answers, and one for an image."""
LAST_SECONDS: Final = 5.0
"""How long a door stays open after the node's credentials went: the statement that tells netd of it comes within two
seconds, on the connection that waits for requests. Every new request is refused by whom it is for."""
CHUNK: Final = 65536
"""Octets that are carried at once."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Door:
    """One connection to a server of the site, which waits for who goes through."""

    def __init__(self, doors: "Doors", far: Streams, seconds: float) -> None:
        self._doors = doors
        self._far = far
        self._seconds = seconds

    async def join(self, near: Streams) -> None:
        """Carry octets both ways until a side ends, the door is closed, or its time is over; then it is closed."""
        ways = [asyncio.create_task(_carry(one[0], other[1])) for one, other in ((near, self._far), (self._far, near))]
        try:
            await asyncio.wait(ways, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            self.close()
            await asyncio.gather(*ways, return_exceptions=True)

    def close(self) -> None:
        """End the connection at once."""
        self._doors.forget(self)
        self._far[1].transport.abort()


class Doors:
    """The open doors of one agent."""

    def __init__(self) -> None:
        self._open: set[Door] = set()
        self.last_seconds = LAST_SECONDS

    def check(self) -> None:
        """Raise DoorsBusy where there is no room for another."""
        if len(self._open) >= MOST_DOORS:
            raise DoorsBusy(f"{MOST_DOORS} doors to the site are open")

    def open(self, far: Streams, seconds: float) -> Door:
        """Return a door on a connection, for that long."""
        door = Door(self, far, max(seconds, 0.0))
        self._open.add(door)
        return door

    def forget(self, door: Door) -> None:
        """Have a door count no more."""
        self._open.discard(door)

    def close(self) -> None:
        """Close all of them."""
        for door in list(self._open):
            door.close()

    def close_soon(self) -> None:
        """Close those that are open now, after a while."""
        loop = asyncio.get_running_loop()
        for door in self._open:
            loop.call_later(self.last_seconds, door.close)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
