"""`umec node`: what stands on its own, without a platform."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from umec_attest.agent.tpm import Tpm
from umec_attest.ima import parse_ima
from umec_attest.testing.swtpm import SoftwareTpm
from umec_platform.cli.node import app


def run(*arguments: str) -> dict[str, object]:
    ended = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    said = json.loads(ended.stdout)
    assert isinstance(said, dict)
    return said


def refused(*arguments: str) -> str:
    ended = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert ended.exit_code == 1, ended.output
    return ended.stderr


def test_boots_only_what_it_can(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    image, log = tmp_path / "image", tmp_path / "log.bin"
    boot = ("simulate-boot", "--image", str(image), "--log", str(log), "--tcti")
    assert "node-image-invalid" in refused(*boot, software_tpm.tcti)
    run("sample-image", str(image))
    assert "invalid-input" in refused(*boot, software_tpm.tcti, "--tamper", "moon")
    assert "harness-failed" in refused(*boot, "device:/dev/tpmrm0", "--power-cycle")
    assert run(*boot, software_tpm.tcti)["bytes"] == log.stat().st_size
    assert "harness-failed" in refused(*boot, software_tpm.tcti)
    assert run(*boot, software_tpm.tcti, "--power-cycle", "--tamper", "cmdline")["tampered"] == "cmdline"


def test_a_boot_after_which_programs_run(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    image, log, ran = tmp_path / "image", tmp_path / "log.bin", tmp_path / "list.bin"
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    (root / "usr" / "tool").write_bytes(b"a tool")
    run("sample-image", str(image))
    boot = ("simulate-boot", "--image", str(image), "--log", str(log), "--tcti", software_tpm.tcti, "--power-cycle")
    assert "invalid-input" in refused(*boot, "--root", str(root))
    assert "invalid-input" in refused(*boot, "--runtime-list", str(ran))
    assert not log.exists()
    run(*boot, "--root", str(root), "--runtime-list", str(ran))
    assert [entry.name for entry in parse_ima(ran.read_bytes())] == [b"boot_aggregate", b"/usr/tool"]


def test_the_hash_of_the_endorsement_key(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    assert "tpm-unavailable" in refused("ek", "--tcti", f"swtpm:path={tmp_path}/none")
    said = run("ek", "--tcti", software_tpm.tcti)
    with Tpm(software_tpm.tcti) as tpm:
        assert said == {"ek_sha256": tpm.endorsement_key().sha256, "certificate": True}


@pytest.mark.parametrize("command", [("attest",), ("run",), ("run", "--once"), ("call", "GET", "https://a/")])
def test_without_enrolment_there_is_nothing_to_run(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "agent-state-invalid" in refused(*command, "--state", str(tmp_path))


def test_enrolment_needs_to_know_with_whom(software_tpm: SoftwareTpm, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    enroll = ("enroll", "--state", str(tmp_path / "state"), "--ca", str(ca), "--tcti", software_tpm.tcti)
    assert "file-unreadable" in refused(*enroll)
    ca.write_text(software_tpm.authority.root_pem)
    assert "ticket-invalid" in refused(*enroll)
    assert "ticket-invalid" in refused(*enroll, "--ticket", "x" * 10_000)
    assert not (tmp_path / "state" / "node.json").exists()


def test_a_software_tpm_runs_until_told_to_stop(tmp_path: Path) -> None:
    code = "from umec_platform.cli.node import app; app()"
    arguments = [sys.executable, "-c", code, "software-tpm", str(tmp_path), "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert run("ek", "--tcti", said["tcti"])["certificate"] is True
        assert Path(said["ek_root"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not Path(said["tcti"].removeprefix("swtpm:path=")).parent.exists()
