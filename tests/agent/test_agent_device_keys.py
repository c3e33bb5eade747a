"""The maker's keys in a TPM at enrolment, by the command line and over HTTPS: shown, proven, and kept ever after."""

import asyncio
import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from umec_attest.agent.device_keys import DeviceKey
from umec_attest.service import AttestService, AttestSettings
from umec_attest.testing.maker import DeviceMaker
from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.clock import system_clock
from umec_core.http import create_app
from umec_core.jose import KeySet
from umec_core.keys import private_pem
from umec_core.server import Listener, serve
from umec_core.standing import StandingView
from umec_core.tokens import StaticKeys, TokenVerifier
from umec_platform.cli.node import app


def pem(folder: Path, name: str, key: DeviceKey) -> str:
    """Write the certificates of a key, and return what the command line says about it."""
    file = folder / f"{name}.pem"
    certificates = (x509.load_der_x509_certificate(der) for der in (key.certificate, *key.chain))
    file.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))
    return f"{key.handle:#x}={file}"


def test_a_device_shows_the_keys_of_its_maker(software_tpm: SoftwareTpm, server_ca: Any, tmp_path: Path) -> None:
    maker = DeviceMaker()
    keys = maker.provision(software_tpm, "box-17")
    assert keys.idevid is not None
    (tmp_path / "makers").mkdir()
    (tmp_path / "makers" / "maker.pem").write_bytes(maker.root_pem)
    (tmp_path / "vendors").mkdir()
    (tmp_path / "vendors" / "vendor.pem").write_text(software_tpm.authority.root_pem)
    tls = generate_private_key(SECP256R1())
    certificate, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    certificate.write_bytes(server_ca.issue_server(tls.public_key()).public_bytes(Encoding.PEM))
    key.write_bytes(private_pem(tls))

    async def body() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{bound.getsockname()[1]}"
        settings = AttestSettings(
            management_url=url,
            state=tmp_path / "attest",
            database=f"sqlite+aiosqlite:///{tmp_path}/attest.db",
            ca_sha256=server_ca.sha256,
            ek_roots=tmp_path / "vendors",
            software_tpms=True,
            device_roots=tmp_path / "makers",
        )
        nobody = StaticKeys(KeySet([tls.public_key()]))
        view = StandingView(max_age=timedelta(seconds=10))
        tokens = TokenVerifier(issuer=url, audience=settings.issuer, keys=nobody, standings=view, clock=system_clock)
        service = await AttestService.open(settings, tokens=tokens, clock=system_clock)
        ended = asyncio.Event()
        listener = Listener(create_app("attest", service.routers), certificate=certificate, key=key)
        serving = asyncio.create_task(serve([listener], ended, sockets=[bound]))
        try:
            await asyncio.to_thread(enrol, url)
        finally:
            ended.set()
            await serving
            await service.close()

    def enrol(url: str) -> None:
        (tmp_path / "ca.pem").write_text(server_ca.pem)
        (tmp_path / "chain.pem").write_text(software_tpm.authority.chain_pem)
        where = ["enroll", "--url", url, "--node", "kerb-7", "--tcti", software_tpm.tcti, "--json"]
        where += ["--ca", str(tmp_path / "ca.pem"), "--ek-chain", str(tmp_path / "chain.pem")]
        where += ["--state", str(tmp_path / "state"), "--replace"]
        shown = ["--iak", pem(tmp_path, "iak", keys.iak)]
        both = [*shown, "--idevid", pem(tmp_path, "idevid", keys.idevid or keys.iak)]
        swapped = ["--iak", both[3], "--idevid", both[1]]
        for wrong, code in ((both[2:], "invalid"), (swapped, "iak-attributes")):
            refused = CliRunner().invoke(app, [*where, *wrong])
            assert (refused.exit_code, code in refused.output) == (1, True), refused.output
        done = CliRunner().invoke(app, [*where, *both])
        assert done.exit_code == 0, done.output
        assert json.loads(next(line for line in done.stdout.splitlines() if '"standing"' in line))["node"] == "kerb-7"
        bare = CliRunner().invoke(app, where)
        assert "node-other-device" in bare.output

    asyncio.run(body())


@pytest.mark.parametrize("text", ["0x81020001", "=iak.pem", "0x01c00002=iak.pem", "81020001=iak.pem", "0x8102000g=a"])
def test_a_key_is_a_persistent_handle_and_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "ca.pem").write_text("")
    where = ["enroll", "--state", str(tmp_path / "state"), "--ca", str(tmp_path / "ca.pem"), "--json"]
    refused = CliRunner().invoke(app, [*where, "--url", "https://a", "--node", "n", "--iak", text])
    assert refused.exit_code == 1
    assert "is not HANDLE=FILE" in refused.output
