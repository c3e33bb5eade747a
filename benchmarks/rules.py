"""How long a traffic rule takes into the kernel with 10,000 installed, and what rules cost each packet.

    python benchmarks/rules.py [--json] [--repeats 5] [--rules 10000] [--puts 300]

A real netd on one core, in namespaces of its own (as root, or in a user namespace): a client behind its access
interface, a server behind another one; rules are PASSTHROUGH for one address and port each.

1. PUT to netd over its socket, one at a time: it returns when the kernel has answered. The rule is deleted after that.
2. PUT to Mp1 over HTTPS until its answer, which comes when netd has answered: token with proof, two transactions,
   outbox, netd, kernel. The instance has all the rules; its container is not there, and nothing of this needs it.
3. Packets: the client sends 64-octet datagrams through the host to the server. Links are veth pairs, so whoever sends
   pays for the whole way; the fastest of many short series counts, and all packets are counted at the server's link.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from measuring import LOAD, SERVER, Row, at_most, options, percentile, pin, publish, resident_mb
from mechost import INSTANCE, NODE, SUBNET, TENANT, VERIFIER, Keys, opened
from sandbox import enter
from starlette.types import ASGIApp
from webload import Served, serving

from umec_core.http import create_app
from umec_core.jose import KeySet
from umec_platform.netd.client import NetdClient
from umec_platform.netd.messages import Tenant, TrafficFilter, TrafficRule

__all__ = ["main"]

PORT = 5000
SERIES = 300
SIZES = (10, 1_000, 10_000)
ACCESS = "192.0.2.1"
RULE = f"/mec_app_support/v1/applications/{INSTANCE}/traffic_rules"
RUN = "import typer; from umec_platform.cli.netd import netd; typer.run(netd)"
SENDER = """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect((sys.argv[1], int(sys.argv[2])))
series, data, spent = int(sys.argv[3]), bytes(64), []
for _ in range(series):
    began = time.perf_counter()
    for _ in range(100):
        sender.send(data)
    spent.append((time.perf_counter() - began) / 100)
print(min(spent) * 1e9)
"""
"""Prints what one packet took in the fastest of many short series: what else runs here only adds."""
RECEIVER = f"""
import signal, socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("0.0.0.0", {PORT}))
print("bound", flush=True)
signal.pause()
"""
"""Reads nothing: what does not fit into its socket has come all the way, too."""


def address(number: int) -> str:
    """Return the address that a rule is about."""
    return f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def rule(number: int) -> TrafficRule:
    """Return a rule in netd's words."""
    one = TrafficFilter(dst=[f"{address(number)}/32"], dst_ports=[[PORT, PORT]], protocol="udp")
    return TrafficRule(
        id=f"rule-{number}", tenant=TENANT, instance=INSTANCE, priority=10, filters=[one], action="PASSTHROUGH"
    )


def document(number: int) -> dict[str, Any]:
    """Return a rule in the words of MEC 011."""
    flow = {"dstAddress": [f"{address(number)}/32"], "dstPort": [str(PORT)], "protocol": ["UDP"]}
    return {
        "trafficRuleId": f"rule-{number}",
        "filterType": "FLOW",
        "priority": 10,
        "trafficFilter": [flow],
        "action": "PASSTHROUGH",
        "state": "ACTIVE",
    }


def ip(arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments.split()], check=True)


def build_links() -> None:
    """Make the client's and the server's namespaces and their links to this one, which is the host's."""
    for name, here, own, gateway in (
        ("client", "access", "192.0.2.2/24", f"{ACCESS}/24"),
        ("server", "behind", "203.0.113.2/24", "203.0.113.1/24"),
    ):
        ip(f"netns add {name}")
        ip(f"link add {here} type veth peer name eth0 netns {name}")
        ip(f"address add {gateway} dev {here}")
        ip(f"link set {here} up")
        ip(f"-n {name} address add {own} dev eth0")
        ip(f"-n {name} link set lo up")
        ip(f"-n {name} link set eth0 up")
        ip(f"-n {name} route add default via {gateway.partition('/')[0]}")
    ip("route add 198.18.0.0/15 via 203.0.113.2")
    ip("-n server route add local 198.18.0.0/15 dev lo")


@contextlib.contextmanager
def host(folder: Path, keys: Keys) -> Iterator[tuple[NetdClient, int]]:
    """Run netd on its core; gives its client and its process."""
    verifier, decisions = folder / "verifier.jwks", folder / "decisions.jwks"
    verifier.write_text(json.dumps(KeySet([keys.verifier.public_key()]).jwks()))
    decisions.write_text(json.dumps(KeySet([keys.decision.public_key()]).jwks()))
    command = [
        "taskset", "-c", str(SERVER), sys.executable, "-c", RUN, "--node", NODE, "--socket", str(folder / "netd.sock"),
        "--state", str(folder / "netd"), "--verifier-jwks", str(verifier), "--verifier-issuer", VERIFIER,
        "--decision-jwks", str(decisions), "--decision-issuer", "https://localhost:8443/platform/v1", "--access",
        "access", "--access-address", f"{ACCESS}/24", "--allow-uid", "0", "--lease-seconds", "600", "--json",
    ]  # fmt: skip
    with (folder / "netd.log").open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as netd:
        try:
            if netd.stdout is None or not netd.stdout.readline():
                raise RuntimeError((folder / "netd.log").read_text())
            yield NetdClient(folder / "netd.sock"), netd.pid
        finally:
            netd.terminate()


@contextlib.contextmanager
def server_program() -> Iterator[None]:
    """Have a program at the server's port."""
    line = ["ip", "netns", "exec", "server", sys.executable, "-c", RECEIVER]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as receiver:
        try:
            if receiver.stdout is None or not receiver.stdout.readline():
                raise RuntimeError("the server does not listen")
            yield
        finally:
            receiver.kill()


async def install(client: NetdClient, count: int) -> None:
    """Have exactly the rules 0 to count - 1 in force."""
    tenants, rules = [Tenant(tenant=TENANT, subnet=SUBNET)], [rule(number) for number in range(count)]
    done = await client.sync(tenants=tenants, traffic=rules, dns=[])
    if not done["in_force"] or done["traffic"] != count:
        raise RuntimeError(f"{done['traffic']} of {count} rules are in force; refused: {done['refused'][:1]}")


async def put_to_netd(client: NetdClient, installed: int, count: int) -> list[float]:
    """Return the milliseconds that each of `count` additions took."""
    spent = []
    for number in range(installed, installed + count):
        began = time.perf_counter()
        await client.put_traffic(rule(number))
        spent.append(1000 * (time.perf_counter() - began))
        await client.delete_traffic(TENANT, f"rule-{number}")
    return spent[count // 10 :]


class Furnished(NetdClient):
    """netd, but for one thing: it is told that the instance of the rows runs."""

    async def status(self) -> dict[str, Any]:
        """Return what netd says, and that instance."""
        told = await super().status()
        return {**told, "instances": [{"instance": INSTANCE, "running": True}]}


@contextlib.asynccontextmanager
async def platform(folder: Path, keys: Keys, installed: int) -> AsyncIterator[ASGIApp]:
    """The platform's Mp1 over its rows, and its worker for the host beside it."""
    rules = [document(number) for number in range(installed)]
    async with opened(folder, keys, Furnished, str(folder / "netd.sock"), rules) as made:
        working = asyncio.create_task(made.run())
        yield create_app("mp1", made.mp1_routers)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


def put_to_mp1(server: Served, keys: Keys, count: int) -> list[float]:
    """Return the milliseconds that each switch of a rule took, off and on in turn."""
    token, requests = keys.token(bound=True), []
    for turn in range(count):
        wish = {**document(turn // 2), "state": "INACTIVE" if turn % 2 == 0 else "ACTIVE"}
        path, body = f"{RULE}/rule-{turn // 2}", json.dumps(wish).encode()
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\n{keys.authorization('PUT', path, token, bound=True)}"
        requests.append(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return [1000 * seconds for seconds in server.timed(requests)[count // 10 :]]


def wait_for_rules(client: NetdClient, installed: int) -> None:
    """Return when the platform has brought its rules to netd."""
    give_up = time.monotonic() + 120
    while asyncio.run(client.status())["traffic"] != installed:
        if time.monotonic() > give_up:
            raise RuntimeError("the platform does not bring its rules to netd")
        time.sleep(0.2)


def nanoseconds(target: str) -> float:
    """Return what a packet to an address costs whoever sends it, and look that all arrived."""
    before = received()
    line = ["ip", "netns", "exec", "client", "taskset", "-c", str(LOAD), sys.executable, "-c", SENDER]
    done = subprocess.run([*line, target, str(PORT), str(SERIES)], check=True, capture_output=True, text=True)
    lost = 100 * SERIES - (received() - before)
    if lost > 0:
        raise RuntimeError(f"{lost} packets did not arrive")
    return float(done.stdout)


def received() -> int:
    """Return how many packets have come to the server's link."""
    counter = "/sys/class/net/eth0/statistics/rx_packets"
    line = ["ip", "netns", "exec", "server", "cat", counter]
    return int(subprocess.run(line, check=True, capture_output=True).stdout)


def packet_rows(client: NetdClient, repeats: int) -> list[Row]:
    """Measure packets with several numbers of rules, each to the address of its last rule."""
    spent: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(repeats):
        for size in SIZES:
            asyncio.run(install(client, size))
            spent[size].append(nanoseconds(address(size - 1)))
    least = median(spent[SIZES[0]])
    rows = [Row(f"a packet, {size:,} rules", median(values), "ns") for size, values in spent.items()]
    most = 100 * median(spent[SIZES[-1]]) / least
    return [*rows, at_most(f"a packet with {SIZES[-1]:,} rules against {SIZES[0]}", most, "%", 110)]


def spread(what: str, spent: Sequence[float]) -> list[Row]:
    """Return median and 95th percentile of milliseconds."""
    return [Row(f"{what}, median", median(spent), "ms"), at_most(f"{what}, p95", percentile(spent, 95), "ms", 10)]


def measure(folder: Path, repeats: int, installed: int, puts: int) -> list[Row]:
    """Measure everything."""
    keys, rows = Keys(), []
    build_links()
    with host(folder, keys) as (client, pid):
        asyncio.run(client.standing(asyncio.run(keys.standings(after=0, wait=0, node=NODE))))
        with server_program():
            rows += packet_rows(client, repeats)
        asyncio.run(install(client, installed))
        rows += spread(f"rule PUT to netd, {installed:,} installed", asyncio.run(put_to_netd(client, installed, puts)))
        os.sched_setaffinity(0, {SERVER, LOAD})
        with serving(lambda _: platform(folder, keys, installed), tls=folder / "tls") as server:
            wait_for_rules(client, installed)
            time.sleep(1)  # the platform settles what the whole state said of each rule
            spent = put_to_mp1(server, keys, puts)
            rows += spread(f"rule PUT to Mp1 until in the kernel, {installed:,} installed", spent)
            rows.append(Row("peak memory of the platform", server.peak_mb(), "MB"))
        rows.append(Row("peak memory of netd", resident_mb(pid, peak=True), "MB"))
    return rows


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--rules", type=int, default=10_000)
    parser.add_argument("--puts", type=int, default=300)
    given = parser.parse_args()
    folder = enter()
    pin(LOAD)
    publish(measure(folder, given.repeats, given.rules, given.puts), as_json=given.json)


if __name__ == "__main__":
    main()
