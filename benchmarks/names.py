"""How many answers a second the resolver of a host gives for names of rules, against Unbound alone.

    python benchmarks/names.py [--json] [--repeats 5] [--names 10000] [--seconds 3]

Side by side in one run and in namespaces of its own: the resolver as netd starts it and fills it, and an Unbound with
the same names in its configuration file and nothing else of ours. One thread each; all have the same core in turn,
dnsperf (package `dnsperf`) has the other. Changes go on at 100 a second in one series, as rules come and go.
"""

import asyncio
import contextlib
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

from measuring import LOAD, SERVER, Row, at_least, options, percentile, pin, publish, resident_mb
from sandbox import enter

from umec_platform.netd.resolver import Record, Resolver

__all__ = ["main"]

OURS, ALONE = IPv4Address("127.0.0.2"), IPv4Address("127.0.0.3")
CHANGES = 100
"""Changes a second in the series that has them."""
PLAIN = """\
server:
  interface: {address}
  do-daemonize: no
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  verbosity: 0
  num-threads: 1
  access-control: 0.0.0.0/0 allow
  local-zone: "mec.internal." static
"""


def record(number: int) -> Record:
    """Return the record of a rule."""
    return Record(f"app-{number}.mec.internal", "A", f"198.18.{number >> 8 & 255}.{number & 255}", 30)


async def dnsperf(address: IPv4Address, queries: Path, seconds: int) -> float:
    """Return the answers a second; raises RuntimeError if some are missing or not the names' own."""
    line = [
        "taskset",
        "-c",
        str(LOAD),
        "dnsperf",
        "-s",
        str(address),
        "-d",
        str(queries),
        "-l",
        str(seconds),
        "-q",
        "200",
    ]
    process = await asyncio.create_subprocess_exec(*line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    told = (await process.communicate())[0].decode()
    rate = re.search(r"Queries per second:\s+([\d.]+)", told)
    good = re.search(r"NOERROR \d+ \(100\.00%\)", told)
    if rate is None or good is None:
        raise RuntimeError(told)
    return float(rate[1])


@contextlib.asynccontextmanager
async def alone(folder: Path, names: int) -> AsyncIterator[None]:
    """Run an Unbound that has the names in its configuration."""
    lines = [f"  local-data: '{record(number).line()}'\n" for number in range(names)]
    configuration = folder / "alone.conf"
    configuration.write_text(PLAIN.format(address=ALONE) + "".join(lines))
    command = ["unbound", "-d", "-c", str(configuration)]
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    try:
        await asyncio.sleep(2)
        yield
    finally:
        process.terminate()
        await process.wait()


async def change(resolver: Resolver, first: int, spent: list[float], stop: asyncio.Event) -> None:
    """Add and remove names until told to stop, at a steady rate; note the milliseconds of each addition."""
    number = first
    while not stop.is_set():
        began = time.perf_counter()
        await resolver.put(record(number))
        spent.append(1000 * (time.perf_counter() - began))
        await resolver.remove(record(number).name, "A")
        number += 1
        await asyncio.sleep(max(0.0, 2 / CHANGES - (time.perf_counter() - began)))


async def measure(folder: Path, repeats: int, names: int, seconds: int) -> list[Row]:
    """Measure in turn, so that whatever else the machine does falls on all of them."""
    queries = folder / "queries"
    queries.write_text("".join(f"{record(number).name} A\n" for number in range(names)))
    resolver, spent = Resolver(folder / "unbound", OURS), list[float]()
    rates: dict[str, list[float]] = {"ours": [], "alone": [], "changing": []}
    await resolver.start()
    try:
        await resolver.replace(map(record, range(names)))
        async with alone(folder, names):
            for _ in range(repeats):
                rates["ours"].append(await dnsperf(OURS, queries, seconds))
                rates["alone"].append(await dnsperf(ALONE, queries, seconds))
                stop = asyncio.Event()
                changing = asyncio.create_task(change(resolver, names, spent, stop))
                rates["changing"].append(await dnsperf(OURS, queries, seconds))
                stop.set()
                await changing
        memory = resident_mb(resolver.pid or 0)
    finally:
        await resolver.stop()
    ours, plain, changed = (statistics.median(rates[name]) for name in ("ours", "alone", "changing"))
    return [
        Row(f"names of rules, {names:,} of them", ours, "/s"),
        Row("Unbound alone with the same names", plain, "/s"),
        at_least("names of rules against Unbound alone", 100 * ours / plain, "%", 90),
        Row(f"names of rules while {CHANGES} change a second", changed, "/s"),
        Row("a name added meanwhile, median", statistics.median(spent), "ms"),
        Row("a name added meanwhile, p95", percentile(spent, 95), "ms"),
        Row("memory of the resolver", memory, "MB"),
    ]


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=3, help="how long a series takes")
    given = parser.parse_args()
    if shutil.which("dnsperf") is None:
        sys.exit("dnsperf is not here: apt-get install dnsperf (only this benchmark needs it)")
    folder = enter()
    pin(SERVER)
    publish(asyncio.run(measure(folder, given.repeats, given.names, given.seconds)), as_json=given.json)


if __name__ == "__main__":
    main()
