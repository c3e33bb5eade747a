"""Links 9 to 11: an application is admitted and started, has a credential of its own, and moves packets and names."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any, Final

from umec_platform.demo.command import wait_for
from umec_platform.demo.images import EXAMPLE
from umec_platform.demo.run import Run
from umec_platform.demo.sight import Sight, look
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES, StreetNode, inside

__all__ = ["ADDRESSES", "Running", "add_tenant", "deploy", "onboard"]

ADDRESSES: Final = {"city": "198.51.100.80", "transit": "198.51.100.90"}
"""An address of each tenant that no machine has: only a traffic rule makes it lead anywhere."""

READY_SECONDS: Final = 30.0
"""Python and its libraries start in the container, on two cores that do everything else too."""


@dataclass(frozen=True, slots=True)
class Running:
    """An application that runs: its instance, and what the camera sees of it."""

    node: StreetNode
    instance: str
    packets: Sight
    names: Sight

    @property
    def address(self) -> str:
        """The address that its traffic rule is about."""
        return ADDRESSES[self.node.tenant]


def add_tenant(run: Run, node: StreetNode) -> None:
    """Have the operator make a tenant with an address of its own, and register the node's MEC host."""
    run.operator("tenant", "add", node.tenant, "--address", f"{ADDRESSES[node.tenant]}/32")
    socket = run.state / "netd" / node.name / "netd.sock"
    run.operator("host", "add", node.name, "--node", node.name, "--netd", str(socket))


def deploy(run: Run, node: StreetNode, digest: str) -> Running:
    """Onboard, admit and start the example on a node; then see its service, its packets and its name."""
    broken = node is NODES[0]
    appd = onboard(run, node.tenant, digest, permissions=not (broken and run.sabotaged(10)))
    with run.timeline.link(9, f"{node.tenant}/hello admitted and started on {node.name} from that digest") as evidence:
        made = instantiate(run, appd, node)
        evidence.data = json.dumps(made, sort_keys=True).encode()
        evidence.note = f"a runc container at {made['address']}"
    instance = str(made["id"])
    with run.timeline.link(
        10, f"{node.tenant}/hello has a token for its own key, and registered its service"
    ) as evidence:
        service, _ = wait_for("its service", lambda: _service(run, node, instance), seconds=READY_SECONDS)
        evidence.data = json.dumps(service, sort_keys=True).encode()
        evidence.note = "DPoP, RFC 9449"
    if broken and run.sabotaged(11):
        _intrude(run, node)
    with run.timeline.link(
        11, f"{node.camera} reaches {node.tenant}/hello through its rule and by its name"
    ) as evidence:
        packets, names = look(run, node, ADDRESSES[node.tenant])
        greeting = packets.first(lambda attempt: attempt.answer is not None, after=0.0)
        if json.loads(greeting.answer or "{}").get("from") != instance:
            raise Broken(f"somebody else answers: {greeting.answer}")
        named = names.first(lambda attempt: attempt.answer == ADDRESSES[node.tenant], after=0.0)
        evidence.data = f"{greeting.answer} {named.answer}".encode()
        evidence.note = f"nftables, Unbound: {named.answer}"
    return Running(node, instance, packets, names)


def onboard(run: Run, tenant: str, digest: str, *, name: str = "hello", permissions: bool = True) -> str:
    """Onboard the example's descriptor for a tenant's image; return its appDId."""
    appd = json.loads((EXAMPLE / "appd.json").read_text())
    identity = f"{tenant}-{name}"
    appd |= {"appDId": identity, "appName": name, "appProvider": tenant}
    appd["swImageDescriptor"][0]["swImage"] = f"{tenant}/{name}@{digest}"
    address = ADDRESSES[tenant]
    appd["appTrafficRule"][0]["trafficFilter"][0]["dstAddress"] = [address]
    appd["appDNSRule"][0] |= {"domainName": f"hello.{tenant}.mec.internal", "ipAddress": address}
    if not permissions:
        appd["requestedPermissions"] = []
    file = run.folder / f"{identity}.appd.json"
    file.write_text(json.dumps(appd))
    return str(run.operator("app", "onboard", str(file), "--tenant", tenant)["appDId"])


def instantiate(run: Run, appd: str, node: StreetNode) -> dict[str, Any]:
    """Instantiate a package on a node; a refusal raises `Broken` with the platform's code."""
    return run.operator("app", "instantiate", appd, "--tenant", node.tenant, "--host", node.name)


def services(run: Run) -> list[dict[str, Any]]:
    """Return all services, as the operator sees them."""
    return list(run.operator("service", "list")["services"])


def _service(run: Run, node: StreetNode, instance: str) -> dict[str, Any] | None:
    links = ((each, each["_links"]["self"]["href"]) for each in services(run) if each["tenant"] == node.tenant)
    return next((each for each, link in links if instance in link and each["state"] == "ACTIVE"), None)


def _intrude(run: Run, node: StreetNode) -> None:
    """Somebody with root on the node throws the rules out of its kernel, once they are there."""

    def rules_in_force() -> bool | None:
        rules = run.operator("service", "rules")["rules"]
        mine = [each for each in rules if each["tenant"] == node.tenant]
        return True if mine and all(each["rule"]["state"] == "ACTIVE" for each in mine) else None

    wait_for("its rules", rules_in_force, seconds=READY_SECONDS)
    subprocess.run(inside(node.name, ["nft", "flush", "ruleset"]), check=True)
