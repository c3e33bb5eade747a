"""What the agent sends of a round fits into one request, however long the boot log and the list of what ran are."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from umec_attest.agent import evidence as evidence_module
from umec_attest.agent.enrol import enrol
from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.evidence import MAX_BOOT_LOG, Evidence, collect, collect_folder
from umec_attest.agent.runtime_list import MAX_RUNTIME_LIST
from umec_attest.agent.state import NodeState, load_state
from umec_attest.agent.tpm import Tpm
from umec_attest.agent.wire import Challenge, Pcrs
from umec_attest.testing.runtime import measured
from umec_core.clock import system_clock
from umec_core.http import MAX_BODY

ENTRY = measured("/usr/bin/" + "program" * 8, bytes(32))
LENGTH = MAX_RUNTIME_LIST // len(ENTRY) + 9
KIB = 1024


def challenge(boot_log: Any = "full", start: int = 0) -> Challenge:
    return Challenge("c" * 8192, bytes(64), Pcrs(tuple(range(16))), boot_log, start, system_clock(), 30.0)


@pytest.fixture
def enrolled(scene: Any) -> NodeState:
    async def enrolling() -> None:
        async with scene.standin.running():
            await enrol(scene.plan(), scene.state)

    asyncio.run(enrolling())
    return load_state(scene.state)


@pytest.fixture
def gather(scene: Any, enrolled: NodeState, tmp_path: Path) -> Any:
    log, programs = tmp_path / "boot", tmp_path / "programs"
    programs.write_bytes(ENTRY * LENGTH)

    def gathered(size: int, asked: Challenge) -> tuple[Evidence, int]:
        log.write_bytes(bytes(size))
        with Tpm(scene.device.tcti) as tpm:
            evidence = collect(tpm, enrolled, asked, log, programs)
        secret = {"name": "n" * 64, "evidence": evidence.request("n" * 63, asked)}
        return evidence, len(json.dumps(secret))

    return gathered


def test_a_boot_log_that_is_too_long_is_refused_and_not_cut(gather: Any) -> None:
    with pytest.raises(AgentStateInvalid) as refused:
        gather(MAX_BOOT_LOG + 1, challenge("digest"))
    assert refused.value.code == "agent-state-invalid"
    evidence, _ = gather(MAX_BOOT_LOG, challenge("digest"))
    assert len(evidence.boot_log) == MAX_BOOT_LOG


def test_the_list_has_what_the_boot_log_leaves_of_a_request(gather: Any) -> None:
    for size in (64 * KIB, 104 * KIB, 126 * KIB, 400 * KIB, MAX_BOOT_LOG - len(ENTRY)):
        evidence, body = gather(size, challenge())
        part, more = evidence.runtime
        room = min(MAX_BOOT_LOG - size, MAX_RUNTIME_LIST)
        assert room - len(ENTRY) < len(part) <= room
        assert more
        assert body < MAX_BODY
    evidence, body = gather(MAX_BOOT_LOG, challenge("digest"))
    assert MAX_RUNTIME_LIST - len(ENTRY) < len(evidence.runtime[0]) <= MAX_RUNTIME_LIST
    assert body < MAX_BODY
    evidence, _ = gather(126 * KIB, challenge(start=LENGTH - 7))
    assert evidence.runtime == (ENTRY * 7, False)


def test_a_list_of_which_nothing_fits_is_not_sent_as_an_empty_one(gather: Any) -> None:
    with pytest.raises(AgentStateInvalid, match="does not fit") as refused:
        gather(MAX_BOOT_LOG - len(ENTRY) + 1, challenge())
    assert refused.value.code == "agent-state-invalid"
    evidence, body = gather(MAX_BOOT_LOG, challenge(start=LENGTH))  # nothing is left of it
    assert evidence.runtime == (b"", False)
    assert body < MAX_BODY


@pytest.fixture
def gather_folder(scene: Any, enrolled: NodeState, tmp_path: Path) -> Any:
    log, programs = tmp_path / "boot", tmp_path / "programs"
    log.write_bytes(b"")
    programs.write_bytes(ENTRY)

    def gathered(*pcrs: int, nonce: bytes = bytes(32), missing: bool = False) -> dict[str, bytes]:
        folder = tmp_path / "folder"
        with Tpm(scene.device.tcti) as tpm:
            absent = tmp_path / "absent" if missing else programs
            collect_folder(folder, tpm, enrolled, nonce=nonce, pcrs=pcrs, boot_log=log, runtime_list=absent)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    return gathered


def test_a_folder_holds_what_the_quote_is_about_and_nothing_of_an_older_one(gather_folder: Any) -> None:
    always = {"quote.bin", "signature.bin", "ak.pub", "ak_parent.pub", "pcrs.json", "bootlog.bin", "nonce.bin"}
    files = gather_folder(0, 10)
    assert set(files) == always | {"ima.bin"}
    assert (files["ima.bin"], files["nonce.bin"]) == (ENTRY, bytes(32))
    assert set(json.loads(files["pcrs.json"])["sha256"]) == {"0", "10"}
    assert set(gather_folder(0, 7)) == always  # the list of before is about another quote
    with pytest.raises(AgentStateInvalid, match="absent"):
        gather_folder(0, 10, missing=True)
    gather_folder(0, 7, missing=True)


def test_a_list_that_grew_during_the_quote_is_quoted_again(
    gather_folder: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs, grow = tmp_path / "programs", [True, False, True, True]
    read = evidence_module.read_runtime_list

    def reading(path: Path, start: int, *, most: int) -> tuple[bytes, bool]:
        found = read(path, start, most=most)
        if grow and grow.pop(0):
            programs.write_bytes(programs.read_bytes() + ENTRY)
        return found

    monkeypatch.setattr(evidence_module, "read_runtime_list", reading)
    assert gather_folder(10)["ima.bin"] == ENTRY * 4  # grown by the first look, and by the third and fourth
    grow += [True, False] * 5
    with pytest.raises(AgentStateInvalid, match="grew") as refused:
        gather_folder(10)
    assert refused.value.code == "agent-state-invalid"


def test_a_list_that_no_verifier_reads_is_not_saved(gather_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "MAX_SAVED_LIST", len(ENTRY) - 1)
    with pytest.raises(AgentStateInvalid, match="more than") as refused:
        gather_folder(10)
    assert refused.value.code == "agent-state-invalid"
    monkeypatch.setattr(evidence_module, "MAX_SAVED_LIST", len(ENTRY))
    gather_folder(10)
