"""Somebody opens the box of a node that is believed: the disk or the flash is changed, the TPM is the node's own.

What does not boot leaves the node silent, until it lapses; what boots is judged, and falls. Nothing makes it trusted.

Silent is what is not heard of for as long as the good boot needed for its first round: the second such box is opened
when the node has lapsed already.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from umec_platform.demo.command import wait_for
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.vm.machine import NODE, switch_on

__all__ = ["KINDS", "Opened", "explained", "found_of", "open_box"]

CLOSED: Final = frozenset({"approval-pcrs", "approval-outdated"})
"""Why data is not opened in a state of which the owner approved another one, or has approved a newer one since."""
VERDICT_SECONDS: Final = 300.0
"""From the boot to the verdict, or to the end of the verifier's patience with a silent node."""
LOOK_EVERY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What was done, what refuses it, and what names the stage: words of the findings (none: it does not boot)."""

    done: str
    refused: str
    stages: tuple[str, ...] = ()


KINDS: Final[Mapping[str, Opened]] = MappingProxyType(
    {
        "kernel": Opened("four bytes of the kernel are others", "signature"),
        "cmdline": Opened("a word is added to the signed command line", "signature"),
        "initrd": Opened("four bytes of the initrd are others", "signature"),
        "root": Opened("four bytes of the root file system are others", "verity"),
        "firmware-vars": Opened("Secure Boot is switched off in the firmware", "pcr-unexpected", ("SecureBoot",)),
        "downgrade": Opened(
            "an older image of the owner, whose signature is good",
            "version-outdated",
            ("kernel image", "name and version", "command line"),
        ),
        "keys": Opened(
            "a changed command line, signed with the attacker's keys, which replace the owner's in the firmware",
            "pcr-unexpected",
            ("kernel image", "PK", "KEK", "db", "signer of the kernel image", "command line"),
        ),
    }
)
"""By the kinds of `umec nodeimage boot --tamper`; first what leaves the node silent, then what fells it."""


def open_box(run: Run, kind: str, image: Path, older: Path | None, *, good: float) -> None:
    """Do it, boot, and see what becomes of the node; an attack that is not refused as it should be fails the run.

    `good` is after how many seconds an untouched box was heard of.
    """
    before, began = explained(run), time.monotonic()
    machine = switch_on(run, image, tamper=kind, older=older)
    outcome = machine.wait("the boot", "outcome")
    if not outcome["as_documented"]:
        raise Broken("; ".join(outcome["faults"]), "boot-unexpected")
    opened = KINDS[kind]
    run.timeline.note(f"{opened.done}; the boot came as far as the stage {outcome['stage']}")
    try:
        if opened.stages:
            closed = machine.wait("the data partition", "data-closed", seconds=VERDICT_SECONDS)
            run.timeline.effect("its data stays closed", ok=closed["code"] in CLOSED, ms=None, detail=closed["detail"])
            _judged(run, kind, int(before["rounds"]))
        else:
            _silent(run, kind, outcome, before, until=began + good)
    finally:
        machine.switch_off()


def _silent(run: Run, kind: str, outcome: Mapping[str, Any], before: Mapping[str, Any], *, until: float) -> None:
    """It does not boot: the console names what stopped it, and the verifier hears of the node no more."""

    def over() -> dict[str, Any] | None:
        late = time.monotonic() >= until
        node = explained(run)
        heard = node["rounds"] != before["rounds"]
        return node if heard or (late and node["standing"] not in {"trusted", "degraded"}) else None

    run.timeline.attack(kind, expected=KINDS[kind].refused, code=outcome["ended_by"], detail=str(outcome["said"]))
    run.timeline.note(str(outcome["said"]))
    what = "the end of the verifier's patience, and the time of a good boot"
    seconds = VERDICT_SECONDS + max(0.0, until - time.monotonic())
    node, _ = wait_for(what, over, seconds=seconds, every=LOOK_EVERY)
    ok = node["rounds"] == before["rounds"] and node["standing"] != "pending"
    run.timeline.effect(f"{NODE} is {node['standing']}", ok=ok, ms=None, detail=node["reason"])


def _judged(run: Run, kind: str, rounds: int) -> None:
    """It boots: it answers with its own TPM and its own keys, and what it measured is judged."""
    opened = KINDS[kind]

    def fallen() -> dict[str, Any] | None:
        node = explained(run)
        return node if node["rounds"] > rounds and node["standing"] == "untrusted" else None

    try:
        node, _ = wait_for("the verdict", fallen, seconds=VERDICT_SECONDS, every=LOOK_EVERY)
    except Broken as broken:
        run.timeline.attack(kind, expected=opened.refused, code=None, detail=broken.detail)
        return
    findings = node["last_round"]["findings"]
    code = opened.refused if opened.refused in found_of(node) else next(iter(found_of(node)), None)
    run.timeline.attack(kind, expected=opened.refused, code=code, detail=node["reason"])
    for finding in findings:
        run.timeline.note(f"{finding['id']}: {finding['detail']}")
    told = {stage for finding in findings for stage in finding["detail"].rpartition(": ")[2].split(", ")}
    missing = [stage for stage in opened.stages if stage not in told]
    named = f"the findings name {', '.join(opened.stages)}"
    run.timeline.effect(named, ok=not missing, ms=None, detail=f"not named: {', '.join(missing)}" if missing else "")
    detail = f"generation {node['generation']}, since: {node['reason']}"
    run.timeline.effect(f"{NODE} is {node['standing']}", ok=True, ms=None, detail=detail)


def explained(run: Run) -> dict[str, Any]:
    """Return what the site says of the node."""
    return run.operator("node", "explain", NODE)


def found_of(node: Mapping[str, Any]) -> list[str]:
    """Return what the last round found, by its ids."""
    return [str(finding["id"]) for finding in (node.get("last_round") or {}).get("findings", [])]
