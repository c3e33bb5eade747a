"""Rounds through the verifier: in this process without HTTP, and over HTTPS with the verifier on a core of its own."""

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx
import uvloop
from fleetload import Connection
from fleetserver import Verifier, certificate, verifier
from measuring import LOAD, SERVER, Row, at_least, at_most, pin, resident_mb

from umec_attest.service import AttestService
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.fleet.verifier import FleetVerifier
from umec_core.testing import temporary_postgresql

__all__ = ["in_process", "over_https"]

WAVE = 64
"""Nodes whose rounds are under way at once, in process."""
WORKERS = 32
"""Connections whose rounds are under way at once, over HTTPS."""
NODES = 512
"""Nodes over HTTPS."""
PERIOD = 30_000


def fleet(count: int, boot: Boot, name: str = "node") -> list[SimulatedNode]:
    """Return nodes with keys of their own, all P-256."""
    return [SimulatedNode(f"{name}-{number}", make_keys(), boot) for number in range(count)]


async def rounds(service: AttestService, nodes: Sequence[SimulatedNode]) -> float:
    """Do one round of every node, all at once, and return the seconds that the verifier took."""
    began = time.perf_counter()
    challenges = await asyncio.gather(*(service.rounds.challenge(node.name) for node in nodes))
    spent = time.perf_counter() - began
    bodies = []
    for node, challenge in zip(nodes, challenges, strict=True):
        node.run(PERIOD)
        bodies.append(node.evidence(challenge))
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(service.rounds.submit(EvidenceRequest.model_validate(body), address="192.0.2.1") for body in bodies)
    )
    spent += time.perf_counter() - began
    assert all(answer["standing"] == "trusted" for answer in answers), answers[0]  # noqa: S101 - else no figure
    return spent


@contextlib.asynccontextmanager
async def opened(site: FleetVerifier, nodes: Sequence[SimulatedNode], boot: Boot) -> AsyncIterator[AttestService]:
    """Open a verifier that knows these nodes."""
    await site.enrol(nodes)
    service = await site.open()
    try:
        await site.install(service, site.reference([boot]))
        yield service
    finally:
        await service.close()


def in_process(folder: Path, boot: Boot, repeats: int, count: int) -> list[Row]:
    """Measure rounds without HTTP on SQLite, and what `count` nodes cost."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_in_process(folder, boot, repeats, count))


async def _in_process(folder: Path, boot: Boot, repeats: int, count: int) -> list[Row]:
    site, wave, more = FleetVerifier(folder / "in-process"), fleet(WAVE, boot), fleet(count, boot, "more")
    database = folder / "in-process" / "attest.db"
    async with opened(site, [*wave, *more], boot) as service:
        first = WAVE / await rounds(service, wave)
        await rounds(service, wave)
        began = time.process_time()
        steady = statistics.median([WAVE / await rounds(service, wave) for _ in range(4 * repeats)])
        spent = (time.process_time() - began) / (4 * repeats * WAVE)
        alone = statistics.median([await rounds(service, wave[:1]) for _ in range(8 * repeats)])
        gc.collect()
        before, stored = resident_mb(os.getpid()), database.stat().st_size
        for start in range(0, count, WAVE):
            await rounds(service, more[start : start + WAVE])
        gc.collect()
        memory, disk = resident_mb(os.getpid()) - before, database.stat().st_size - stored
    return [
        Row(f"first rounds through the service, {WAVE} at once", first, "/s"),
        at_least(f"steady rounds through the service (challenge and evidence), {WAVE} at once", steady, "/s", 1800),
        Row("  processor time of verifier and nodes together for a round", 1000 * spent, "ms"),
        Row("steady round of one node alone", alone * 1000, "ms"),
        at_most(f"memory of the verifier for each node that it hears, over {count:,}", 1024 * memory / count, "KB", 10),
        Row("database for each of them, beyond its enrolment", disk / 1024 / count, "KB"),
    ]


def over_https(folder: Path, boot: Boot, repeats: int, seconds: float) -> Iterator[Row]:
    """Measure steady rounds over HTTPS, on SQLite and on PostgreSQL."""
    pin(SERVER)  # what is started here stays on the core of the verifier
    with temporary_postgresql(durable=True) as url:
        pin(LOAD)
        for name, database in (("SQLite", None), ("PostgreSQL on the same core", url)):
            yield from _over_https(folder / name.split()[0], boot, repeats, seconds, name, database)


def _over_https(
    folder: Path, boot: Boot, repeats: int, seconds: float, name: str, database: str | None
) -> Iterator[Row]:
    nodes, server = fleet(NODES, boot), Verifier(folder, database)
    site = verifier(folder, server.port, database)
    trust = ssl.create_default_context(cafile=str(certificate(folder).ca))

    async def measured(*, kept: bool) -> tuple[float, float]:
        await _loop(nodes, server.port, trust, seconds, kept=kept)
        done, before, began = 0, server.cpu(), time.perf_counter()
        rates = []
        for _ in range(repeats):
            count = await _loop(nodes, server.port, trust, seconds, kept=kept)
            rates.append(count / (time.perf_counter() - began))
            began, done = time.perf_counter(), done + count
        return statistics.median(rates), done / (server.cpu() - before)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(site.enrol(nodes))
        server.start()
        try:
            runner.run(_prepared(site, server, trust, nodes, boot))
            for kept, how in ((True, "kept connections"), (False, "a connection each")):
                rate, of_cpu = runner.run(measured(kept=kept))
                yield at_least(f"steady rounds over HTTPS, {name}, {how}", rate, "/s", 400)
                yield Row("  for a CPU second of the verifier", of_cpu, "/s")
        finally:
            server.end(signal.SIGTERM)


async def _prepared(
    site: FleetVerifier, server: Verifier, trust: ssl.SSLContext, nodes: Sequence[SimulatedNode], boot: Boot
) -> None:
    await server.answers(trust)
    async with httpx.AsyncClient(verify=trust) as client:
        url, headers = f"{site.settings.issuer}/reference-sets", site.token("attest:admin")
        (await client.post(url, content=site.reference([boot]), headers=headers)).raise_for_status()
    connection = await Connection.open(server.port, trust)
    for node in nodes:
        await _round(connection, node)
    connection.close()


async def _round(connection: Connection, node: SimulatedNode) -> None:
    node.run(PERIOD)
    answer = await connection.post("evidence", node.evidence(await connection.post("challenges", {"node": node.name})))
    assert answer["standing"] == "trusted", answer  # noqa: S101 - else the figure means nothing


async def _loop(nodes: Sequence[SimulatedNode], port: int, trust: ssl.SSLContext, seconds: float, *, kept: bool) -> int:
    """Do rounds one after the other on each of the connections, each with nodes of its own; return how many."""
    end, done = time.perf_counter() + seconds, 0

    async def work(mine: Sequence[SimulatedNode]) -> None:
        nonlocal done
        connection = await Connection.open(port, trust)
        for node in itertools.cycle(mine):
            if time.perf_counter() >= end:
                break
            if not kept:
                connection.close()
                connection = await Connection.open(port, trust)
            await _round(connection, node)
            done += 1
        connection.close()

    await asyncio.gather(*(work(nodes[number::WORKERS]) for number in range(WORKERS)))
    return done
