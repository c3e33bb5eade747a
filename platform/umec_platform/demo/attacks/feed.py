"""Standing feed: somebody who reached the socket of a node's `netd`, as the platform's user, brings it the news."""

import base64
import json
import socket
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import ECKey

from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.hand import ATTEST, Hand, signed
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES

__all__ = ["ATTACKS", "Courier", "courier_of"]


class Courier:
    """Has the platform's credential for the feed, and its user on the host whose `netd` listens at `netd`."""

    def __init__(self, run: Run, netd: Path) -> None:
        self.netd = netd
        http = run.clean_up.enter_context(run.http())
        self.operator = Hand.of(http, run.state / "operator.json")

    def statement(self, node: str = NODES[0].name) -> str:
        """Fetch a statement of the verifier about a node, which is true at this moment."""
        answer = self.operator.have("GET", f"{ATTEST}/standings?node={node}", ATTEST)
        return str(answer.json()["statement"])

    def tell(self, statement: str) -> str | None:
        """Hand a statement to netd; return the code of its refusal."""
        said = self.ask({"op": "standing", "statement": statement})
        return None if said["ok"] else str(said["code"])

    def told(self) -> None:
        """Hand a fresh statement to netd, which takes it."""
        if refused := self.tell(self.statement()):
            raise Broken("netd refused a fresh statement", refused)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one line to netd, and return the line that it answers."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(str(self.netd))
            connection.sendall(json.dumps({"id": "1", **request}).encode() + b"\n")
            return dict(json.loads(connection.makefile().readline()))


def forged(courier: Courier) -> str | None:
    """Say of a node what one likes: a genuine statement with another standing, under a key that borrows the name."""
    courier.told()
    header, claims = (json.loads(_decoded(part)) for part in courier.statement().split(".")[:2])
    entry = claims["standings"][-1]
    entry["standing"] = "trusted" if entry["standing"] == "degraded" else "degraded"
    key = ECKey.generate_key("P-256", {"kid": header["kid"]})
    return courier.tell(signed(claims, key, typ=header["typ"], kid=header["kid"]))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def about_another(courier: Courier) -> str | None:
    """Bring a genuine statement that is about another node."""
    courier.told()
    return courier.tell(courier.statement("node-b"))


def rolled_back(courier: Courier) -> str | None:
    """Bring a genuine statement again, after a newer one."""
    older = courier.statement()
    courier.told()
    return courier.tell(older)


def courier_of(run: Run) -> Courier:
    """Return somebody at the socket of the first node's `netd`."""
    return Courier(run, run.state / "netd" / NODES[0].name / "netd.sock")


HAS: Final = "the platform's user on the host"

ATTACKS: Final[tuple[Attack[Courier], ...]] = (
    Attack("standing-forged", "standing-invalid", HAS, forged),
    Attack("standing-of-another-node", "standing-invalid", HAS, about_another),
    Attack("standing-rolled-back", "standing-rollback", HAS, rolled_back),
)
