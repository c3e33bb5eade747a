"""The story: a node is built, predicted, booted and believed; then its box is opened, and it is not."""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from umec_platform.demo import audit
from umec_platform.demo.chain import start_site
from umec_platform.demo.command import umec, wait_for
from umec_platform.demo.hand import Hand
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import SITE_ADDRESS
from umec_platform.demo.vm.box import explained, found_of, open_box
from umec_platform.demo.vm.image import NAME, build, publish
from umec_platform.demo.vm.machine import NODE, Machine, buy_tpm, switch_on

__all__ = ["DOWNGRADE", "show"]

DOWNGRADE: Final = "downgrade"
"""The one kind of tampering that takes an older image of the owner."""
ROUND_SECONDS: Final = 15
"""Rounds of a machine without hardware virtualisation; a real site's default is 30."""
AGENT_SECONDS: Final = 300.0
TENANT: Final = "city"


def show(run: Run, lock: Path, kinds: Sequence[str]) -> None:
    """Show links 1 to 6, and what somebody does to the box; raises `Broken` at the first link that does not hold."""
    _network()
    run.timeline.chapter("A node image is built, and nobody has to boot it to know what it will measure")
    ek = buy_tpm(run)
    start_site(run, (), ROUND_SECONDS)
    older = build(run, lock, 1) if DOWNGRADE in kinds else None
    if older is not None:
        publish(run, older, 1)
    version = 1 if older is None else 2
    image = build(run, lock, version)
    publish(run, image, version)
    run.timeline.chapter("It boots, and is believed")
    began = time.monotonic()
    machine = _boot(run, image, ek)
    _opened(run, machine)
    _enrolled(run, machine)
    _attested(run, machine)
    good = time.monotonic() - began
    _credentials(run, machine)
    machine.switch_off()
    run.timeline.chapter("Somebody opens its box")
    for kind in kinds:
        open_box(run, kind, image, older if kind == DOWNGRADE else None, good=good)


def _network() -> None:
    """Give the site an address; the machine reaches what this sandbox reaches, by QEMU's own network."""
    for arguments in ("link add site type bridge", "link set site up", f"address add {SITE_ADDRESS}/24 dev site"):
        subprocess.run(["ip", *arguments.split()], check=True)


def _boot(run: Run, image: Path, ek: str) -> Machine:
    """Link 2: the firmware checks the signature, and what it measures is what was predicted."""
    ticket = run.folder / "ticket"
    made = run.operator("node", "ticket", NODE, "--tenant", TENANT, "--image", NAME, "--ek-sha256", ek)
    ticket.write_text(str(made["ticket"]))
    with run.timeline.link(2, f"{NODE} booted with Secure Boot, as predicted, from a root under dm-verity") as evidence:
        machine = switch_on(run, image, ticket=ticket)
        outcome = machine.wait("the boot", "outcome")
        if not outcome["as_documented"]:
            raise Broken("; ".join(outcome["faults"]), "boot-unexpected")
        evidence.data = json.dumps(outcome["pcrs"], sort_keys=True).encode()
        stages = (f"{event['stage']} {event['after']:.0f} s" for event in machine.events() if event["event"] == "stage")
        evidence.note = ", ".join(stages)
    return machine


def _opened(run: Run, machine: Machine) -> None:
    """The data partition is encrypted, and its key sealed: the first boot makes it, every good boot opens it."""
    opened = machine.wait("the data partition", "data-opened", seconds=AGENT_SECONDS)
    run.timeline.effect(str(opened["detail"]), ok=True, ms=None, detail="")


def _enrolled(run: Run, machine: Machine) -> None:
    """Link 3: the agent in the image shows the ticket's TPM, and that its keys live in it."""
    with run.timeline.link(3, f"{NODE} enrolled: EK, AK in its hierarchy, node key certified") as evidence:
        machine.wait("enrolment", "enrolled", seconds=AGENT_SECONDS)
        node = explained(run)
        if not node["node_key_bound"]:
            raise Broken(f"the node key of {NODE} signs in any state", "node-key-unbound")
        evidence.data = json.dumps(node, sort_keys=True).encode()
        evidence.note = f"image {node['image']}, node key bound to what its owner approved"


def _attested(run: Run, machine: Machine) -> None:
    """Link 4: a quote, the firmware's own boot log and the kernel's own list, judged by what was published."""
    with run.timeline.link(4, f"{NODE} attested: quote, boot log, list of what ran") as evidence:
        machine.wait("a round", "round", seconds=AGENT_SECONDS)
        node = explained(run)
        if node["standing"] != "trusted":
            raise Broken(f"{NODE} is {node['standing']}: {', '.join(found_of(node))}", "not-trusted")
        evidence.data = json.dumps(node, sort_keys=True).encode()
        evidence.note = f"{node['standing']}, generation {node['generation']}"


def _credentials(run: Run, machine: Machine) -> None:
    """Links 5 and 6: the log of the authorization server says that it took the verdict, and what it gave for it."""
    operator = Hand.of(run.clean_up.enter_context(run.http()), run.state / "operator.json")

    def issued(action: str) -> dict[str, Any]:
        def looked() -> dict[str, Any] | None:
            entries = json.loads(audit.fetch(operator, "identity"))["entries"]
            return next((dict(each) for each in entries if (each["actor"], each["action"]) == (NODE, action)), None)

        return wait_for(f"{action} in the log", looked, seconds=AGENT_SECONDS, every=1)[0]

    with run.timeline.link(5, f"{NODE} has a verdict that the authorization server took") as evidence:
        machine.wait("a certificate", "certificate", seconds=AGENT_SECONDS)
        entry = issued("certificate.issue")
        evidence.data = json.dumps(entry, sort_keys=True).encode()
        evidence.note = f"EAR {entry['facts']['ear']}, generation {entry['facts']['generation']}"
    with run.timeline.link(6, f"{NODE} has a certificate, and a token bound to it") as evidence:
        evidence.data = json.dumps(issued("token.issue"), sort_keys=True).encode()
        file = run.folder / "identity.audit.json"
        file.write_bytes(audit.fetch(operator, "identity"))
        umec("audit", "verify", str(file), "--key", str(run.state / "identity-audit.pem"))
        evidence.note = "as the signed log of the authorization server has it"
