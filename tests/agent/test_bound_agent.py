"""An agent whose node key is bound to approved states: enrolment, credentials, rotation, and what each refusal says."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.agent.binding import Binding, load_binding
from umec_attest.agent.enrol import enrol
from umec_attest.agent.loop import Agent
from umec_attest.agent.rotation import load_next_keys, rotation_pending
from umec_attest.agent.state import load_state
from umec_attest.agent.tpm import Tpm, sealing
from umec_attest.agent.verdict_file import VerdictFile
from umec_attest.errors import AttestError, NodeKeyPolicy, NodeKeyUnbound
from umec_attest.node_binding import owner_policy
from umec_attest.sealed import sign_approval
from umec_attest.testing import firmware
from umec_attest.testing.image import Tamper, make_image
from umec_core.errors import Unavailable
from umec_core.remote import RemoteRefused
from umec_images.update.trial import Said, read_said

OWNER = ec.generate_private_key(ec.SECP256R1())
IMAGE, NODE = "kerb-node", "kerb-7"
POLICY = owner_policy(OWNER.public_key(), IMAGE)


class Papers:
    """What comes with an image: the owner's key, and the approval of what the TPM has measured."""

    def __init__(self, scene: Any, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        folder.mkdir()
        pem = OWNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (folder / "owner.pem").write_bytes(pem)
        with Tpm(scene.device.tcti) as tpm:
            self.version = tpm.do(sealing.counter_value)
        self.approve()

    @property
    def approval(self) -> Path:
        return self.folder / "approval"

    @property
    def binding(self) -> Binding:
        found = load_binding(self.folder / "owner.pem", self.approval)
        assert found is not None
        return found

    def approve(self, image: str = IMAGE) -> None:
        with Tpm(self.scene.device.tcti) as tpm:
            measured = tpm.read_pcrs((4, 7, 11))
        self.approval.write_bytes(sign_approval(image=image, version=self.version, pcrs=measured, key=OWNER))

    def boot(self, tamper: Tamper | None = None, image: Path | None = None) -> None:
        self.scene.device.power_cycle()
        firmware.boot(self.scene.device, image or self.scene.image, log=self.scene.log, tamper=tamper)

    def play(self, work: Callable[[Agent], Any], *, bound: bool = True, **options: Any) -> None:
        """Run an agent with these papers; the node is enrolled with them, too, if it was not yet."""
        scene = self.scene
        binding = self.binding if bound else None

        async def playing() -> None:
            async with scene.standin.running():
                if not (scene.state / "node.json").exists():
                    await enrol(scene.plan(binding=binding), scene.state)
                await scene.with_agent(work, binding=binding, **options)

        asyncio.run(playing())


@pytest.fixture
def papers(scene: Any, tmp_path: Path) -> Papers:
    return Papers(scene, tmp_path / "papers")


def policy(scene: Any) -> bytes:
    known = scene.standin.nodes[NODE]["node_key"]
    assert load_state(scene.state).node_key.public == known.to_bytes()
    return bytes(known.auth_policy)


async def credentials(agent: Agent) -> None:
    """Evidence, a certificate request, a proof, a token."""
    assert (await agent.attest()).verdict == "affirming"
    await agent.renew()
    await agent.token("https://a/", "node:host")


def refused(code: str) -> Callable[[Agent], Any]:
    async def work(agent: Agent) -> None:
        await agent.attest()  # bad boots are told to the verifier: by the AK, which nothing binds
        with pytest.raises(AttestError) as raised:
            await agent.renew()
        assert raised.value.code == code

    return work


def test_a_bound_node_gets_its_credentials_in_every_boot_of_an_approved_image(
    scene: Any, papers: Papers, tmp_path: Path
) -> None:
    papers.play(credentials)
    assert policy(scene) == POLICY
    papers.boot()
    papers.play(credentials)
    papers.boot(image=make_image(tmp_path / "newer", kernel=b"a newer kernel"))
    papers.play(refused("approval-pcrs"))
    papers.approve()
    papers.play(credentials)  # the next image, and nobody enrolled anew
    assert scene.standin.asked.count("enrolments") == 1


def test_a_bad_boot_tells_its_state_and_gets_nothing(scene: Any, papers: Papers) -> None:
    papers.play(credentials)
    papers.boot(Tamper.KERNEL)
    papers.play(refused("approval-pcrs"))  # though this verifier believes it
    papers.play(refused("approval-missing"), bound=False)
    papers.approval.unlink()
    papers.play(refused("approval-missing"))
    assert [scene.standin.asked.count(name) for name in ("evidence", "certificates")] == [4, 1]


def test_a_node_that_is_trusted_and_cannot_sign_tells_the_keeper_of_no_certificate(scene: Any, papers: Papers) -> None:
    standing = papers.folder / "standing"

    def said_after(work: Callable[[Agent], Any]) -> Said | None:
        verdicts, before = VerdictFile(standing), len(scene.lines)
        papers.play(work)
        for line in scene.lines[before:]:
            verdicts.heard(line)
        return read_said(standing)

    assert said_after(credentials) == Said("trusted", certificate=True)
    signed = papers.approval.read_bytes()
    papers.approval.unlink()
    assert said_after(refused("approval-missing")) == Said("trusted", certificate=False)
    papers.approval.write_bytes(signed)
    assert said_after(credentials) == Said("trusted", certificate=True)


def test_no_node_enrols_in_a_state_that_nobody_approved(scene: Any, papers: Papers) -> None:
    papers.boot(Tamper.KERNEL)
    with pytest.raises(AttestError) as raised:
        papers.play(credentials)
    assert raised.value.code == "approval-pcrs"
    assert scene.standin.asked == []
    assert not (scene.state / "node.json").exists()
    papers.boot()
    papers.play(credentials)


def test_a_rotation_keeps_the_binding(scene: Any, papers: Papers) -> None:
    async def rotating(agent: Agent) -> None:
        await credentials(agent)
        before = load_state(scene.state).node_key
        await agent.rotate()
        assert load_state(scene.state).node_key != before
        await credentials(agent)

    papers.play(rotating)
    assert policy(scene) == POLICY
    papers.play(credentials)


def test_an_unbound_key_has_a_bound_successor_after_the_first_good_round(scene: Any, papers: Papers) -> None:
    papers.play(credentials, bound=False)
    assert policy(scene) == b""
    scene.standin.verdict = "contraindicated"

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "round")
        assert scene.standin.asked.count("rotations") == 0
        scene.standin.verdict = "affirming"
        await scene.until(lambda line: line["event"] == "rotated")
        await scene.until(lambda line: line["event"] == "certificate")
        await scene.until(lambda line: line["event"] == "round")
        await scene.until(lambda line: line["event"] == "round")
        stop.set()
        await working

    papers.play(running)
    assert policy(scene) == POLICY
    assert scene.standin.asked.count("rotations") == 1


def test_where_nobody_rotates_by_themselves_an_unbound_key_stays(scene: Any, papers: Papers) -> None:
    papers.play(credentials, bound=False)

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        for _ in range(3):
            await scene.until(lambda line: line["event"] == "round")
        stop.set()
        await working
        assert policy(scene) == b""
        await agent.rotate()

    papers.play(running, rotation=None)
    assert policy(scene) == POLICY


@pytest.mark.parametrize("code", [NodeKeyUnbound, NodeKeyPolicy])
def test_kept_keys_that_the_verifier_would_not_have_give_way(
    scene: Any, papers: Papers, code: type[AttestError]
) -> None:
    async def unbound(agent: Agent) -> None:
        await credentials(agent)
        scene.standin.faults["rotations"] = [Unavailable("restarting")]
        with pytest.raises(RemoteRefused):
            await agent.rotate()

    papers.play(unbound, bound=False)
    kept = load_next_keys(scene.state)

    async def bound(agent: Agent) -> None:
        scene.standin.faults["rotations"] = [Unavailable("restarting"), code("not so")]
        for expected in ("unavailable", code.code):
            assert load_next_keys(scene.state) == kept  # whatever else is said of them
            with pytest.raises(RemoteRefused) as raised:
                await agent.rotate()
            assert raised.value.code == expected
        assert not rotation_pending(scene.state)
        await agent.rotate()
        await credentials(agent)

    papers.play(bound)
    assert policy(scene) == POLICY
    assert load_state(scene.state).node_key.public != kept.node_key.public


def test_no_keys_are_kept_that_could_not_be_made(scene: Any, papers: Papers) -> None:
    papers.play(credentials)
    papers.boot(Tamper.KERNEL)

    async def rotating(agent: Agent) -> None:
        with pytest.raises(AttestError) as raised:
            await agent.rotate()
        assert raised.value.code == "approval-pcrs"

    papers.play(rotating)
    assert not rotation_pending(scene.state)
    assert scene.standin.asked.count("rotations") == 0


# --- in a node image ----------------------------------------------------------------------------------------------


async def said_by_boot(scene: Any, papers: Papers, *last: str) -> list[Any]:
    """Start what an image with an owner starts; return what it says up to one of these events."""
    site = papers.folder / "site.json"
    (papers.folder / "ca.pem").write_text(scene.standin.server_ca.pem)
    site.write_text(json.dumps({"url": scene.standin.url, "ca": str(papers.folder / "ca.pem")}))
    os.utime(site, (1_735_689_600.0, 1_735_689_600.0))
    ticket = {"asset": NODE, "ca_sha256": scene.standin.server_ca.sha256, "url": scene.standin.url, "secret": "s"}
    text = base64.urlsafe_b64encode(json.dumps(ticket).encode()).decode().rstrip("=")
    (papers.folder / "ticket").write_text(text)
    words = ["--site", site, "--state", scene.state, "--boot-log", scene.log, "--ticket", papers.folder / "ticket"]
    words += ["--tcti", scene.device.tcti, "--owner", papers.folder / "owner.pem", "--approval", papers.approval]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "umec_attest.agent.boot", *map(str, words)), stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    found: list[Any] = []
    async with asyncio.timeout(60):
        async for line in program.stdout:
            found.append(json.loads(line.decode().removeprefix("umec-node: ")))
            if found[-1]["event"] in last:
                break
    program.send_signal(signal.SIGTERM)
    await program.stdout.read()
    await program.wait()
    return found


def test_an_image_with_an_owner_binds_its_key_and_makes_none_without_an_approval(scene: Any, papers: Papers) -> None:
    issuer = x509.load_der_x509_certificate(scene.device.authority.chain[0])
    scene.standin.trust_tpms_of(issuer)  # an agent in an image has no certificates beside those in the TPM
    signed = papers.approval.read_bytes()

    async def playing() -> None:
        async with scene.standin.running():
            papers.approval.unlink()
            lines = await said_by_boot(scene, papers, "refused", "enrolled")
            assert lines[-1]["code"] == "approval-missing"
            assert "enrolments" not in scene.standin.asked
            papers.approval.write_bytes(signed)
            lines = await said_by_boot(scene, papers, "refused", "certificate")
            assert [line["event"] for line in lines if line["event"] in {"enrolled", "certificate"}] == [
                "enrolled",
                "certificate",
            ]

    asyncio.run(playing())
    assert policy(scene) == POLICY
