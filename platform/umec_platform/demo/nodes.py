"""Links 1 to 6: a node image, its measured boot, enrolment, attestation, the verdict, and the node's credential."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from umec_platform.demo.command import umec, umec_line, wait_for
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.timeline import Broken
from umec_platform.demo.topology import NODES, StreetNode, inside

__all__ = [
    "IMAGE",
    "attest",
    "boot",
    "boot_image",
    "boot_log",
    "call",
    "enrol",
    "get_credentials",
    "logs",
    "publish_reference_set",
    "reboot",
    "root_files",
    "start_tpm",
    "ticket_for",
]

IMAGE: Final = "street-node"
PCRS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
PROGRAMS: Final = ("usr/lib/systemd/systemd", "usr/bin/umec-agent", "usr/bin/runc")
"""What runs on a node of the demo, in its image's root file system."""


def start_tpm(run: Run, name: str) -> dict[str, str]:
    """Start a software TPM whose EK certificate comes from a maker of its own; return tcti, ek_root, ek_chain."""
    run.processes.start(f"tpm-{name}", umec_line("node", "software-tpm", str(run.folder / f"tpm-{name}"), "--json"))

    def ready() -> dict[str, str] | None:
        run.processes.check(f"tpm-{name}")
        lines = [line for line in run.processes.log(f"tpm-{name}").read_text().splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else None

    made, _ = wait_for(f"the software TPM of {name}", ready, seconds=30)
    run.tcti[name] = made["tcti"]
    roots = run.folder / "ek-roots"
    roots.mkdir(exist_ok=True)
    shutil.copy(made["ek_root"], roots / f"{name}.pem")
    return made


def publish_reference_set(run: Run) -> None:
    """Link 1: a builder predicts the PCR values of an image from its files and signs them; the verifier takes them."""
    image = run.folder / "node-image"
    umec("node", "sample-image", str(image))
    for name in PROGRAMS:
        program = root_files(run) / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_bytes(b"the program " + name.encode())
    key = run.folder / ("stranger.key" if run.sabotaged(1) else "reference-signer.key")
    statement = run.folder / "reference.dsse"
    with run.timeline.link(
        1, "PCR values and files predicted from the image, signed, taken by the verifier"
    ) as evidence:
        options = ["--name", IMAGE, "--version", "1", "--days", "30", "--key", str(key), "--out", str(statement)]
        umec("nodeimage", "predict", str(image), "--root", str(root_files(run)), *options)
        taken = run.operator("nodeimage", "publish", str(statement))
        evidence.data = statement.read_bytes()
        evidence.note = f"{taken['image']} version {taken['version']}"


def boot(run: Run, node: StreetNode, *, tamper: str | None = None) -> None:
    """Link 2: a firmware measures the image into the TPM and writes its log; the log replays to the TPM's PCRs."""
    boot_image(run, node.name, tamper)
    log = boot_log(run, node.name)
    if node is NODES[0] and run.sabotaged(2):
        boot_image(run, node.name, "initrd", log=run.folder / "other.log", tcti=start_tpm(run, "other")["tcti"])
        log.write_bytes((run.folder / "other.log").read_bytes())
    with run.timeline.link(
        2, f"{node.name} booted, SIMULATED by a program; its log replays to what its TPM holds"
    ) as evidence:
        pcrs = run.folder / f"{node.name}.pcrs.json"
        pcrs.write_text(json.dumps({"sha256": _read_pcrs(run, node.name)}))
        shown = umec("bootlog", "show", str(log), "--pcrs", str(pcrs))
        evidence.data = log.read_bytes()
        evidence.note = f"{len(shown['events'])} events"


def reboot(run: Run, node: StreetNode, *, tamper: str | None = None) -> None:
    """Switch a node off and on, with one stage of its boot changed if `tamper` names one."""
    boot_image(run, node.name, tamper, power_cycle=True)


def ticket_for(run: Run, node: str, tenant: str) -> str:
    """Have the operator admit the TPM of a node; return the ticket."""
    ek = umec("node", "ek", "--tcti", run.tcti[node])["ek_sha256"]
    return str(run.operator("node", "ticket", node, "--tenant", tenant, "--image", IMAGE, "--ek-sha256", ek)["ticket"])


def enrol(run: Run, node: StreetNode, ek_chain: str) -> None:
    """Link 3: the node shows that it has the TPM of its ticket, and that its keys live in it."""
    ticket = ticket_for(run, node.name, node.tenant)
    tcti = run.tcti[node.name]
    if node is NODES[0] and run.sabotaged(3):
        other = start_tpm(run, "foreign")
        tcti, ek_chain = other["tcti"], other["ek_chain"]
    with run.timeline.link(3, f"{node.name} enrolled: EK, AK in its hierarchy, node key certified") as evidence:
        options = ["--ticket", ticket, "--ca", run.ca, "--tcti", tcti, "--ek-chain", ek_chain]
        done = umec("node", "enroll", "--state", _state(run, node), *options, namespace=node.name)
        evidence.data = done["ek_sha256"].encode()
        evidence.note = f"EK {done['ek_sha256'][:12]}…"


def attest(run: Run, node: StreetNode) -> None:
    """Links 4 and 5: a round with fresh evidence, and its verdict as a signed attestation result."""
    if node is NODES[0] and run.sabotaged(4):
        reboot(run, node, tamper="cmdline")
    saved = run.folder / f"evidence-{node.name}"
    with run.timeline.link(4, f"{node.name} attested: fresh nonce, quote, log, files that ran, policy") as evidence:
        options = [*logs(run, node.name), "--save", str(saved)]
        result = umec("node", "attest", "--state", _state(run, node), *options, namespace=node.name)
        evidence.data = (saved / "quote.bin").read_bytes()
        evidence.note = f"{result['verdict']}, {result['standing']}"
        if result["verdict"] != "affirming" or result["standing"] != "trusted":
            found = ", ".join(finding["id"] for finding in result.get("findings", []))
            raise Broken(f"{node.name} is {result['standing']}: {found}", "not-trusted")
    with run.timeline.link(5, f"{node.name} has a verdict that the site's keys verify, for its node key") as evidence:
        ear = (saved / "ear.jwt").read_text()
        claims = _verify_verdict(run, ear)
        if claims["sub"] != node.name or claims["umec"]["tenant"] != node.tenant:
            raise Broken(f"the verdict is about {claims['sub']}")
        evidence.data = ear.encode()
        evidence.note = f"generation {claims['umec']['generation']}"


def get_credentials(run: Run, node: StreetNode) -> None:
    """Link 6: the agent runs; it has a certificate for a key in its memory, and a token bound to it works."""
    line = umec_line("node", "run", "--state", _state(run, node), *logs(run, node.name), "--json")
    run.processes.start(f"agent-{node.name}", inside(node.name, line))

    def certified() -> bool | None:
        run.processes.check(f"agent-{node.name}")
        return True if '"event": "certificate"' in run.processes.log(f"agent-{node.name}").read_text() else None

    with run.timeline.link(6, f"{node.name} called an API with its certificate and a token bound to it") as evidence:
        wait_for(f"a certificate for {node.name}", certified, seconds=20)
        said = call(run, node, "GET", f"{MANAGEMENT}/attest/v1/standings/own")
        evidence.data = str(said["body"]).encode()
        evidence.note = "mTLS, RFC 8705"


def call(run: Run, node: StreetNode, method: str, url: str) -> dict[str, Any]:
    """Have the running agent of a node send one request in the node's name."""
    return umec("node", "call", method, url, "--state", _state(run, node), namespace=node.name)


def _state(run: Run, node: StreetNode) -> str:
    return str(run.folder / f"agent-{node.name}")


def boot_log(run: Run, name: str) -> Path:
    """Return the boot log file of a node."""
    return run.folder / f"{name}.bootlog"


def runtime_list(run: Run, name: str) -> Path:
    """Return the file with the list of what ran on a node, as its kernel writes it."""
    return run.folder / f"{name}.ima"


def logs(run: Run, name: str) -> list[str]:
    """Return the options that tell an agent where its logs are."""
    return ["--boot-log", str(boot_log(run, name)), "--runtime-list", str(runtime_list(run, name))]


def root_files(run: Run) -> Path:
    """Return the root file system of the node image: what is in it may run."""
    return run.folder / "node-root"


def boot_image(
    run: Run,
    name: str,
    tamper: str | None = None,
    *,
    power_cycle: bool = False,
    log: Path | None = None,
    tcti: str | None = None,
) -> None:
    """Have the simulated firmware boot the node image on the TPM of a node, and write its boot log."""
    written = log or boot_log(run, name)
    options = ["--tcti", tcti or run.tcti[name], "--image", str(run.folder / "node-image"), "--log", str(written)]
    options += [
        "--root",
        str(root_files(run)),
        "--runtime-list",
        str(runtime_list(run, name if log is None else "other")),
    ]
    options += [] if tamper is None else ["--tamper", tamper]
    options += ["--power-cycle"] if power_cycle else []
    umec("node", "simulate-boot", *options)


def _read_pcrs(run: Run, name: str) -> dict[str, str]:
    """Ask the TPM itself, with another TPM client than ours."""
    values = run.folder / f"{name}.pcrs.bin"
    selection = "sha256:" + ",".join(map(str, PCRS))
    command = ["tpm2_pcrread", selection, "--tcti", run.tcti[name], "--output", str(values)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise Broken(f"tpm2_pcrread: {done.stderr.strip()}")
    data = values.read_bytes()
    return {str(pcr): data[32 * place : 32 * place + 32].hex() for place, pcr in enumerate(PCRS)}


def _verify_verdict(run: Run, ear: str) -> dict[str, Any]:
    """Verify the attestation result with a JOSE library alone, by the keys that the site pins."""
    keys = KeySet.import_key_set(json.loads((run.state / "verifier.jwks.json").read_text()))
    try:
        token = jwt.decode(ear, keys, algorithms=["ES256"])
        registry = jwt.JWTClaimsRegistry(aud={"essential": True, "value": MANAGEMENT}, exp={"essential": True})
        registry.validate(token.claims)
    except (JoseError, ValueError) as error:
        raise Broken(f"the verdict does not verify: {error}", "verdict-invalid") from error
    return dict(token.claims)
