"""A fleet of simulated nodes against a real verifier over HTTPS: missed deadlines, false alarms, and how long it takes.

    python benchmarks/fleet.py [--json] [--nodes 10000] [--seconds 600] [--period 30] [--join 90] [--kill-at 300]
                               [--postgresql] [--verifiers 1]

The verifier is a process on one core, the nodes are another process on the other; several verifiers share one port, one
database and all cores. Nodes are keys in that process that sign what a TPM would sign; they are written down as an
enrolment leaves them, and everything after that is theirs to do: a connection that is kept over the rounds, challenge,
evidence. `--kill-at S` kills the verifiers (SIGKILL) S seconds after the start, in the middle of rounds, and starts
them again five seconds later.

Exit status 1 if a node lapsed or fell, a verdict that a node was told is not in the database, the audit log does not
verify, or a round was missed.
"""

import asyncio
import contextlib
import gc
import signal
import ssl
import sys
import tempfile
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvloop
from fleetload import Fleet, Tally
from fleetserver import ERRORS, Verifier, certificate, verifier
from measuring import LOAD, SERVER, Row, at_most, options, percentile, pin, publish

from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_attest.testing.image import make_image
from umec_core.telemetry import configure_logging
from umec_core.testing import temporary_postgresql

__all__ = ["main"]

DOWN = 5.0
"""Seconds that a killed verifier is away."""
LATE = {"evidence-replayed", "nonce-expired", "nonce-superseded"}
"""What a node is told whose answer was lost or came late."""
NEWCOMERS = 111
"""A second, at most: a first round with its connection takes the verifier three times as long as a later one does."""
RSA_EVERY = 4
"""Every fourth AK is RSA-2048, as that of an older TPM is; the others are P-256, as the agent makes them."""


class Run:
    """One run: the verifier, its fleet, and what is found afterwards."""

    def __init__(self, given: Namespace, folder: Path, database: str | None) -> None:
        self._given = given
        self._database = database
        self.verifier = Verifier(folder, database, given.verifiers)
        self.site: FleetVerifier = verifier(folder, self.verifier.port, database)
        self.boot = Boot.of(make_image(folder / "image"))
        self.nodes = [
            SimulatedNode(f"node-{number}", make_keys(number, rsa_ak=number % RSA_EVERY == 0), self.boot)
            for number in range(given.nodes)
        ]
        self.trust = ssl.create_default_context(cafile=str(certificate(folder).ca))
        self.fleet = Fleet(self.nodes, self.verifier.port, period=given.period)
        self.under_way = 0
        """Rounds that had a challenge and no verdict when the verifier was killed."""
        self.growth = 0.0

    async def measure(self) -> list[Row]:
        """Enrol, let the time go by, and look at what there is."""
        await self.site.enrol(self.nodes)
        self.verifier.start()
        try:
            await self.verifier.answers(self.trust)
            await self._install()
            before = self.verifier.resident()
            async with self._fall():
                gc.freeze()  # the nodes stay, and the load must not stop to look at them
                await self.fleet.run(self._given.seconds, join=self._join())
            self.growth = self.verifier.resident() - before
        finally:
            self.verifier.end(signal.SIGTERM)
        return [*self._rows(self.fleet.tally), *await self._found(self.fleet.tally)]

    def _join(self) -> float:
        if self._given.join is not None:
            return float(self._given.join)
        return max(float(self._given.period), self._given.nodes / NEWCOMERS)

    async def _install(self) -> None:
        envelope = self.site.reference([self.boot])
        async with httpx.AsyncClient(verify=self.trust) as client:
            url = f"{self.site.settings.issuer}/reference-sets"
            (await client.post(url, content=envelope, headers=self.site.token("attest:admin"))).raise_for_status()

    @contextlib.asynccontextmanager
    async def _fall(self) -> AsyncIterator[None]:
        if self._given.kill_at is None:
            yield
            return
        falling = asyncio.create_task(self._kill())
        yield
        await falling

    async def _kill(self) -> None:
        await asyncio.sleep(self._given.kill_at)
        await self.fleet.in_mid_round()
        self.under_way = self.fleet.tally.asking
        self.verifier.end(signal.SIGKILL)
        await asyncio.sleep(DOWN)
        self.verifier.start()

    def _rows(self, tally: Tally) -> list[Row]:
        rounds, seconds = tally.answered.total(), self._given.seconds
        rows = [
            Row("nodes", self._given.nodes, ""),
            Row("rounds", rounds, ""),
            Row("rounds a second", rounds / seconds, "/s"),
            at_most("rounds without a verdict before the next one was due", tally.missed, "", 0),
            Row("from challenge to verdict, median", 1000 * percentile(tally.spent, 50), "ms"),
            Row("from challenge to verdict, p99", 1000 * percentile(tally.spent, 99), "ms"),
            Row("from due to verdict, p99", 1000 * percentile(tally.late, 99), "ms"),
            Row("from due to verdict, slowest", 1000 * max(tally.late), "ms"),
            Row("of that until the load began, p99", 1000 * percentile(tally.lag, 99), "ms"),
            Row("answers 503", tally.busy, ""),
            Row("connections lost or refused", tally.broken, ""),
            Row("processor time of the verifier for a round", 1000 * self.verifier.spent / rounds, "ms"),
            Row("share of a core that the verifier took", 100 * self.verifier.spent / seconds, "%"),
            Row("peak memory of the verifier", self.verifier.peak, "MB"),
            Row("memory of the verifier by node, after the run", 1024 * self.growth / self._given.nodes, "KB"),
        ]
        if self._given.kill_at is not None:
            rows += [
                Row("rounds under way when the verifier was killed", self.under_way, ""),
                Row("evidence that counted although its answer was lost", tally.counted, ""),
            ]
        return rows

    async def _found(self, tally: Tally) -> list[Row]:
        """Open the database as the next start would, and compare it with what the nodes were told."""
        service = await self.site.open()
        try:
            log = await self.site.audit_log(service)
            written = await self.site.rounds()
            standings = Counter(await self.site.standings())
        finally:
            await service.close()
        changes = Counter(entry["facts"]["to"] for entry in log["entries"] if entry["action"] == "standing.change")
        said = f"standings at the end {dict(standings)}, changes to {dict(changes)}, refused {dict(tally.refused)}"
        print(said, file=sys.stderr)
        told = Counter(tally.standings)
        del told["trusted"]
        alarms = told.total() + sum(changes.values()) - changes["trusted"] - changes["lapsed"]
        refused = sum(count for code, count in tally.refused.items() if code not in LATE)
        lost = sum(written[name] < count for name, count in tally.answered.items())
        return [
            Row("entries of the audit log, all verified", len(log["entries"]), ""),
            at_most("nodes that lapsed", changes["lapsed"], "", 0),
            at_most("false alarms: any other standing that was told or written", alarms, "", 0),
            at_most("nodes that are not trusted at the end", len(self.nodes) - standings["trusted"], "", 0),
            at_most("nodes of whose verdicts not all are in the database", lost, "", 0),
            at_most("evidence that was refused, and not because it came late or again", refused, "", 0),
        ]


def measure(given: Namespace) -> list[Row]:
    """Run the fleet on the database that was asked for."""
    with tempfile.TemporaryDirectory(prefix="umec-fleet-") as name, contextlib.ExitStack() as stack:
        pin(SERVER)  # what is started here stays on the server's core
        database = stack.enter_context(temporary_postgresql(durable=True)) if given.postgresql else None
        pin(LOAD)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Run(given, Path(name), database).measure())


def main() -> None:
    """Run, print, and say by the exit status whether everything held."""
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--period", type=float, default=30.0, help="seconds of a round")
    parser.add_argument(
        "--join", type=float, help="seconds over which nodes come the first time; if not given, a period, or longer"
    )
    parser.add_argument("--kill-at", type=float, help="seconds after the start")
    parser.add_argument("--verifiers", type=int, default=1, help="processes that share the work")
    parser.add_argument("--postgresql", action="store_true", help="PostgreSQL, on the verifier's core, not SQLite")
    given = parser.parse_args()
    configure_logging(json=True, level=ERRORS)
    rows = measure(given)
    publish(rows, as_json=given.json)
    sys.exit(any(row.budget is not None and row.value > row.budget for row in rows))


if __name__ == "__main__":
    main()
