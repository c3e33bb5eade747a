"""Events within one process: who waits for a topic wakes when something is published under it.

Nothing is kept: what must not be lost is a row first (see `umec_core.outbox`), and the event only says "look again".
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["Events", "Subscription"]

MAX_WAITING: Final = 1024
"""Events that wait for one slow subscriber; the oldest goes first, for a newer one says "look again" too."""


class Subscription:
    """What one subscriber has not seen yet; iterate over it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(MAX_WAITING)

    def put(self, payload: Mapping[str, Any]) -> None:
        """Hand over an event without waiting."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(payload)

    async def get(self) -> Mapping[str, Any]:
        """Wait for the next event."""
        return await self._queue.get()

    async def __aiter__(self) -> AsyncIterator[Mapping[str, Any]]:
        while True:
            yield await self._queue.get()


class Events:
    """The bus of one process. Use it from its event loop only."""

    def __init__(self) -> None:
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        """Hand an event to everybody who is subscribed now."""
        for subscription in self._subscriptions.get(topic, ()):
            subscription.put(payload)

    @contextmanager
    def subscription(self, topic: str) -> Iterator[Subscription]:
        """Subscribe at once (not only when it is first awaited) until the block ends."""
        subscription = Subscription()
        self._subscriptions[topic].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[topic].discard(subscription)
            if not self._subscriptions[topic]:
                del self._subscriptions[topic]

    async def subscribe(self, topic: str) -> AsyncIterator[Mapping[str, Any]]:
        """Iterate over the events of a topic, beginning with the first step of the iteration."""
        with self.subscription(topic) as subscription:
            while True:
                yield await subscription.get()
