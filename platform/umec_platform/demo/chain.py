"""The story: the street is built, the site starts, and every link of the chain is shown, attacked, and made to fall."""

import json
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from umec_platform.demo import applications, attacks, audit, fall, images, nodes, sabotage
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.topology import ACCESS_INTERFACE, NODES, SITE_ADDRESS, StreetNode, build_street

__all__ = ["show"]

ROUND_SECONDS: Final = 2
"""Rounds of the demo; a real site's default is 30."""


def show(this: Run) -> None:
    """Show the whole chain; raises `Broken` at the first link that does not hold."""
    build_street()
    tpms = {node.name: nodes.start_tpm(this, node.name) for node in NODES}
    stranger = attacks.buy_tpm(this)
    start_site(this)

    this.timeline.chapter("A node is believed")
    nodes.publish_reference_set(this)
    for node in NODES:
        nodes.boot(this, node)
        nodes.enrol(this, node, tpms[node.name]["ek_chain"])
        nodes.attest(this, node)
        nodes.get_credentials(this, node)
    attacks.on_evidence(this, stranger)

    this.timeline.chapter("An image is believed")
    images.register_builders(this)
    digest = images.build_example(this)
    for node in NODES:
        images.publish(this, node, digest)

    this.timeline.chapter("An application runs, and moves packets and names")
    for node in NODES:
        applications.add_tenant(this, node)
    running = [applications.deploy(this, node, digest) for node in NODES]
    probes = attacks.Probes.register(this)
    attacks.on_tokens(this, probes, running[0].instance)
    attacks.on_images(this)

    this.timeline.chapter("Trust falls, and everything falls with it")
    fall.fall(this, running[0], running[1], probes)
    fall.recover(this, running[0])

    this.timeline.chapter("What happened can be proven")
    audit.verify_logs(this)


def start_site(this: Run) -> None:
    """Start `umec up` with the settings of this street, and wait until it is ready."""
    signer = _signing_key(this)
    site = {"state": str(this.state), "host": SITE_ADDRESS}
    attest = {
        "round_seconds": ROUND_SECONDS,
        "reference_signers": [signer],
        "ek_roots": str(this.folder / "ek-roots"),
    }
    broken = sabotage.prepare(this)
    tables = [_toml(site | broken.pop("site", {})), f"[attest]\n{_toml(attest)}"]
    tables += [f"[{name}]\n{_toml(table)}" for name, table in broken.items()]
    tables += [f"[[netd]]\n{_toml(_host(node))}" for node in NODES]
    config = this.folder / "umec.toml"
    config.write_text("\n".join(tables))
    this.processes.start("site", umec_line("up", "--config", str(config), "--json"))

    def ready() -> bool | None:
        this.processes.check("site")
        if not (this.state / "operator.json").exists():
            return None
        try:
            with this.http() as http:
                return True if http.get(f"{MANAGEMENT}/readyz").status_code == 200 else None
        except httpx.TransportError:
            return None

    wait_for("umec up", ready, seconds=40)


def _signing_key(this: Run) -> str:
    """Make the key of whoever signs reference sets; return the file with its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = this.folder / "reference-signer.key"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = this.folder / "reference-signer.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(public)


def _host(node: StreetNode) -> dict[str, Any]:
    """Settings of the MEC host that a node is."""
    return {
        "node": node.name,
        "namespace": node.name,
        "access": ACCESS_INTERFACE,
        "access_address": node.access,
        "pool": node.pool,
    }


def _toml(table: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in table.items())
