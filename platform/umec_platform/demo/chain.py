"""The story: the street is built, the site starts, and every link of the chain is shown, attacked, and made to fall."""

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from umec_attest.testing.swtpm import SoftwareTpm
from umec_platform.demo import applications, audit, fall, images, nodes, recovery, recovery_site, sabotage
from umec_platform.demo.alarms import Alarms
from umec_platform.demo.attacks import audit as attacked_audit
from umec_platform.demo.attacks import credentials, enrolment, evidence, fallen, feed, node_credentials, patience, rules
from umec_platform.demo.attacks import images as attacked_images
from umec_platform.demo.attacks import inside as attacked_inside
from umec_platform.demo.attacks.credentials import Holders
from umec_platform.demo.attacks.patience import Patience
from umec_platform.demo.attacks.stranger import Stranger, buy_tpm
from umec_platform.demo.attacks.table import carry_out
from umec_platform.demo.command import umec_line, wait_for
from umec_platform.demo.run import MANAGEMENT, Run
from umec_platform.demo.topology import ACCESS_INTERFACE, NODES, SITE_ADDRESS, StreetNode, build_street

__all__ = ["show", "start_site"]

ROUND_SECONDS: Final = 2
"""Rounds of the demo; a real site's default is 30."""


def show(this: Run) -> None:
    """Show the whole chain, or what one attack needs; raises `Broken` at the first link that does not hold."""
    build_street()
    story = Story(this, {node.name: nodes.start_tpm(this, node.name) for node in NODES}, buy_tpm(this))
    images.retire_authority(this)
    start_site(this)
    for chapter in (_nodes, _images, _applications, _fall, _recovery, _proof):
        chapter(this, story)
        if this.shown:
            return


class Story:
    """What one chapter makes and a later one needs."""

    def __init__(self, this: Run, tpms: dict[str, dict[str, str]], bought: SoftwareTpm) -> None:
        self._this = this
        self.tpms = tpms
        self.stranger = Stranger(this, bought)
        self.digest = ""
        self.running: list[applications.Running] = []

    @cached_property
    def holders(self) -> Holders:
        """People outside who have a credential each."""
        return Holders(self._this, self.running[0].instance)

    @cached_property
    def patience(self) -> Patience:
        """Somebody who has recorded what was true when they were first named."""
        return Patience(self._this)


def _nodes(this: Run, story: Story) -> None:
    this.timeline.chapter("A node is believed")
    nodes.publish_reference_set(this)
    for node in NODES:
        nodes.boot(this, node)
        nodes.enrol(this, node, story.tpms[node.name]["ek_chain"])
        nodes.attest(this, node)
        nodes.get_credentials(this, node)
    stranger = story.stranger
    carry_out(this, evidence.ATTACKS, lambda: stranger)
    carry_out(this, enrolment.ATTACKS, lambda: stranger)
    carry_out(this, node_credentials.ATTACKS, lambda: stranger)
    if this.whole:
        assert story.patience  # noqa: S101 - what is to be old later is recorded when it is first named


def _images(this: Run, story: Story) -> None:
    this.timeline.chapter("An image is believed")
    images.register_builders(this)
    story.digest = images.build_example(this)
    for node in NODES:
        images.publish(this, node, story.digest)


def _applications(this: Run, story: Story) -> None:
    this.timeline.chapter("An application runs, and moves packets and names")
    for node in NODES:
        applications.add_tenant(this, node)
    if this.whole:
        story.patience.cut()
    story.running = [applications.deploy(this, node, story.digest) for node in NODES]
    carry_out(this, credentials.ATTACKS, lambda: story.holders)
    carry_out(this, rules.ATTACKS, lambda: rules.Tenant(this))
    carry_out(this, attacked_inside.ATTACKS, lambda: attacked_inside.Intruder(this, *story.running))
    carry_out(this, feed.ATTACKS, lambda: feed.courier_of(this))
    carry_out(this, attacked_images.ATTACKS, lambda: attacked_images.Supply(this))
    carry_out(this, patience.ATTACKS, lambda: story.patience)


def _fall(this: Run, story: Story) -> None:
    if this.only not in {None, *(attack.name for attack in fallen.ATTACKS)}:
        return
    this.timeline.chapter("Trust falls, and everything falls with it")
    met = fall.fall(this, story.running[0], story.running[1], story.holders)
    carry_out(this, fallen.ATTACKS, lambda: met)


def _recovery(this: Run, story: Story) -> None:
    if this.only is not None:
        return
    this.timeline.chapter("It comes back by itself")
    here, there = story.running
    scene = recovery.Scene(this, here, there, story.holders, Alarms(this), ROUND_SECONDS)
    fall.recover(this, here)
    scene.alarms.told("reboot with the good image")
    if this.sabotage is not None:
        return
    recovery.quarantine(scene)
    recovery.power_cut(scene)
    recovery_site.site_stopped(scene)
    recovery_site.feed_cut(scene)
    recovery_site.site_killed(scene)


def _proof(this: Run, story: Story) -> None:
    carry_out(this, patience.LATE, lambda: story.patience)
    if this.shown:
        return
    this.timeline.chapter("What happened can be proven")
    audit.verify_logs(this)
    carry_out(this, attacked_audit.ATTACKS, lambda: this)


def start_site(this: Run, street: Sequence[StreetNode] = NODES, round_seconds: int = ROUND_SECONDS) -> None:
    """Start `umec up` with the settings of this street, and wait until it is ready."""
    signer = _signing_key(this)
    site = {"state": str(this.state), "host": SITE_ADDRESS}
    attest = {
        "round_seconds": round_seconds,
        "reference_signers": [signer],
        "ek_roots": str(this.folder / "ek-roots"),
        "software_tpms": True,
    }
    broken = sabotage.prepare(this)
    broken["identity"] = {"token_seconds": patience.LIFE_SECONDS} | broken.get("identity", {})
    tables = [_toml(site | broken.pop("site", {})), f"[attest]\n{_toml(attest)}"]
    tables += [f"[{name}]\n{_toml(table)}" for name, table in broken.items()]
    tables += [f"[[netd]]\n{_toml(_host(node))}" for node in street]
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
