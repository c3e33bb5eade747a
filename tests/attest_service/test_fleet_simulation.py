"""A fleet lives and is tampered with, through the whole service: no false alarm, and nothing missed.

The usual run is a sample; UMEC_FLEET_EVENTS says how many events of each kind of life there are, UMEC_FLEET_SEED which.
"""

import asyncio
import base64
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from umec_attest.service import AttestService
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import SAVED_EVERY, Boot, SimulatedNode
from umec_attest.testing.fleet.tampering import TAMPERINGS, Scene, Tampering
from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_attest.testing.image import Tamper, make_image
from umec_core.errors import UmecError

EVENTS = int(os.environ.get("UMEC_FLEET_EVENTS", "24"))
SEED = int(os.environ.get("UMEC_FLEET_SEED", "1"))
ROUND = 30.0
LOG_REQUIRED = "boot-log-required"
PROGRAMS = [("/usr/sbin/init", b"init"), ("/usr/bin/umec", b"agent"), ("/usr/lib/libc.so.6", b"libc")]
HARMLESS = {"rebooted", "clock-unsafe"}


class World:
    """An open verifier, which can be closed and opened again, and a clock that is moved."""

    def __init__(self, folder: Path, clock: Any, **changes: Any) -> None:
        self.clock = clock
        self.verifier = FleetVerifier(folder / "verifier", clock=clock, **changes)
        image = make_image(folder / "image")
        self.boot = Boot.of(image)
        self.updated = Boot.of(make_image(folder / "updated", kernel=b"the kernel of the next version"))
        self.changed = {tamper.value: Boot.of(image, tamper=tamper) for tamper in Tamper}
        self.service: AttestService

    async def open(self, count: int) -> list[SimulatedNode]:
        nodes = [
            SimulatedNode(f"node-{number}", make_keys(number, rsa_ak=number % 4 == 1), self.boot, programs=PROGRAMS)
            for number in range(count)
        ]
        await self.verifier.enrol(nodes)
        self.service = await self.verifier.open()
        await self.verifier.install(self.service, self.verifier.reference([self.boot, self.updated], programs=PROGRAMS))
        for node in nodes:
            answer = await self.round(node)
            assert answer["standing"] == "trusted", answer
        return nodes

    async def reopen(self) -> None:
        await self.service.close()
        self.service = await self.verifier.open()

    async def challenge(self, node: str) -> dict[str, Any]:
        return dict(await self.service.rounds.challenge(node))

    async def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        return dict(await self.service.rounds.submit(EvidenceRequest.model_validate(body), address="192.0.2.1"))

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def round(self, node: SimulatedNode, challenge: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do a round as an agent does: where the log is wanted after all, ask again."""
        try:
            return await self.submit(node.evidence(challenge or await self.challenge(node.name)))
        except UmecError as error:
            if error.code != LOG_REQUIRED:
                raise
        return await self.submit(node.evidence(await self.challenge(node.name)))


# --- an honest life ---------------------------------------------------------------------------------------------------


class Life:
    """What happens to an honest node between two rounds, or in the middle of one."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world = world
        self.chance = chance
        self.events: dict[str, Callable[[SimulatedNode], Awaitable[dict[str, Any]]]] = {
            "nothing": self.world.round,
            "reboot": self.moved(SimulatedNode.reboot),
            "reboots": self.moved(lambda node: [node.reboot() for _ in range(chance.randrange(2, 9))]),
            "power cut": self.moved(SimulatedNode.cut_power),
            "power cuts": self.moved(lambda node: [node.cut_power() for _ in range(chance.randrange(2, 9))]),
            "hibernation": self.moved(lambda node: (self.programs_start(node), node.hibernate())),
            "suspend": self.moved(SimulatedNode.suspend),
            "update": self.moved(lambda node: node.reboot(self.world.updated)),
            "roll back": self.moved(lambda node: node.cut_power(self.world.boot)),
            "clock of the TPM set forward": self.moved(lambda node: node.run(chance.randrange(2 * SAVED_EVERY))),
            "reboot in mid-round": self.amid(SimulatedNode.reboot),
            "power cut in mid-round": self.amid(SimulatedNode.cut_power),
            "suspend in mid-round": self.amid(SimulatedNode.suspend),
            "programs start": self.moved(self.programs_start),
            "programs start in mid-round": self.amid(self.programs_start),
            "a program starts behind the quote": self.starts_behind_the_quote,
            "agent asks twice": self.asks_twice,
            "answer lost": self.answer_lost,
            "verifier restarts in mid-round": self.verifier_restarts,
            "clock of the verifier set forward": self.verifier_jumps(lambda: chance.uniform(60, 86400)),
            "clock of the verifier set back": self.verifier_jumps(lambda: -chance.uniform(1, 3600)),
        }

    def moved(self, move: Callable[[SimulatedNode], Any]) -> Callable[[SimulatedNode], Awaitable[dict[str, Any]]]:
        async def happen(node: SimulatedNode) -> dict[str, Any]:
            move(node)
            return await self.world.round(node)

        return happen

    def amid(self, move: Callable[[SimulatedNode], Any]) -> Callable[[SimulatedNode], Awaitable[dict[str, Any]]]:
        async def happen(node: SimulatedNode) -> dict[str, Any]:
            challenge = await self.world.challenge(node.name)
            move(node)
            return await self.world.round(node, challenge)

        return happen

    def programs_start(self, node: SimulatedNode) -> None:
        for path, content in self.chance.choices(PROGRAMS, k=self.chance.randrange(1, 9)):
            node.start(path, content)

    async def starts_behind_the_quote(self, node: SimulatedNode) -> dict[str, Any]:
        challenge = await self.world.challenge(node.name)
        self.programs_start(node)
        body = node.evidence(challenge)
        node.start("/usr/bin/umec", b"agent")
        assert node.runtime is not None
        longer = b"".join(node.runtime.entries[challenge["ima"]["from"] :])
        return await self.world.submit(body | {"ima": base64.b64encode(longer).decode()})

    async def asks_twice(self, node: SimulatedNode) -> dict[str, Any]:
        await self.world.challenge(node.name)
        return await self.world.round(node)

    async def answer_lost(self, node: SimulatedNode) -> dict[str, Any]:
        body = node.evidence(await self.world.challenge(node.name))
        answer = await self.world.submit(body)
        with pytest.raises(UmecError) as refused:
            await self.world.submit(body)
        assert refused.value.code in {"evidence-replayed", "nonce-superseded"}
        return answer

    async def verifier_restarts(self, node: SimulatedNode) -> dict[str, Any]:
        challenge = await self.world.challenge(node.name)
        await self.world.reopen()
        return await self.world.round(node, challenge)

    def verifier_jumps(self, by: Callable[[], float]) -> Callable[[SimulatedNode], Awaitable[dict[str, Any]]]:
        async def happen(node: SimulatedNode) -> dict[str, Any]:
            self.world.wait(by())
            await self.world.service.look()
            return await self.world.round(node)

        return happen


async def live(world: World, nodes: list[SimulatedNode], events: int) -> Counter[str]:
    """Let as many things happen; return how often each did. Any alarm fails."""
    chance = random.Random(SEED)  # noqa: S311 - repeatable chance
    life = Life(world, chance)
    names = list(life.events)
    done: Counter[str] = Counter(dict.fromkeys(names, 0))
    while done.total() < events:
        for node in nodes:
            name = names[done.total()] if done.total() < len(names) else chance.choice(names)
            node.run(round(ROUND * 1000))
            answer = await life.events[name](node)
            found = {finding["id"] for finding in answer["findings"]}
            assert (answer["standing"], found - HARMLESS) == ("trusted", set()), (name, answer)
            done[name] += 1
            world.wait(ROUND / len(nodes))
            await world.service.look()
    return done


def test_an_honest_life_raises_no_alarm(tmp_path: Path, clock: Any) -> None:
    async def body() -> None:
        world = World(tmp_path, clock)
        nodes = await world.open(4)
        try:
            clock.advance(7 * 86400)  # the signed reference set is older than any clock that is set back
            for node in nodes:
                assert (await world.round(node))["standing"] == "trusted"
            done = await live(world, nodes, EVENTS)
            assert done.total() >= EVENTS
            assert min(done.values()) >= 1
            changes = await standing_changes(world)
        finally:
            await world.service.close()
        assert changes == {"trusted": len(nodes)}

    asyncio.run(body())


def test_a_hibernation_after_programs_ran_raises_no_alarm(tmp_path: Path, clock: Any) -> None:
    """PCR 10 and the list begin anew, and the TPM counts no reset: what was judged before is of no use."""

    async def body() -> None:
        world = World(tmp_path, clock)
        (node,) = await world.open(1)
        try:
            node.start(*PROGRAMS[0])
            assert (await world.round(node))["standing"] == "trusted"
            node.hibernate()
            node.run(1000)
            answer = await world.round(node)
            assert (answer["standing"], answer["findings"]) == ("trusted", [])
        finally:
            await world.service.close()

    asyncio.run(body())


async def standing_changes(world: World) -> Counter[str]:
    """Count what nodes became, by the audit log."""
    log = await world.verifier.audit_log(world.service)
    return Counter(entry["facts"]["to"] for entry in log["entries"] if entry["action"] == "standing.change")


# --- tampering --------------------------------------------------------------------------------------------------------


async def attempt(world: World, tampering: Tampering, node: SimulatedNode, other: SimulatedNode, chance: Any) -> str:
    """Tamper once; return what went wrong, "" if it was noticed for its reason and the node found its way back."""
    scene = Scene(world, node, other, world.changed, chance)
    body = await tampering.act(scene, await world.challenge(node.name))
    try:
        answer = await world.submit(body)
    except UmecError as error:
        said, standing = {error.code}, "refused"
    else:
        said, standing = {finding["id"] for finding in answer["findings"]}, answer["standing"]
    if standing == "trusted" or (standing != "refused" and answer["ear"] is not None):
        return f"missed: {standing}"
    if not said & tampering.codes:
        return f"another reason: {sorted(said)}"
    node.reboot(world.boot)
    back = await world.round(node)
    return "" if back["standing"] == "trusted" else f"no way back: {back}"


def test_each_tampering_is_noticed_for_its_reason(tmp_path: Path, clock: Any) -> None:
    kinds = list(TAMPERINGS.values())
    assert len(kinds) >= 57

    async def body() -> dict[str, str]:
        world = World(tmp_path, clock, round_seconds=3600, silent_rounds=100)
        node, other = await world.open(2)
        chance = random.Random(SEED)  # noqa: S311 - repeatable chance
        chosen = kinds + [chance.choice(kinds) for _ in range(EVENTS - len(kinds))]
        try:
            found = {}
            for number, kind in enumerate(chosen):
                node.run(1000)
                wrong = await attempt(world, kind, node, other, chance)
                if wrong:
                    found[f"{number} {kind.name}"] = wrong
        finally:
            await world.service.close()
        return found

    assert asyncio.run(body()) == {}
