"""A node with a TPM, the real verifier, the real authorization server, real HTTPS; everything done by the CLI."""

import asyncio
import contextlib
import hashlib
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import APIRouter, Depends
from typer.testing import CliRunner

from umec_attest.predict import predict
from umec_attest.reference import sign_reference_set
from umec_attest.sealed import sign_approval
from umec_attest.service import AttestService, AttestSettings
from umec_attest.testing.image import make_image
from umec_attest.testing.swtpm import SoftwareTpm
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.client import Credential, OAuthClient, http_client, save_credential
from umec_core.clock import system_clock
from umec_core.http import create_app, require
from umec_core.jose import KeySet
from umec_core.keys import load_or_create_key, private_pem, write_private
from umec_core.principal import Principal
from umec_core.server import Listener, serve
from umec_core.standing import StandingFollower, StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_identity.service import IdentityService, operator_seed, service_seed
from umec_identity.settings import IdentitySettings
from umec_platform.cli.evidence import app as evidence_app
from umec_platform.cli.node import app
from umec_platform.cli.nodeimage import app as nodeimage
from umec_platform.cli.secret import app as secrets

IMAGE = "kerb-node"
NODE = "kerb-7"
SIGNER = generate_private_key(SECP256R1())


@dataclass
class Site:
    """The services of one site in a thread, and a node beside it."""

    folder: Path
    tpm: SoftwareTpm
    server_ca: Any
    port: int = 0
    _stop: Any = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _failed: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def operator(self) -> Path:
        return self.folder / "operator.json"

    def serve(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the test's own thread reports it
            self._failed.append(error)
        finally:
            self._ready.set()

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.serve)
        thread.start()
        self._ready.wait(30)
        if self._failed:
            raise self._failed[0]
        return thread

    def stop(self) -> None:
        loop, event = self._stop
        if loop.is_closed():
            return
        loop.call_soon_threadsafe(event.set)

    async def _serve(self) -> None:
        bound = socket.create_server(("127.0.0.1", self.port))
        self.port = bound.getsockname()[1]
        verifier = load_or_create_key(self.folder / "attest" / "verifier.key")
        verifier_keys = StaticKeys(KeySet([verifier.public_key()]))
        view = StandingView(max_age=timedelta(seconds=10))
        platform = self._client("umec-platform")
        operator = self._client("operator")
        save_credential(self.operator, operator)
        identity = await IdentityService.open(
            IdentitySettings(
                issuer=self.url,
                mp1="https://127.0.0.1:8444",
                registry="https://127.0.0.1:5443",
                state=self.folder / "identity",
            ),
            verifier_keys=verifier_keys,
            standings=view,
            seeds=[
                service_seed("umec-platform", platform.key().public_key()),
                operator_seed(operator.key().public_key()),
            ],
        )

        def tokens(api: str) -> TokenVerifier:
            audience = f"{self.url}/{api}/v1"
            keys = identity.ring
            return TokenVerifier(issuer=self.url, audience=audience, keys=keys, standings=view, clock=system_clock)

        attest = await AttestService.open(self._attest_settings(), tokens=tokens("attest"), clock=system_clock)
        api = create_app("management", [*identity.routers, *attest.routers, _whoami(tokens("platform"))])
        stop = asyncio.Event()
        self._stop = (asyncio.get_running_loop(), stop)
        async with http_client(self.server_ca.pem) as http:
            follower = StandingFollower(
                OAuthClient(platform, http),
                view=view,
                keys=verifier_keys,
                issuer=f"{self.url}/attest/v1",
                clock=system_clock,
            )
            work = [asyncio.create_task(one()) for one in (follower.run, identity.run, attest.run)]
            certificate, key = self._certificate()
            listener = Listener(api, certificate=certificate, key=key, client_ca=identity.ca_path)
            self._ready.set()
            ended = asyncio.Event()
            serving = asyncio.create_task(serve([listener], ended, sockets=[bound]))
            await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
            for task in work:  # the long poll first: a server waits for it
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            ended.set()
            await serving
        await attest.close()
        await identity.close()

    def _client(self, name: str) -> Credential:
        key = load_or_create_key(self.folder / f"{name}.key")
        return Credential.of(issuer=self.url, client_id=name, key=key, ca=self.server_ca.pem)

    def _certificate(self) -> tuple[Path, Path]:
        key = generate_private_key(SECP256R1())
        paths = self.folder / "tls.pem", self.folder / "tls.key"
        leaf = self.server_ca.issue_server(key.public_key())
        for path, data in zip(paths, (leaf.public_bytes(Encoding.PEM), private_pem(key)), strict=True):
            path.write_bytes(data)
        return paths

    def _attest_settings(self) -> AttestSettings:
        roots = self.folder / "roots"
        roots.mkdir(exist_ok=True)
        (roots / "vendor.pem").write_text(self.tpm.authority.root_pem)
        signer = self.folder / "signer.pem"
        signer.write_bytes(SIGNER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return AttestSettings(
            management_url=self.url,
            state=self.folder / "attest",
            database=f"sqlite+aiosqlite:///{self.folder}/attest.db",
            ca_sha256=self.server_ca.sha256,
            ek_roots=roots,
            software_tpms=True,
            reference_signers=(signer,),
            round_seconds=1.0,
            silent_rounds=10,
        )


def _whoami(verifier: TokenVerifier) -> APIRouter:
    """An API of the platform, for callers that are nodes."""
    router = APIRouter()
    may = require(verifier, "node:host")

    @router.get("/platform/v1/whoami")
    async def whoami(principal: Principal = Depends(may)) -> dict[str, Any]:  # noqa: B008
        return {"node": principal.node, "generation": principal.generation, "binding": principal.binding}

    return router


@dataclass
class Workplace:
    """The commands of operator and node, with their usual options."""

    site: Site
    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log(self) -> Path:
        return self.folder / "bootlog.bin"

    @property
    def image(self) -> Path:
        return self.folder / "image"

    def umec(self, *arguments: str, ok: bool = True) -> list[dict[str, Any]]:
        """Run `umec node …`, return its lines; `ok` says how it must end."""
        ended = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert (ended.exit_code == 0) is ok, ended.output
        # The services log to the same standard output, from their thread.
        return [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]

    def refused(self, *arguments: str) -> str:
        """Run what must be refused; return what it said."""
        ended = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert ended.exit_code == 1, ended.output
        return ended.output

    def operator(self, *arguments: str) -> dict[str, Any]:
        return self.umec(*arguments, "--credential", str(self.site.operator))[0]

    def secret(self, *arguments: str) -> dict[str, Any]:
        return secret_command(*arguments, "--credential", str(self.site.operator))

    def on_node(self, command: str, *arguments: str, ok: bool = True) -> list[dict[str, Any]]:
        given = ["--state", str(self.state), "--boot-log", str(self.log), *arguments]
        return self.umec(command, *given, ok=ok)

    def boot(self, *arguments: str) -> None:
        tcti = self.site.tpm.tcti
        where = ["--tcti", tcti, "--image", str(self.image), "--log", str(self.log), "--power-cycle"]
        self.umec("simulate-boot", *where, *arguments)

    def ticket(self, node: str = NODE, node_class: str = "standard") -> str:
        ek_sha256 = self.umec("ek", "--tcti", self.site.tpm.tcti)[0]["ek_sha256"]
        made = self.operator(
            "ticket", node, "--tenant", "city", "--image", IMAGE, "--ek-sha256", ek_sha256, "--class", node_class
        )
        return str(made["ticket"])

    def enrolment(self, ticket: str) -> list[str]:
        ca, chain = self.folder / "ca.pem", self.folder / "chain.pem"
        ca.write_text(self.site.server_ca.pem)
        chain.write_text(self.site.tpm.authority.chain_pem)
        where = ["--tcti", self.site.tpm.tcti, "--state", str(self.state), "--ca", str(ca), "--ek-chain", str(chain)]
        return ["enroll", *where, "--ticket", ticket]

    def install_reference(self, version: int = 1, owner: Any = None) -> None:
        now = datetime.now(UTC)  # noqa: TID251
        values = predict(self.image)
        envelope = sign_reference_set(
            name=IMAGE,
            subject_sha256=values.subject_sha256,
            version=version,
            issued=now - timedelta(minutes=1),
            expires=now + timedelta(hours=1),
            pcrs={HashAlgorithm.SHA256: {index: [value] for index, value in values.pcrs.items()}},
            ignored={},
            owner=owner,
            key=SIGNER,
        )

        async def send() -> None:
            credential = self.site._client("operator")
            async with http_client(credential.ca) as http:
                base = f"{self.site.url}/attest/v1"
                await OAuthClient(credential, http).request(
                    "POST", f"{base}/reference-sets", resource=base, scopes=["attest:admin"], content=envelope
                )

        asyncio.run(send())

    @contextlib.contextmanager
    def agent(self, *more: str) -> Iterator["Running"]:
        code = "from umec_platform.cli.node import app; app()"
        given = ["run", "--state", str(self.state), "--boot-log", str(self.log), "--json", *more]
        process = subprocess.Popen([sys.executable, "-c", code, *given], stdout=subprocess.PIPE, text=True)
        running = Running(process)
        try:
            yield running
        finally:
            process.kill()
            process.wait()
            running.reader.join()
            assert process.stdout is not None
            process.stdout.close()

    def call(self, *, ok: bool = True) -> dict[str, Any]:
        url = f"{self.site.url}/platform/v1/whoami"
        [said] = self.umec("call", "GET", url, "--state", str(self.state), "--boot-log", str(self.log), ok=ok)
        return {"status": said["status"], **json.loads(said["body"])}


class Running:
    """A running agent and the lines that it says."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def until(self, **members: Any) -> Mapping[str, Any]:
        """Return the next line that has these members."""
        deadline = time.monotonic() + 60
        while True:
            line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            if members.items() <= line.items():
                return line


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server_ca: Any) -> Iterator[Site]:
    with SoftwareTpm() as tpm:
        made = Site(tmp_path_factory.mktemp("site"), tpm, server_ca)
        thread = made.start()
        yield made
        made.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert made._failed == []


@pytest.fixture(scope="module")
def place(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A node that was booted and enrolled with a ticket; its reference set is installed."""
    made = Workplace(site, tmp_path_factory.mktemp("node"))
    make_image(made.image)
    made.boot()
    made.install_reference()
    [said] = made.umec(*made.enrolment(made.ticket()))
    assert said["node"] == NODE
    assert said["approved"] is True
    return made


@pytest.mark.slow
def test_a_ticket_is_good_for_one_tpm_and_one_enrolment(place: Workplace, tmp_path: Path) -> None:
    ticket = place.ticket("kerb-8")
    with SoftwareTpm(authority=place.site.tpm.authority) as other:
        bought = Workplace(Site(place.site.folder, other, place.site.server_ca, place.site.port), tmp_path)
        assert "ticket-ek-mismatch" in bought.refused(*bought.enrolment(ticket))
    assert "ticket-invalid" in place.refused(*place.enrolment("bm90aGluZw"))


@pytest.mark.slow
def test_one_round_gives_certificate_and_token(place: Workplace) -> None:
    place.boot()
    lines = place.on_node("run", "--once")
    assert [line["event"] for line in lines] == ["round", "certificate"]
    assert (lines[0]["verdict"], lines[0]["standing"], lines[0]["findings"]) == ("affirming", "trusted", [])
    said = place.call()
    assert (said["status"], said["node"], said["binding"]) == (200, NODE, "mtls")
    assert place.operator("show", NODE)["standing"] == "trusted"
    [token] = place.on_node("token", "--resource", f"{place.site.url}/platform/v1")
    assert token["token"].count(".") == 2


@pytest.mark.slow
def test_a_node_gets_other_keys_and_stays_what_it_is(place: Workplace) -> None:
    place.boot()
    assert place.on_node("run", "--once")[0]["standing"] == "trusted"
    before, keys = place.operator("show", NODE), json.loads((place.state / "node.json").read_text())
    [said] = place.on_node("rotate")
    assert said == {"standing": "trusted", "generation": before["generation"] + 1}
    after = json.loads((place.state / "node.json").read_text())
    assert after["ak"] != keys["ak"]
    assert after["node_key"] != keys["node_key"]
    assert place.call()["status"] == 200
    [log] = place.umec("trust-log", "--state", str(place.state))
    assert log["origin"] == "umec/attest"
    assert log["entries"] > 0
    assert place.umec("trust-log", "--state", str(place.state), "--reset") == [{"reset": True}]
    assert place.umec("trust-log", "--state", str(place.state)) == [{"seen": False}]
    assert place.on_node("run", "--once")[0]["standing"] == "trusted"
    [again] = place.umec("trust-log", "--state", str(place.state))
    assert again["entries"] >= log["entries"]


@pytest.mark.slow
def test_a_changed_stage_is_found_and_a_good_boot_heals(place: Workplace, tmp_path: Path) -> None:
    place.boot("--tamper", "kernel")
    line, refusal = place.on_node("attest", "--save", str(tmp_path / "evidence"), ok=False)
    assert refusal["code"] == "node-not-trusted"
    assert (line["verdict"], line["standing"]) == ("contraindicated", "untrusted")
    assert line["findings"]
    assert (tmp_path / "evidence" / "quote.bin").stat().st_size > 100
    assert "node-not-attested" in place.refused(
        "call", "GET", f"{place.site.url}/platform/v1/whoami", "--state", str(place.state), "--boot-log", str(place.log)
    )
    assert place.operator("explain", NODE)["last_round"]["verdict"] == "contraindicated"
    place.boot()
    assert place.on_node("run", "--once")[0]["standing"] == "trusted"
    assert place.call()["status"] == 200


@pytest.mark.slow
def test_the_agent_runs_until_told_to_stop(place: Workplace) -> None:
    place.boot()
    with place.agent() as agent:
        agent.until(event="round", standing="trusted")
        agent.until(event="certificate")
        before = place.call()
        assert (before["status"], before["binding"]) == (200, "mtls")
        place.operator("quarantine", NODE, "--reason", "a test")
        agent.until(event="round", standing="quarantined")
        assert "node-not-attested" in place.refused(
            "call", "GET", f"{place.site.url}/platform/v1/whoami", "--state", str(place.state)
        )
        place.operator("readmit", NODE)
        agent.until(event="round", standing="trusted")
        agent.until(event="certificate")
        after = place.call()
        assert after["generation"] > before["generation"]
        assert sorted(path.name for path in place.state.iterdir() if path.name != "former-keys.json") == [
            "agent.lock",
            "agent.sock",
            "log.json",
            "node.json",
        ]
        assert memory_mb(agent.process.pid) <= 60
        agent.process.send_signal(signal.SIGTERM)
        assert agent.process.wait(10) == 0
    assert not (place.state / "agent.sock").exists()


def memory_mb(pid: int) -> float:
    """What a process has in RAM, shared libraries and all."""
    said = Path(f"/proc/{pid}/status").read_text()
    return int(said.split("\nVmRSS:")[1].split()[0]) / 1024


@pytest.mark.slow
def test_saved_evidence_is_what_was_judged(place: Workplace, tmp_path: Path) -> None:
    place.boot()
    place.on_node("attest", "--save", str(tmp_path))
    log = hashlib.sha256((tmp_path / "bootlog.bin").read_bytes()).hexdigest()
    assert log == hashlib.sha256(place.log.read_bytes()).hexdigest()
    assert set(json.loads((tmp_path / "pcrs.json").read_text())["sha256"]) == {
        str(index) for index in (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 14)
    }


@pytest.mark.slow
def test_evidence_is_collected_for_a_judge_with_a_nonce_of_his_own(place: Workplace, tmp_path: Path) -> None:
    place.boot()
    folder, nonce = tmp_path / "evidence", "5a" * 32
    words = ["collect", str(folder), "--state", str(place.state), "--boot-log", str(place.log), "--json"]
    for wrong in (
        ["--nonce", "5a" * 15],
        ["--nonce", "5a" * 65],
        ["--nonce", "no hex"],
        ["--nonce", nonce, "--pcrs", "24"],
    ):
        ended = CliRunner().invoke(evidence_app, [*words, *wrong])
        assert (ended.exit_code, json.loads(ended.stdout)["code"]) == (1, "invalid-input")
    ended = CliRunner().invoke(evidence_app, [*words, "--nonce", nonce, "--pcrs", "7,4,4,11"], catch_exceptions=False)
    assert json.loads(ended.stdout)["pcrs"] == [4, 7, 11]
    assert (folder / "nonce.bin").read_bytes() == bytes.fromhex(nonce)
    judged = CliRunner().invoke(evidence_app, ["verify", str(folder), "--structural", "--json"])
    assert json.loads(judged.stdout)["verdict"] == "consistent, AK not anchored, no policy"


@pytest.mark.slow
def test_a_secret_reaches_the_node_that_stands_well_and_no_other(place: Workplace, tmp_path: Path) -> None:
    place.boot()
    key, out = tmp_path / "disk.key", tmp_path / "opened"
    key.write_bytes(bytes(range(64)))
    wanted = ["unseal", "disk", "--state", str(place.state), "--boot-log", str(place.log), "--out", str(out)]
    assert "secret-unknown" in place.refused(*wanted)
    stored = place.secret("set", NODE, "disk", "--from", str(key))
    assert (stored["version"], stored["degraded"]) == (1, False)
    place.boot()  # the verifier lacks the log of this boot, and asks for it
    assert place.umec(*wanted) == [{"name": "disk", "bytes": 64, "file": str(out)}]
    assert out.read_bytes() == key.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    assert place.secret("list", NODE)["secrets"][0]["releases"] == 1
    place.operator("quarantine", NODE)
    assert "secret-standing" in place.refused(*wanted)
    place.operator("readmit", NODE)
    plain = CliRunner().invoke(app, [*wanted[:-1], "-"], catch_exceptions=False)
    assert plain.exit_code == 0
    assert key.read_bytes() in plain.stdout_bytes
    assert place.secret("remove", NODE, "disk")["version"] == 1
    assert "secret-unknown" in place.refused(*wanted)


@pytest.mark.slow
def test_a_node_opens_what_it_sealed_by_an_approval(place: Workplace, tmp_path: Path) -> None:
    place.boot()
    owner, key, out = generate_private_key(SECP256R1()), tmp_path / "disk.key", tmp_path / "opened"
    key.write_bytes(bytes(range(32)))
    (tmp_path / "owner.pem").write_bytes(
        owner.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    write_private(tmp_path / "owner.key", private_pem(owner))
    predicted = {str(pcr): value.hex() for pcr, value in predict(place.image).pcrs.items()}
    (tmp_path / "predicted.json").write_text(json.dumps({"pcrs": {"sha256": predicted}}))
    approve = ["approve", "--image", IMAGE, "--predicted", str(tmp_path / "predicted.json")]
    approve += ["--key", str(tmp_path / "owner.key"), "--out", str(tmp_path / "approval")]
    assert secret_command(*approve, "--version", "1")["pcrs"] == [4, 7, 11]
    state = ["--state", str(place.state)]
    sealing = ["seal", "disk", *state, "--from", str(key), "--owner", str(tmp_path / "owner.pem"), "--image", IMAGE]
    place.umec(*sealing)
    wanted = ["unseal", "disk", *state, "--approval", str(tmp_path / "approval"), "--out", str(out)]
    place.umec(*wanted, "--shut-out-older")
    assert out.read_bytes() == key.read_bytes()
    assert "invalid-input" in place.refused(*wanted[:4], "--out", str(out), "--shut-out-older")
    assert "invalid-input" in place.refused(*wanted[:-1], "-")
    place.boot("--tamper", "cmdline")
    assert "approval-pcrs" in place.refused(*wanted)
    secret_command(*approve, "--version", "2", "--pcr", "7")
    place.umec(*wanted, "--shut-out-older")
    secret_command(*approve, "--version", "1", "--pcr", "7")
    assert "approval-outdated" in place.refused(*wanted)


@pytest.mark.slow
def test_an_open_box_announces_its_reboots(place: Workplace) -> None:
    place.boot()
    place.umec(*place.enrolment(place.ticket(NODE, "open-box")), "--replace")
    assert place.on_node("attest")[0]["standing"] == "trusted"
    place.boot()
    assert place.on_node("run", "--once")[0]["standing"] == "degraded"
    shown = place.operator("show", NODE)
    assert shown["reset_unannounced"] is True
    assert "clear-reset" in shown["next"][0]
    assert [
        node["node"] for node in place.operator("list", "--class", "open-box", "--standing", "degraded")["nodes"]
    ] == [NODE]
    place.operator("clear-reset", NODE, "--reason", "a test")
    [said] = place.on_node("announce-own-reboot", "--within", "300")
    assert said["reboot_announced_until"] is not None
    place.boot()
    assert place.on_node("attest")[0]["standing"] == "trusted"
    place.operator("announce-reboot", NODE, "--resets", "2")
    place.boot()
    place.boot()
    assert place.on_node("attest")[0]["standing"] == "trusted"
    assert place.operator("quarantine", NODE, "--dry-run")["standing"] == "quarantined"
    assert place.operator("show", NODE)["standing"] == "trusted"
    place.umec(*place.enrolment(place.ticket()), "--replace")
    place.boot()
    place.on_node("attest")
    given = ["--state", str(place.state), "--boot-log", str(place.log)]
    assert "node-class-other" in place.refused("announce-own-reboot", *given)


@pytest.mark.slow
def test_an_operator_sees_which_versions_count_and_who_is_behind(place: Workplace, tmp_path: Path) -> None:
    place.boot()
    place.umec(*place.enrolment(place.ticket()), "--replace")
    assert place.on_node("attest")[0]["standing"] == "trusted"
    key, newer, operator = tmp_path / "signer.key", tmp_path / "newer.dsse", str(place.site.operator)
    write_private(key, private_pem(SIGNER))
    image = str(make_image(tmp_path / "next", kernel=b"another kernel"))
    signed = ["--name", IMAGE, "--version", "2", "--grace", "1h", "--key", str(key), "--out", str(newer)]
    image_command("predict", image, *signed)
    assert [each["counts"] for each in image_command("versions", "--credential", operator)["versions"]] == ["newest"]
    publish = ["publish", str(newer), "--credential", operator, "--grace"]
    [beside] = image_command(*publish, "30m")["beside"]
    assert beside["version"] == 1
    assert place.on_node("attest")[0]["standing"] == "trusted"
    shown = place.operator("explain", NODE)
    assert shown["last_round"]["reference"] | beside == shown["last_round"]["reference"]
    listed = image_command("versions", IMAGE, "--credential", operator)["versions"]
    assert [(each["version"], each["counts"]) for each in listed] == [(1, "beside"), (2, "newest")]
    assert image_command("versions", "another", "--credential", operator)["versions"] == []
    assert [node["version"] for node in place.operator("list", "--behind")["nodes"]] == [1]
    barred = ["allow-version", NODE, "--version", "1", "--credential", operator]
    assert "version-not-barred" in place.refused(*barred)
    image_command(*publish, "0")
    place.on_node("attest", ok=False)
    assert "version-outdated" in place.operator("show", NODE)["reason"]
    assert image_command("versions", IMAGE, "--credential", operator)["versions"][0]["counts"] == "no"
    human = CliRunner().invoke(nodeimage, ["versions", IMAGE, "--credential", operator], catch_exceptions=False).stdout
    lines = [line.split()[1:4] for line in human.splitlines() if line.startswith(IMAGE)]
    assert lines == [["1", "counted", "until"], ["2", "counts", "until"]]


def image_command(*arguments: str) -> dict[str, Any]:
    ended = CliRunner().invoke(nodeimage, [*arguments, "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(line))


def secret_command(*arguments: str) -> dict[str, Any]:
    ended = CliRunner().invoke(secrets, [*arguments, "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    [line] = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(line))


@pytest.mark.slow
def test_a_node_whose_image_has_an_owner_signs_by_approvals_alone(place: Workplace, tmp_path: Path) -> None:
    """Also the last one here: from now on the image of this node has an owner."""
    place.install_reference(3)  # whatever version came before
    place.boot()
    owner, paper = generate_private_key(SECP256R1()), tmp_path / "approval"
    pem = owner.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "owner.pem").write_bytes(pem)
    measured = {pcr: predict(place.image).pcrs[pcr] for pcr in (4, 7, 11)}
    paper.write_bytes(sign_approval(image=IMAGE, version=9, pcrs=measured, key=owner))
    bound = ["--owner", str(tmp_path / "owner.pem"), "--approval", str(paper)]
    whoami = [f"{place.site.url}/platform/v1/whoami", "--state", str(place.state), "--boot-log", str(place.log)]

    assert place.on_node("run", "--once")[0]["standing"] == "trusted"
    assert not place.operator("show", NODE)["node_key_bound"]
    place.install_reference(4, owner.public_key())
    assert "node-key-unbound" in place.refused("rotate", *whoami[1:])
    assert place.on_node("rotate", *bound)[0]["standing"] == "trusted"
    assert place.operator("show", NODE)["node_key_bound"]

    place.boot()
    assert [line["event"] for line in place.on_node("run", "--once", *bound)] == ["round", "certificate"]
    [said] = place.umec("call", "GET", *whoami, *bound)
    assert json.loads(said["body"])["node"] == NODE
    assert "approval-missing" in place.refused("call", "GET", *whoami)
    assert "approval-invalid" in place.refused("call", "GET", *whoami, *bound[:2])
    assert place.on_node("token", "--resource", f"{place.site.url}/platform/v1", *bound)[0]["token"]

    assert "node-key-unbound" in place.refused(*place.enrolment(place.ticket()), "--replace")
    place.umec(*place.enrolment(place.ticket()), "--replace", *bound)
    assert place.on_node("run", "--once", *bound)[0]["standing"] == "trusted"
    with place.agent(*bound) as agent:
        agent.until(event="certificate")
        assert memory_mb(agent.process.pid) <= 60
        assert place.call()["node"] == NODE  # over the running agent, which has the papers
