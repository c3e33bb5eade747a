"""Where the keys of a peer come from: known beforehand, or read from its key set."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from umec_core.clock import Clock
from umec_core.errors import UmecError
from umec_core.jose import KeySet, strict_json
from umec_core.tokens.errors import KeysUnavailable

__all__ = ["KEYS_LIFE", "HttpGet", "RemoteKeys", "StaticKeys"]

REFETCH: Final = timedelta(seconds=10)
"""A key set is fetched at most this often, so that made-up key identifiers cannot drive us to ask its owner."""

KEYS_LIFE: Final = timedelta(minutes=5)
"""A key set is fetched anew after this time, so that a withdrawn key goes."""

MAX_JWKS: Final = 64 * 1024
"""Bytes of a key set."""


class StaticKeys:
    """A key set that is known beforehand."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def keys(self, kid: str | None) -> KeySet:  # noqa: ARG002 - nothing to read anew
        """Return the set."""
        return self._keys


class HttpGet(Protocol):
    """What `RemoteKeys` needs of an HTTP client: returns the body of a 200 answer, raises `Unavailable` otherwise."""

    async def __call__(self, url: str, *, limit: int) -> bytes:
        """Return the body, of at most `limit` bytes."""
        ...


class RemoteKeys:
    """The key set behind a URL: read when first needed, kept for five minutes, read anew for an unknown identifier."""

    def __init__(self, url: str, get: HttpGet, *, clock: Clock) -> None:
        self._url = url
        self._get = get
        self._clock = clock
        self._known: KeySet | None = None
        self._read_at: datetime | None = None
        self._asked_at = datetime.min.replace(tzinfo=UTC)
        self._lock = asyncio.Lock()

    async def keys(self, kid: str | None) -> KeySet:
        """Return the set; raises `KeysUnavailable` while none could be read.

        A set that is older than `KEYS_LIFE` and cannot be renewed is not used.
        """
        if self._fresh(kid) is None and self._may_ask(kid):
            async with self._lock:
                if self._fresh(kid) is None and self._may_ask(kid):
                    await self._read()
        known = self._fresh(None)
        if known is None:
            raise KeysUnavailable(f"the keys at {self._url} cannot be read", advice="is that service up?")
        return known

    def _fresh(self, kid: str | None) -> KeySet | None:
        if self._known is None or self._read_at is None or self._clock() - self._read_at > KEYS_LIFE:
            return None
        return self._known if kid is None or kid in self._known else None

    def _may_ask(self, kid: str | None) -> bool:
        """A first reading may be repeated at once; one for an unknown identifier waits its turn."""
        waits = self._fresh(None) is not None and kid is not None
        return not waits or self._clock() - self._asked_at >= REFETCH

    async def _read(self) -> None:
        self._asked_at = self._clock()
        try:
            read = KeySet.from_jwks(strict_json(await self._get(self._url, limit=MAX_JWKS)), strict=False)
        except (UmecError, OSError):
            return
        self._known, self._read_at = read, self._asked_at
