"""The story: a node is built, predicted, booted and believed; then its box is opened, and it is not."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from umec_platform.demo import audit
from umec_platform.demo.chain import start_site
from umec_platform.demo.command import umec, wait_for
from umec_platform.demo.hand import Hand
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import SITE_ADDRESS
from umec_platform.demo.vm.image import NAME, build, publish
from umec_platform.demo.vm.machine import NODE, Machine, buy_tpm, switch_on

__all__ = ["ATTACK", "REFUSAL", "show"]

ATTACK: Final = "foreign-keys"
"""The kernel image is changed and signed by keys of the attacker, which replace the owner's in the firmware."""
REFUSAL: Final = "pcr-unexpected"
ROUND_SECONDS: Final = 15
"""Rounds of a machine without hardware virtualisation; a real site's default is 30."""
AGENT_SECONDS: Final = 300.0
TENANT: Final = "city"


def show(run: Run, lock: Path) -> None:
    """Show links 1 to 6 and one attack; raises `Broken` at the first link that does not hold."""
    _network()
    run.timeline.chapter("A node image is built, and nobody has to boot it to know what it will measure")
    ek = buy_tpm(run)
    start_site(run, (), ROUND_SECONDS)
    image = build(run, lock)
    publish(run, image)
    run.timeline.chapter("It boots, and is believed")
    machine = _boot(run, image, ek)
    _enrolled(run, machine)
    _attested(run, machine)
    _credentials(run, machine)
    machine.switch_off()
    run.timeline.chapter("Somebody opens its box")
    _attack(run, image)


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


def _enrolled(run: Run, machine: Machine) -> None:
    """Link 3: the agent in the image shows the ticket's TPM, and that its keys live in it."""
    with run.timeline.link(3, f"{NODE} enrolled: EK, AK in its hierarchy, node key certified") as evidence:
        machine.wait("enrolment", "enrolled", seconds=AGENT_SECONDS)
        node = _node(run)
        evidence.data = json.dumps(node, sort_keys=True).encode()
        evidence.note = f"image {node['image']}"


def _attested(run: Run, machine: Machine) -> None:
    """Link 4: a quote, the firmware's own boot log and the kernel's own list, judged by what was published."""
    with run.timeline.link(4, f"{NODE} attested: quote, boot log, list of what ran") as evidence:
        machine.wait("a round", "round", seconds=AGENT_SECONDS)
        node = _node(run)
        if node["standing"] != "trusted":
            raise Broken(f"{NODE} is {node['standing']}: {', '.join(_findings(node))}", "not-trusted")
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


def _attack(run: Run, image: Path) -> None:
    """The box is open: the disk and the flash are changed, the TPM is the node's."""
    machine = switch_on(run, image, tamper="keys")
    outcome = machine.wait("the boot", "outcome")
    if not outcome["as_documented"]:
        raise Broken("; ".join(outcome["faults"]), "boot-unexpected")
    run.timeline.note(f"it boots: Secure Boot believes the attacker's keys, and the stage is {outcome['stage']}")

    def fallen() -> dict[str, Any] | None:
        node = _node(run)
        return node if node["standing"] == "untrusted" else None

    try:
        node, _ = wait_for("the verdict", fallen, seconds=AGENT_SECONDS, every=1)
    except Broken as broken:
        run.timeline.attack(ATTACK, expected=REFUSAL, code=None, detail=broken.detail)
        return
    found = _findings(node)
    run.timeline.attack(ATTACK, expected=REFUSAL, code=next(iter(found), None), detail=node["reason"])
    for finding in node["last_round"]["findings"]:
        run.timeline.note(finding["detail"])
    run.timeline.note("(4: what the firmware started; 7: by whose keys; 9 and 11: command line, initrd and kernel)")
    run.timeline.effect(f"{NODE} is {node['standing']}", ok=True, ms=None, detail=f"generation {node['generation']}")


def _node(run: Run) -> dict[str, Any]:
    return run.operator("node", "explain", NODE)


def _findings(node: dict[str, Any]) -> list[str]:
    return [str(finding["id"]) for finding in (node.get("last_round") or {}).get("findings", [])]
