"""Link 12: every service's log is whole, and signed."""

import sqlite3
from typing import Final

from umec_platform.demo.command import umec
from umec_platform.demo.hand import Hand
from umec_platform.demo.run import MANAGEMENT, REGISTRY, Run

__all__ = ["fetch", "verify_logs"]

SERVICES: Final = ("attest", "identity", "images", "platform")


def verify_logs(run: Run) -> None:
    """Fetch and check the logs of all services."""
    if run.sabotaged(12):
        _rewrite(run)
    operator = Hand.of(run.clean_up.enter_context(run.http()), run.state / "operator.json")
    for service in SERVICES:
        with run.timeline.link(12, f"the log of {service} is whole, and its checkpoint signed") as evidence:
            file = run.folder / f"{service}.audit.json"
            file.write_bytes(fetch(operator, service))
            checked = umec("audit", "verify", str(file), "--key", str(run.state / f"{service}-audit.pem"))
            evidence.data = file.read_bytes()
            evidence.note = f"{checked['entries']} entries"


def fetch(operator: Hand, service: str) -> bytes:
    """Return the log of a service, as it exports it."""
    base = resource = f"{MANAGEMENT}/{service}/v1"
    if service == "images":
        base, resource = f"{REGISTRY}/images/v1", f"{REGISTRY}/"
    return operator.have("GET", f"{base}/audit", resource).content


def _rewrite(run: Run) -> None:
    """Somebody with the database file rewrites one entry."""
    with sqlite3.connect(run.state / "attest" / "attest.db") as database:
        table = database.execute("SELECT name FROM sqlite_master WHERE name LIKE '%audit%' AND type = 'table'")
        name = table.fetchone()[0]
        database.execute(f"UPDATE {name} SET entry = replace(entry, 'node-a', 'node-z')")  # noqa: S608 - a name of ours
