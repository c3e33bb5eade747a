"""What rules need of those who bring them to their hosts."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from umec_platform.effects import RuleKey

__all__ = ["Awaited", "Settler"]


class Awaited(Protocol):
    """A change of a rule that is waited for."""

    def expect(self, version: int) -> None:
        """Wait for what comes of this version of the rule's row."""
        ...


class Settler(Protocol):
    """Who knows what a host made of a rule: `hosts.fleet.Fleet` is one."""

    def settled(self, host: str, rule: RuleKey) -> AbstractAsyncContextManager[Awaited]:
        """Leave the block when the host has taken what was written in it; raises its refusal, or `HostSilent`."""
        ...
