"""How much memory the whole platform in one process and a node's agent take: idle, and at most under load.

    python benchmarks/memory.py [--json] [--idle 20] [--tokens 500]

`umec up` with both netd beside it, and one attested node whose agent does a round every two seconds, in namespaces of
their own. Idle is after that many seconds without anything but rounds; the load is tokens for the operator over TLS.
"""

import asyncio
import time
from pathlib import Path

import httpx
from measuring import Row, at_most, options, publish, resident_mb
from sandbox import enter
from street import attest_nodes, running

from umec_core.client import Credential, client_assertion, http_client, load_credential
from umec_core.clock import system_clock
from umec_core.dpop import make_proof
from umec_platform.demo.run import MANAGEMENT
from umec_platform.demo.topology import NODES

__all__ = ["main"]

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AT_ONCE = 16


async def ask_for_tokens(credential: Credential, count: int) -> int:
    """Ask for tokens in the operator's name; returns how many were given, for there are limits."""
    key, url = credential.key(), f"{MANAGEMENT}/oauth2/token"
    given, left = 0, list(range(count))

    async def ask(http: httpx.AsyncClient) -> None:
        nonlocal given
        while left:
            left.pop()
            now = system_clock()
            assertion = client_assertion(client_id=credential.client_id, key=key, issuer=MANAGEMENT, now=now)
            form = {"grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE}
            form |= {"client_assertion": assertion, "resource": f"{MANAGEMENT}/platform/v1"}
            answer = await http.post(url, data=form, headers={"DPoP": make_proof(key, "POST", url, now=now)})
            given += answer.status_code == httpx.codes.OK

    async with http_client(credential.ca) as http:
        await asyncio.gather(*(ask(http) for _ in range(AT_ONCE)))
    return given


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def measure(folder: Path, idle: int, tokens: int) -> list[Row]:
    """Measure."""
    with running(folder) as run:
        attest_nodes(run, 1)
        time.sleep(idle)
        site, agent = run.processes.running["site"].pid, run.processes.running[f"agent-{NODES[0].name}"].pid
        rows = [
            at_most("the whole platform in one process, idle", resident_mb(site), "MB", 250),
            at_most("the agent of a node, idle", resident_mb(agent), "MB", 60),
        ]
        for child in children(site):
            name = Path(f"/proc/{child}/comm").read_text().strip()
            rows.append(Row(f"a process beside the platform: {name}", resident_mb(child), "MB"))
        given = asyncio.run(ask_for_tokens(load_credential(Path(run.credential)), tokens))
        rows += [
            Row(f"the whole platform, at most, after {given} tokens", resident_mb(site, peak=True), "MB"),
            Row("the agent, at most", resident_mb(agent, peak=True), "MB"),
        ]
    return rows


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--idle", type=int, default=20, help="seconds before the idle figures")
    parser.add_argument("--tokens", type=int, default=500)
    given = parser.parse_args()
    folder = enter()
    publish(measure(folder, given.idle, given.tokens), as_json=given.json)


if __name__ == "__main__":
    main()
