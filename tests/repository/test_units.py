"""The systemd units: systemd understands them, they start commands that exist, and expose no more than was said."""

import re
import shlex
import shutil
import subprocess

import pytest
import typer

from umec_platform.cli.main import build

EXPOSED = {"umec-agent.service": 1.6, "umec.service": 8.2}
"""At most, by `systemd-analyze security`: 0 is a service that can do nothing, 10 one without any sandbox."""


def analyze(*words):
    return subprocess.run(["systemd-analyze", *words], capture_output=True, check=False, text=True)


@pytest.fixture
def installed(root, tmp_path):
    """The units as they would be installed, with the command that is on this machine."""

    def install(name, *, change=("", "")):
        text = (root / "deploy" / name).read_text(encoding="utf-8").replace(*change)
        (tmp_path / name).write_text(text.replace("/opt/umec/.venv/bin/umec", shutil.which("true")))
        return str(tmp_path / name)

    return install


@pytest.mark.parametrize("name", EXPOSED)
def test_systemd_understands_a_unit(installed, name):
    assert (
        "NoSuchSetting" in analyze("verify", installed(name, change=("[Service]", "[Service]\nNoSuchSetting=1"))).stderr
    )
    said = analyze("verify", installed(name))
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize("name", EXPOSED)
def test_a_unit_exposes_no_more_than_was_said(installed, name):
    said = analyze("security", "--offline=true", "--no-pager", installed(name)).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None
    assert float(found[1]) <= EXPOSED[name]


@pytest.mark.parametrize("name", EXPOSED)
def test_a_unit_starts_a_command_that_exists(root, name):
    text = (root / "deploy" / name).read_text(encoding="utf-8")
    program, *words = shlex.split(re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1])
    assert program == "/opt/umec/.venv/bin/umec"
    command = typer.main.get_command(build())
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("umec", words)


def test_containers_may_have_a_name_of_their_own(root):
    """ProtectHostname refuses sethostname, in every UTS namespace below the service: runc starts nothing then."""
    text = (root / "deploy" / "umec.service").read_text(encoding="utf-8")
    assert not re.search(r"^ProtectHostname=(yes|true|1)", text, re.MULTILINE)
