"""The rules in the kernel: a few changes at a time or all at once, each as one atomic batch.

Every operation blocks until the kernel has answered: `service` calls them all in threads.
"""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Concatenate, ParamSpec

from umec_platform.netd.boxes import CompiledRule
from umec_platform.netd.nft import Command, Nftables
from umec_platform.netd.table import (
    DELETE_TABLES,
    TABLE,
    MapName,
    Plan,
    base,
    bridge_elements,
    chains,
    create_map,
    elements,
    live_element,
)

__all__ = ["DataPlane"]


P = ParamSpec("P")


def _one_at_a_time(
    operation: Callable[Concatenate["DataPlane", P], None],
) -> Callable[Concatenate["DataPlane", P], None]:
    """A thread runs on when whoever waited for it is cancelled: the next one waits for it."""

    @functools.wraps(operation)
    def guarded(self: "DataPlane", /, *args: P.args, **kwargs: P.kwargs) -> None:
        with self.guard:
            operation(self, *args, **kwargs)

    return guarded


class DataPlane:
    """Owner of the table `inet umec` in the network namespace in which it was made."""

    def __init__(self, nft: Nftables, plan: Plan) -> None:
        self._nft = nft
        self._plan = plan
        self.guard = threading.Lock()
        self._maps: set[MapName] = set()

    @_one_at_a_time
    def install(self) -> None:
        """Make the table anew, without rules."""
        self._nft.run(base(self._plan))
        self._maps = set()

    @_one_at_a_time
    def remove(self) -> None:
        """Leave nothing behind."""
        self._nft.run(DELETE_TABLES)
        self._maps = set()

    @_one_at_a_time
    def add_bridge(self, name: str) -> None:
        """Take a tenant's bridge under control: before this its packets are not forwarded at all."""
        self._nft.run(bridge_elements("add", name))

    @_one_at_a_time
    def remove_bridge(self, name: str) -> None:
        """Forget a bridge that is gone."""
        self._nft.run(bridge_elements("delete", name))

    @_one_at_a_time
    def admit(self, bridge: str, address: str) -> None:
        """Let the packets of one instance through, as far as rules allow."""
        self._nft.run([{"add": {"element": {**TABLE, "name": "live", "elem": [live_element(bridge, address)]}}}])

    @_one_at_a_time
    def expel(self, bridge: str, address: str) -> None:
        """Cut one instance off; an instance that was never admitted is cut off already."""
        element = {**TABLE, "name": "live", "elem": [live_element(bridge, address)]}
        self._nft.run([{"add": {"element": element}}, {"delete": {"element": element}}])

    @_one_at_a_time
    def change(self, *, add: Iterable[CompiledRule] = (), delete: Iterable[CompiledRule] = ()) -> None:
        """Remove rules and add others in one batch: no packet sees the state between."""
        added = elements(list(add))
        commands = self._make_maps(added)
        for name, members in elements(list(delete)).items():
            keys = [key for key, _ in members]
            commands.append({"delete": {"element": {**name.place, "name": str(name), "elem": keys}}})
        commands += _additions(added)
        if commands:
            self._nft.run(commands)
            self._maps |= set(added)

    @_one_at_a_time
    def replace(self, rules: Iterable[CompiledRule], live: Iterable[tuple[str, str]]) -> None:
        """Set all rules and all live instances (bridge, address) at once; nothing given withdraws everything."""
        wanted = elements(list(rules))
        commands = chains([])
        commands += [{"delete": {"map": {**name.place, "name": str(name)}}} for name in self._maps]
        commands += [create_map(name) for name in wanted] + chains(wanted) + _additions(wanted)
        commands.append({"flush": {"set": {**TABLE, "name": "live"}}})
        admitted = [live_element(bridge, address) for bridge, address in live]
        if admitted:
            commands.append({"add": {"element": {**TABLE, "name": "live", "elem": admitted}}})
        self._nft.run(commands)
        self._maps = set(wanted)

    def _make_maps(self, wanted: Mapping[MapName, Any]) -> list[Command]:
        fresh = set(wanted) - self._maps
        if not fresh:
            return []
        return [create_map(name) for name in fresh] + chains(self._maps | fresh)


def _additions(members: Mapping[MapName, list[Any]]) -> list[Command]:
    return [
        {"add": {"element": {**name.place, "name": str(name), "elem": entries}}} for name, entries in members.items()
    ]
