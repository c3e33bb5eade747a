"""netd as a node image starts it: by a settings file, and for the node that its agent says it is."""

import asyncio
import contextlib
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from umec_core.jose import KeySet
from umec_platform.netd import __main__ as started
from umec_platform.netd.__main__ import SettingsInvalid, own_name, read_settings

KEYS = KeySet([generate_private_key(SECP256R1()).public_key()]).jwks()
GOOD = {
    "verifier_issuer": "https://site.example:8443/attest/v1",
    "verifier_jwks": KEYS,
    "decision_issuer": "https://site.example:8443/platform/v1",
    "decision_jwks": KEYS,
    "access": ["eth1"],
    "access_address": "192.0.2.1/24",
    "pool": "10.64.0.0/16",
    "services": ["203.0.113.1:8444"],
    "lease_seconds": 60,
}


def read(folder, said):
    file = folder / "host.json"
    file.write_bytes(said if isinstance(said, bytes) else json.dumps(said).encode())
    return read_settings(file, node="pole-7", state=folder, agent=folder / "agent")


def test_a_settings_file_says_whose_word_counts_and_the_agent_measures(tmp_path):
    found = read(tmp_path, GOOD)
    assert (found.terms.node, found.terms.time, found.agent) == ("pole-7", timedelta(seconds=60), tmp_path / "agent")
    assert [(str(address), port) for address, port in found.services] == [("203.0.113.1", 8444)]


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in GOOD),
        {"more": 1},
        {"verifier_issuer": ""},
        {"decision_issuer": ""},
        {"verifier_jwks": {"keys": []}},
        {"decision_jwks": {"keys": [{"kty": "oct", "k": "AA"}]}},
        {"access": []},
        {"access": ["eth1; reboot"]},
        {"access_address": "192.0.2.1/33"},
        {"pool": "10.64.0.1/16"},
        {"services": ["203.0.113.1:0"]},
        {"services": ["203.0.113.1:65536"]},
        {"services": ["203.0.113.1"]},
        {"services": ["203.0.113.999:1"]},
        {"lease_seconds": 0},
        {"lease_seconds": 3601},
    ],
    ids=str,
)
def test_one_fault_in_a_settings_file(tmp_path, change):
    missing = [name for name, value in change.items() if value is None]
    said = {name: value for name, value in (GOOD | change).items() if name not in missing}
    with pytest.raises(SettingsInvalid) as refused:
        read(tmp_path, said)
    assert refused.value.code == "settings-invalid"
    read(tmp_path, GOOD)


@given(st.binary())
def test_any_file_gives_settings_or_is_refused(tmp_path_factory, data):
    with contextlib.suppress(SettingsInvalid):
        read(tmp_path_factory.getbasetemp(), data)


def test_a_file_that_is_not_there_ends_netd_with_its_code(tmp_path):
    """As a process of its own: it takes the log of its process."""
    line = [sys.executable, "-m", "umec_platform.netd", "--allow-uid", "1"]
    line += [word for name in ("settings", "agent", "state", "socket") for word in (f"--{name}", tmp_path / "none")]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.partition(":")[0]) == (1, "settings-invalid")


def test_netd_waits_until_its_agent_says_which_node_this_is(tmp_path, monkeypatch):
    monkeypatch.setattr(started, "ASK_EVERY", 0.01)
    answers = [b"", b"[]\n", b'{"ok": false, "code": "node-not-attested"}\n', b'{"ok": true, "status": {}}\n']
    answers.append(b'{"ok": true, "status": {"node": "pole-7"}}\n')

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answers.pop(0))
        writer.close()

    async def scenario() -> str | None:
        async with await asyncio.start_unix_server(connected, tmp_path / "agent.sock"):
            return await own_name(tmp_path, asyncio.Event())

    assert asyncio.run(scenario()) == "pole-7"
    assert answers == []


def test_netd_ends_while_it_waits(tmp_path: Path) -> None:
    async def scenario() -> str | None:
        stop = asyncio.Event()
        waiting = asyncio.create_task(own_name(tmp_path, stop))
        await asyncio.sleep(0)
        stop.set()
        return await waiting

    assert asyncio.run(scenario()) is None
