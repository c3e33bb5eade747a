"""One street with everything that an application needs, built by the command line as an operator would."""

import json
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_core.keys import load_or_create_key
from umec_platform.demo import nodes
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.topology import ACCESS_INTERFACE, NODES, SITE_ADDRESS, build_street

__all__ = ["ADDRESS", "BUILDER", "NODE", "TENANT", "TENANT_OWNER", "open_street"]

NODE: Final = NODES[0]
TENANT: Final = "city"
ADDRESS: Final = "198.51.100.80"
"""What the tenant's rules may be about: no machine has this address, so only a rule makes it lead anywhere."""
BUILDER: Final = "city-builder"
TENANT_OWNER: Final = "city-owner"
ROUND_SECONDS: Final = 10
"""Nobody waits long for a change, and the machine is not busy with nothing else."""
START_SECONDS: Final = 60.0


def open_street(run: Run) -> None:
    """Build the links, start the site and the node, and make the accounts; raises `Broken`."""
    build_street([NODE])
    tpm = nodes.start_tpm(run, NODE.name)
    _start_site(run)
    nodes.publish_reference_set(run)
    nodes.boot(run, NODE)
    nodes.enrol(run, NODE, tpm["ek_chain"])
    nodes.attest(run, NODE)
    nodes.get_credentials(run, NODE)
    (run.folder / "operator.json").symlink_to(run.credential)
    run.operator("tenant", "add", TENANT, "--address", f"{ADDRESS}/32")
    socket = run.state / "netd" / NODE.name / "netd.sock"
    run.operator("host", "add", NODE.name, "--node", NODE.name, "--netd", str(socket))
    _account(run, BUILDER, "builder", "images:push", "images:pull")
    _account(run, TENANT_OWNER, "operator", "platform:tenant")
    _wait_for_host(run)


def _start_site(run: Run) -> None:
    key = load_or_create_key(run.folder / "reference-signer.key")
    signer = run.folder / "reference-signer.pem"
    signer.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    config = run.folder / "umec.toml"
    config.write_text(_settings(run, signer))
    run.processes.start("site", umec_line("up", "--config", str(config), "--json"))

    def ready() -> bool | None:
        run.processes.check("site")
        if not Path(run.credential).exists():
            return None
        try:
            with run.http() as http:
                return True if http.get(f"{MANAGEMENT}/readyz").status_code == 200 else None
        except httpx.TransportError:
            return None

    wait_for("umec up", ready, seconds=START_SECONDS)


def _settings(run: Run, signer: Path) -> str:
    tables: dict[str, dict[str, Any]] = {
        "": {"state": str(run.state), "host": SITE_ADDRESS},
        "[attest]": {
            "round_seconds": ROUND_SECONDS,
            "reference_signers": [str(signer)],
            "ek_roots": str(run.folder / "ek-roots"),
            "software_tpms": True,
        },
        "[[netd]]": {
            "node": NODE.name,
            "namespace": NODE.name,
            "access": ACCESS_INTERFACE,
            "access_address": NODE.access,
            "pool": NODE.pool,
        },
    }
    lines = [
        [head, *(f"{name} = {json.dumps(value)}" for name, value in table.items())] for head, table in tables.items()
    ]
    return "\n".join(line for table in lines for line in table) + "\n"


def _account(run: Run, client: str, kind: str, *scopes: str) -> None:
    options = ["--kind", kind, "--tenant", TENANT]
    for scope in scopes:
        options += ["--scope", scope]
    run.operator("client", "add", client, *options, "--out", str(run.folder / f"{client}.json"))


def _wait_for_host(run: Run) -> None:
    """Wait until the platform has heard that the host's node is trusted: instances start from then on."""

    def trusted() -> bool | None:
        hosts = run.operator("host", "list")["hosts"]
        return True if [each["standing"] for each in hosts] == ["trusted"] else None

    wait_for("the MEC host's standing", trusted, seconds=START_SECONDS, every=0.5)
