"""The nodes of a simulated fleet over HTTPS: each does its round when it is due, as an agent does.

A round is a challenge, evidence and a verdict over the node's own connection, which is kept until the next round, as an
agent keeps it. Unlike an agent, a node here does not look who answers: all of them share one core, and a certificate's
path takes a quarter of what a new connection takes on their side. What failed is tried again after a pause that grows;
evidence whose answer did not come is sent again, because nobody knows whether it counted. A verifier that says 503 is
asked again after the time that it says.
"""

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umec_attest.testing.fleet.node import SimulatedNode

__all__ = ["Fleet", "Tally"]

LONGEST_ANSWER = 2**20
PATIENCE = 15.0
"""Seconds that an agent waits for an answer."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 8.0
REPLAYED, LOG_REQUIRED = "evidence-replayed", "boot-log-required"
GOOD = "trusted"


@dataclass
class Tally:
    """What became of the rounds. Times are in seconds; `standings` counts the standing in each answer."""

    answered: Counter[str] = field(default_factory=Counter)
    """Answered rounds by node."""
    standings: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    """Connections that failed, or were lost."""
    busy: int = 0
    """503s."""
    counted: int = 0
    """Evidence that had counted although its answer was lost."""
    missed: int = 0
    """Rounds that had no verdict when the next one was due."""
    spent: list[float] = field(default_factory=list)
    """From asking for the challenge to the verdict, of attempts that had one."""
    late: list[float] = field(default_factory=list)
    """From the time when a round was due to its verdict."""
    lag: list[float] = field(default_factory=list)
    """How much later than due a round began: the load's own fault."""
    asking: int = 0
    """Nodes that have a challenge and no verdict, now."""


class Refused(Exception):
    """An answer other than 2xx: its status, its code, and how long to wait."""

    def __init__(self, status: int, code: str, wait: float | None) -> None:
        super().__init__(code)
        self.status, self.code, self.wait = status, code, wait


class Connection:
    """One TLS connection to the verifier."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, trust: ssl.SSLContext) -> "Connection":
        """Connect and check who is there."""
        opening = asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname="localhost", limit=LONGEST_ANSWER
        )
        return cls(*await opening)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises `Refused`, OSError, EOFError."""
        content = json.dumps(body).encode()
        head = f"POST /attest/v1/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        answer = await self._reader.readexactly(int(fields.get("content-length", "0")))
        if status // 100 != 2:
            wait = fields.get("retry-after")
            raise Refused(status, _code(answer), None if wait is None else float(wait))
        return dict(json.loads(answer))

    def lost(self) -> bool:
        """Tell whether the verifier hung up."""
        return self._reader.at_eof()

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def _code(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["code"])
    except (ValueError, KeyError, TypeError):
        return "no-problem-json"


class Fleet:
    """Nodes whose rounds are spread evenly over the time of a round."""

    def __init__(self, nodes: Sequence[SimulatedNode], port: int, *, period: float) -> None:
        self.nodes = nodes
        self.tally = Tally()
        self._port = port
        self._trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trust.check_hostname = False
        self._trust.verify_mode = ssl.CERT_NONE
        self._period = period
        self._asked = asyncio.Event()
        self._kept: dict[str, Connection] = {}
        self._random = random.Random(0)  # noqa: S311 - spread, no secret

    async def run(self, seconds: float, *, join: float) -> None:
        """Do the rounds of all nodes for so long; a round that began is ended.

        The first rounds are spread over `join` seconds.
        """
        begin = time.monotonic()
        lives = (
            self._life(node, begin + join * number / len(self.nodes), begin + seconds)
            for number, node in enumerate(self.nodes)
        )
        await asyncio.gather(*lives)

    async def in_mid_round(self) -> None:
        """Return as soon as a node has answered a challenge and waits for the verdict."""
        self._asked.clear()
        await self._asked.wait()

    async def _life(self, node: SimulatedNode, due: float, end: float) -> None:
        while due < end:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            node.run(round(self._period * 1000))
            self.tally.lag.append(time.monotonic() - due)
            if await self._round(node, due + self._period):
                self.tally.late.append(time.monotonic() - due)
            else:
                self.tally.missed += 1
            due += self._period

    async def _round(self, node: SimulatedNode, give_up: float) -> bool:
        failures, evidence = 0, None
        while time.monotonic() < give_up:
            pause = 0.0
            try:
                await self._attempt(node, evidence)
            except Lost as lost:
                evidence = lost.evidence
                self.tally.broken += 1
                failures += 1
                pause = self._pause(failures)
            except Refused as refused:
                evidence = None
                failures += 1
                pause = self._after(refused, failures)
                if refused.code == REPLAYED:
                    self.tally.counted += 1
                    return True
            else:
                return True
            await asyncio.sleep(pause)
        return False

    async def _attempt(self, node: SimulatedNode, evidence: dict[str, Any] | None) -> None:
        """Ask and answer, or send evidence again. Raises `Lost` with the evidence that may have counted, `Refused`."""
        began = time.monotonic()
        connection = self._kept.pop(node.name, None)
        try:
            async with asyncio.timeout(PATIENCE):
                if connection is None or connection.lost():
                    connection = await Connection.open(self._port, self._trust)
                if evidence is None:
                    evidence = node.evidence(await connection.post("challenges", {"node": node.name}))
                answer = await self._send(connection, evidence)
        except (OSError, EOFError, TimeoutError) as error:
            if connection is not None:
                connection.close()
            raise Lost(evidence) from error
        except Refused:
            self._kept[node.name] = connection
            raise
        self._kept[node.name] = connection
        self.tally.spent.append(time.monotonic() - began)
        self.tally.answered[node.name] += 1
        self.tally.standings[answer["standing"]] += 1

    async def _send(self, connection: Connection, evidence: dict[str, Any]) -> dict[str, Any]:
        self.tally.asking += 1
        self._asked.set()
        try:
            return await connection.post("evidence", evidence)
        finally:
            self.tally.asking -= 1

    def _after(self, refused: Refused, failures: int) -> float:
        """Count a refusal, and return how long to wait after it."""
        if refused.status == 503:
            self.tally.busy += 1
            return (refused.wait or FIRST_PAUSE) * self._random.uniform(1.0, 1.5)
        self.tally.refused[refused.code] += 1
        return 0.0 if refused.code == LOG_REQUIRED else self._pause(failures)

    def _pause(self, failures: int) -> float:
        whole = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))
        return self._random.uniform(whole / 2, whole)


class Lost(Exception):
    """A connection that failed; `evidence` was sent, or is to be sent, again."""

    def __init__(self, evidence: dict[str, Any] | None) -> None:
        super().__init__()
        self.evidence = evidence
