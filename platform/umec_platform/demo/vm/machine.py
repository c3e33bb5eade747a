"""Link 2 for a machine that boots: switched on by the command line, and followed by what it prints."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from umec_platform.demo.command import umec, umec_line, wait_for
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken

__all__ = ["NODE", "Machine", "buy_tpm", "said", "switch_on"]

NODE: Final = "pole-1"
BOOT_SECONDS: Final = 600.0
"""A boot takes half a minute on an idle machine, and several where others work."""
LOOK_EVERY: Final = 0.25


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that was switched on: a program of the run, whose output is a line for each event."""

    run: Run
    program: str

    def wait(self, what: str, event: str, *, seconds: float = BOOT_SECONDS) -> dict[str, Any]:
        """Return the first event of a kind, of the boot or of the agent in it; raises `Broken`."""

        def told() -> dict[str, Any] | None:
            found = next((line for line in self.events() if line.get("event") == event), None)
            refused = next((line for line in self.events() if line.get("event") == "refused"), None)
            if found is None and refused is not None:
                raise Broken(f"{what}: {refused.get('detail')}", refused.get("code"))
            if found is None:
                self.run.processes.check(self.program)
            return found

        return wait_for(what, told, seconds=seconds, every=LOOK_EVERY)[0]

    def events(self) -> list[dict[str, Any]]:
        """Return what was told until now; what the agent says on the console is among it."""
        text = self.run.processes.log(self.program).read_text(errors="replace")
        printed = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [event for line in printed for event in (line, *said(line))]

    def switch_off(self) -> None:
        """Take the plug out."""
        self.run.processes.stop(self.program)


def buy_tpm(run: Run) -> str:
    """Make the TPM of the node, whose maker the site believes; return the hash of its endorsement key."""
    folder = run.folder / "node" / "tpm"
    run.processes.start("tpm", umec_line("node", "software-tpm", str(folder), "--json"))

    def ready() -> dict[str, Any] | None:
        run.processes.check("tpm")
        lines = [line for line in run.processes.log("tpm").read_text().splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else None

    made, _ = wait_for("the software TPM", ready, seconds=60)
    roots = run.folder / "ek-roots"
    roots.mkdir()
    shutil.copy(made["ek_root"], roots / "maker.pem")
    shutil.copy(made["ek_chain"], roots / "maker-issuer.pem")
    ek = str(umec("node", "ek", "--tcti", made["tcti"])["ek_sha256"])
    run.processes.stop("tpm")
    return ek


def switch_on(
    run: Run,
    image: Path,
    *,
    ticket: Path | None = None,
    tamper: str | None = None,
    older: Path | None = None,
    access: str | None = None,
) -> Machine:
    """Put the image on the node, change it if `tamper` says how (with an older one, where it takes that); switch it on.

    `access` names a tap that is its second network.

    Raises `Broken` where it cannot be changed so.
    """
    program = "machine" if tamper is None else f"machine-{tamper}"
    line = umec_line("nodeimage", "boot", str(image), "--keep", str(run.folder / "node"), "--network", "--on", "--json")
    line += [] if ticket is None else ["--ticket", str(ticket)]
    line += [] if tamper is None else ["--tamper", tamper]
    line += [] if older is None else ["--older", str(older)]
    line += [] if access is None else ["--access", access]
    run.processes.start(program, [*line, "--seconds", str(int(BOOT_SECONDS))])
    return Machine(run, program)


def said(line: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the event in a line of the console: one JSON object behind `umec-node: `."""
    text = str(line.get("text", "")).partition("umec-node: ")[2]
    if line.get("event") != "line" or not text.startswith("{"):
        return []
    try:
        return [dict(json.loads(text))]
    except ValueError:
        return []
