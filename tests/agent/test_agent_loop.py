"""The agent against a platform that refuses, lies, restarts and falls silent."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from umec_attest.agent.again import MOST_PARTS
from umec_attest.agent.control import ask, only_agent, serve_control
from umec_attest.agent.enrol import enrol
from umec_attest.agent.errors import (
    AgentBusy,
    AgentStateInvalid,
    AnswerInvalid,
    NotAttested,
    PlatformUntrusted,
    TicketInvalid,
    TpmUnavailable,
)
from umec_attest.agent.loop import Agent
from umec_attest.agent.pace import Pace
from umec_attest.agent.requests import Call, Status, Token
from umec_attest.agent.state import load_state
from umec_attest.ima import ImaCheckpoint
from umec_attest.service.errors import BootLogRequired, RuntimeListContinues
from umec_attest.testing import firmware
from umec_core.client import RemoteRefused, RemoteUnavailable
from umec_core.clock import system_clock
from umec_core.errors import Forbidden, Unavailable
from umec_core.keys import KeyFileExposed


def ticket(ca_sha256: str) -> str:
    said = {"asset": "kerb-7", "ca_sha256": ca_sha256, "url": "https://127.0.0.1:1", "secret": "s"}
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


def test_another_ca_than_the_tickets_is_refused(scene: Any) -> None:
    with pytest.raises(PlatformUntrusted) as refused:
        scene.plan(ticket=ticket("0" * 64), url=None, node=None)
    assert refused.value.code == "platform-untrusted"
    plan = scene.plan(ticket=ticket(scene.standin.server_ca.sha256), url=None, node=None)
    assert (plan.node, plan.url) == ("kerb-7", "https://127.0.0.1:1")


@pytest.mark.parametrize("other", [{"node": "kerb-8"}, {"url": "https://127.0.0.1:2"}])
def test_what_contradicts_the_ticket_is_refused(scene: Any, other: dict[str, str]) -> None:
    given = {"ticket": ticket(scene.standin.server_ca.sha256), "node": "kerb-7", "url": "https://127.0.0.1:1/"}
    with pytest.raises(TicketInvalid) as refused:
        scene.plan(**(given | other))
    assert refused.value.code == "ticket-invalid"
    plan = scene.plan(**given)
    assert (plan.node, plan.url) == ("kerb-7", "https://127.0.0.1:1")


def test_a_server_of_another_ca_learns_nothing(scene: Any, tmp_path: Path) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            with pytest.raises(RemoteUnavailable) as refused:
                await enrol(scene.plan(ca=scene.standin.node_ca.pem), tmp_path / "other")
            assert refused.value.code == "remote-unavailable"
            assert scene.standin.asked == []
            await enrol(scene.plan(), tmp_path / "other")

    asyncio.run(playing())


def test_a_refused_enrolment_leaves_no_state(scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            for step in ("enrolments", "activation"):
                scene.standin.faults[step] = [Forbidden("not today")]
                with pytest.raises(RemoteRefused) as refused:
                    await enrol(scene.plan(), scene.state)
                assert refused.value.code == "forbidden"
                assert not (scene.state / "node.json").exists()
            scene.standin.faults["enrolments"] = [{"enrolment": "1", "credential_blob": "!", "encrypted_secret": ""}]
            with pytest.raises(AnswerInvalid) as invalid:
                await enrol(scene.plan(), scene.state)
            assert invalid.value.code == "answer-invalid"
            done = await enrol(scene.plan(), scene.state)
            assert done.approved
            with pytest.raises(AgentStateInvalid) as twice:
                await enrol(scene.plan(), scene.state)
            assert twice.value.code == "agent-state-invalid"
            await enrol(scene.plan(), scene.state, replace=True)

    asyncio.run(playing())


def test_a_state_that_others_may_read_is_refused(scene: Any) -> None:
    async def enrolled(_agent: Agent) -> None:
        assert stat.S_IMODE(scene.state.stat().st_mode) == 0o700
        assert stat.S_IMODE((scene.state / "node.json").stat().st_mode) == 0o600

    scene.play(enrolled)
    (scene.state / "node.json").chmod(0o640)
    with pytest.raises(KeyFileExposed) as exposed:
        load_state(scene.state)
    assert exposed.value.code == "key-file-exposed"
    (scene.state / "node.json").chmod(0o600)
    scene.state.chmod(0o755)
    with pytest.raises(AgentStateInvalid) as refused:
        load_state(scene.state)
    assert refused.value.code == "agent-state-invalid"
    scene.state.chmod(0o700)
    load_state(scene.state)


def test_no_boot_log_is_said_and_survived(scene: Any) -> None:
    async def lost(agent: Agent) -> None:
        moved = scene.log.rename(scene.log.with_name("away"))
        with pytest.raises(AgentStateInvalid) as refused:
            await agent.attest()
        assert refused.value.code == "agent-state-invalid"
        moved.rename(scene.log)
        assert (await agent.attest()).verdict == "affirming"

    scene.play(lost)


def test_without_a_verdict_there_is_no_credential(scene: Any) -> None:
    async def early(agent: Agent) -> None:
        for work in (agent.renew(), agent.settle(), agent.token("https://a/", "node:host")):
            with pytest.raises(NotAttested) as refused:
                await work
            assert refused.value.code == "node-not-attested"
        await agent.attest()
        await agent.renew()
        await agent.token("https://a/", "node:host")

    scene.play(early)


def test_a_bad_verdict_takes_the_credentials(scene: Any) -> None:
    async def falling(agent: Agent) -> None:
        await agent.attest()
        await agent.renew()
        scene.standin.verdict, scene.standin.generation = "contraindicated", 2
        result = await agent.attest()
        assert [finding.id for finding in result.findings] == ["pcr-4-unexpected"]
        with pytest.raises(NotAttested) as refused:
            await agent.token("https://a/", "node:host")
        assert refused.value.code == "node-not-attested"
        scene.standin.verdict, scene.standin.generation = "affirming", 3
        await agent.attest()
        await agent.renew()
        await agent.token("https://a/", "node:host")

    scene.play(falling)


def test_a_verdict_that_comes_before_the_certificate_takes_it(scene: Any) -> None:
    async def falling(agent: Agent) -> None:
        await agent.attest()
        released = scene.standin.held["certificates"] = asyncio.Event()
        renewing = asyncio.create_task(agent.renew())
        async with asyncio.timeout(60):
            while "certificates" not in scene.standin.asked:  # noqa: ASYNC110 - the stand-in has no event for it
                await asyncio.sleep(0.01)
        scene.standin.verdict, scene.standin.generation = "contraindicated", 2
        await agent.attest()
        released.set()
        with pytest.raises(NotAttested) as refused:
            await renewing
        assert refused.value.code == "node-not-attested"
        with pytest.raises(NotAttested):
            await agent.token("https://a/", "node:host")
        scene.standin.verdict, scene.standin.generation = "affirming", 3
        await agent.attest()
        await agent.renew()
        await agent.token("https://a/", "node:host")

    scene.play(falling)


def test_a_result_that_has_ended_gives_nothing(scene: Any) -> None:
    scene.standin.ear_seconds, scene.standin.certificate_seconds = 1000.0, 9000.0
    offset = timedelta(0)

    async def ending(agent: Agent) -> None:
        nonlocal offset
        await agent.attest()
        await agent.renew()
        before = len(scene.standin.asked)
        offset = timedelta(seconds=1001)
        with pytest.raises(NotAttested) as refused:
            await agent.renew()
        assert refused.value.code == "node-not-attested"
        assert len(scene.standin.asked) == before
        offset = timedelta(0)
        await agent.renew()

    scene.play(ending, clock=lambda: system_clock() + offset)


def test_a_certificate_lasts_until_half_of_its_life_and_is_of_no_use_after_its_end(scene: Any) -> None:
    scene.standin.ear_seconds, scene.standin.certificate_seconds = 9000.0, 3000.0
    offset = timedelta(0)

    async def ageing(agent: Agent) -> None:
        nonlocal offset
        await agent.attest()
        for seconds, certificates in ((0, 1), (0, 1), (1501, 2)):
            offset = timedelta(seconds=seconds)
            await agent.renew()
            assert scene.standin.asked.count("certificates") == certificates
        offset = timedelta(0)
        token = await agent.token("https://a/", "node:host")
        offset = timedelta(seconds=3001)
        with pytest.raises(NotAttested) as refused:
            await agent.token("https://a/", "node:host")
        assert refused.value.code == "node-not-attested"
        offset = timedelta(0)
        assert await agent.token("https://a/", "node:host") == token

    scene.play(ageing, clock=lambda: system_clock() + offset)


def test_a_new_generation_means_a_new_certificate(scene: Any) -> None:
    async def changing(agent: Agent) -> None:
        for generation, certificates in ((1, 1), (1, 1), (2, 2)):
            scene.standin.generation = generation
            await agent.attest()
            await agent.renew()
            assert scene.standin.asked.count("certificates") == certificates

    scene.play(changing)


def test_a_round_tells_whether_its_verdict_has_a_certificate(scene: Any) -> None:
    scene.standin.ear_seconds, scene.standin.certificate_seconds = 9000.0, 3000.0
    offset = timedelta(0)

    def told() -> tuple[str, object, object]:
        line = scene.lines[-1]
        return line["event"], line.get("generation"), line.get("certificate")

    async def changing(agent: Agent) -> None:
        nonlocal offset
        for generation in (1, 2):
            scene.standin.generation = generation
            await agent.attest()
            assert told() == ("round", generation, False)
            await agent.renew()
            assert told() == ("certificate", generation, None)
            await agent.attest()
            assert told() == ("round", generation, True)
        offset = timedelta(seconds=3001)
        await agent.attest()
        assert told() == ("round", 2, False)

    scene.play(changing, clock=lambda: system_clock() + offset)


def test_certificates_are_renewed_at_half_of_their_life(scene: Any) -> None:
    scene.standin.certificate_seconds = 4.0

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        async with asyncio.timeout(60):
            while scene.standin.asked.count("certificates") < 3:
                await agent.token("https://a/", "x") if scene.standin.asked.count("token") else None
                await asyncio.sleep(0.05)
        stop.set()
        await working

    scene.play(running)
    assert not [line for line in scene.lines if line["event"] == "refused"]


def test_a_full_log_or_its_digest_as_asked(scene: Any) -> None:
    async def both(agent: Agent) -> None:
        await agent.attest()
        scene.standin.boot_log = "digest"
        await agent.attest()

    scene.play(both)
    full, digest = scene.standin.evidence
    assert base64.b64decode(full["boot_log"]) == scene.log.read_bytes()
    assert "boot_log_sha256" not in full
    assert digest["boot_log_sha256"] == hashlib.sha256(scene.log.read_bytes()).hexdigest()
    assert "boot_log" not in digest


def test_the_loop_survives_what_may_happen(scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            await enrol(scene.plan(), scene.state)
        stop = asyncio.Event()

        async def running(agent: Agent) -> None:
            working = asyncio.create_task(agent.run(stop))
            await scene.until(lambda line: line.get("code") == "remote-unavailable")  # 1 the platform is down
            async with scene.standin.running():
                await scene.until(lambda line: line["event"] == "round")  # 2 it is back
                scene.standin.faults["evidence"] = [Unavailable("restarting"), {"verdict": 7}]
                await scene.until(lambda line: line.get("code") == "unavailable")  # 3 it is busy
                await scene.until(lambda line: line.get("code") == "answer-invalid")  # 4 it talks nonsense
                await scene.until(lambda line: line["event"] == "round")
                scene.device.kill()
                await scene.until(lambda line: line.get("code") == "tpm-unavailable")  # 5 the TPM is away
                scene.device.start()
                await scene.until(lambda line: line["event"] == "round")  # 6 and back, after a reset
            await scene.until(lambda line: line.get("code") == "remote-unavailable")  # 7 the verifier restarts
            async with scene.standin.running():
                await scene.until(lambda line: line["event"] == "round")
                stop.set()
                async with asyncio.timeout(60):
                    await working

        await scene.with_agent(running)

    asyncio.run(playing())
    assert all("retry_seconds" in line for line in scene.lines if line["event"] == "refused")


def test_power_that_goes_between_challenge_and_evidence_leaves_nothing_to_repair(scene: Any) -> None:
    async def cut(agent: Agent) -> None:
        assert scene.device.pid is not None
        os.kill(scene.device.pid, signal.SIGSTOP)  # so that the quote takes until the power goes
        working = asyncio.create_task(agent.attest())
        async with asyncio.timeout(60):
            while "challenges" not in scene.standin.asked:  # noqa: ASYNC110 - the stand-in has no event for it
                await asyncio.sleep(0.01)
        scene.device.kill()
        with pytest.raises(TpmUnavailable) as refused:
            await working
        assert refused.value.code == "tpm-unavailable"
        assert "evidence" not in scene.standin.asked

    async def again(agent: Agent) -> None:
        assert (await agent.attest()).verdict == "affirming"
        await agent.renew()

    scene.play(cut)
    scene.device.start()
    firmware.boot(scene.device, scene.image, log=scene.log)
    scene.play(again)


@pytest.mark.parametrize("seconds", [7200, -7200])
def test_a_clock_that_is_set_costs_no_round_and_no_credential_for_good(scene: Any, seconds: int) -> None:
    offset = timedelta(0)

    async def running(agent: Agent) -> None:
        nonlocal offset
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "certificate")
        offset = timedelta(seconds=seconds)
        for _ in range(3):
            await scene.until(lambda line: line["event"] == "round" and line["verdict"] == "affirming")
        offset = timedelta(0)
        await scene.until(lambda line: line["event"] == "round")
        await agent.settle()
        await agent.token("https://a/", "node:host")
        stop.set()
        await working

    scene.standin.round_seconds = 0.3
    scene.play(running, clock=lambda: system_clock() + offset)
    told = {line["code"] for line in scene.lines if line["event"] == "refused"}
    assert told == ({"node-not-attested"} if seconds > 0 else set())


def test_a_verifier_that_lacks_the_boot_log_gets_it(scene: Any) -> None:
    async def rebooted(agent: Agent) -> None:
        scene.standin.faults["evidence"] = [BootLogRequired("the node booted since")]
        assert (await agent.attest()).verdict == "affirming"
        scene.standin.faults["evidence"] = [BootLogRequired("again"), BootLogRequired("and again")]
        with pytest.raises(RemoteRefused) as refused:
            await agent.attest()
        assert refused.value.code == "boot-log-required"

    scene.play(rebooted)


@pytest.mark.parametrize(
    "code", ["boot-log-required", "evidence-stale", "nonce-expired", "nonce-superseded", "nonce-unknown"]
)
def test_what_another_challenge_heals_is_one_round(scene: Any, code: str) -> None:
    class Healed(Forbidden):
        """What the answer to another challenge heals."""

    Healed.code = code

    async def healing(agent: Agent) -> None:
        scene.standin.faults["evidence"] = [Healed("not by this one")]
        assert (await agent.attest()).verdict == "affirming"
        scene.standin.faults["evidence"] = [Forbidden("for another reason")]
        with pytest.raises(RemoteRefused) as refused:
            await agent.attest()
        assert refused.value.code == "forbidden"

    scene.play(healing)


def test_a_list_that_goes_in_parts_is_one_round(scene: Any) -> None:
    """Not for ever: a verifier that always wants more is one that refuses."""

    async def long(agent: Agent) -> None:
        part = RuntimeListContinues(ImaCheckpoint(1, 2, bytes(32), "00"))
        scene.standin.faults["evidence"] = [part] * (MOST_PARTS - 1)
        assert (await agent.attest()).verdict == "affirming"
        scene.standin.faults["evidence"] = [part] * MOST_PARTS
        with pytest.raises(RemoteRefused) as refused:
            await agent.attest()
        assert refused.value.code == "runtime-list-continues"

    scene.play(long)


def test_a_refused_certificate_costs_no_round(scene: Any) -> None:
    scene.standin.round_seconds = 60.0
    scene.standin.faults["certificates"] = [Forbidden("not yet"), Forbidden("not yet")]

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "certificate")
        stop.set()
        await working

    scene.play(running)
    assert scene.standin.asked.count("evidence") == 1
    assert [line["code"] for line in scene.lines if line["event"] == "refused"] == ["forbidden", "forbidden"]


def test_the_running_agent_calls_for_others_on_the_node(scene: Any) -> None:
    async def serving(agent: Agent) -> None:
        assert await ask(scene.state, Status()) is None
        with only_agent(scene.state):
            with pytest.raises(AgentBusy) as busy, only_agent(scene.state):
                pass
            assert busy.value.code == "agent-busy"
            async with serve_control(agent, scene.state):
                assert stat.S_IMODE((scene.state / "agent.sock").stat().st_mode) == 0o600
                resource = f"{scene.standin.url}/platform/v1"
                with pytest.raises(RemoteRefused) as refused:
                    await ask(scene.state, Token(resource=resource, scope="node:host"))
                assert refused.value.code == "node-not-attested"
                await agent.attest()
                await agent.renew()
                status = await ask(scene.state, Status())
                assert status is not None
                assert status["status"]["verdict"] == "affirming"
                token = await ask(scene.state, Token(resource=resource, scope="node:host"))
                assert token is not None
                assert token["token"].count(".") == 2
                answer = await ask(
                    scene.state,
                    Call(
                        method="POST",
                        url=f"{resource}/echo",
                        resource=resource,
                        scope="node:host",
                        content=b'{"a": 1}',
                        headers={"Content-Type": "application/json"},
                    ),
                )
                assert answer is not None
                assert answer["status"] == 200
                said = json.loads(base64.b64decode(answer["content"]))
                assert said == {"body": {"a": 1}, "aud": resource, "scope": "node:host"}
        assert not (scene.state / "agent.sock").exists()

    scene.play(serving)


def test_a_slow_call_holds_up_no_other_and_outlives_a_renewal(scene: Any) -> None:
    async def echo(agent: Agent) -> Any:
        resource = f"{scene.standin.url}/platform/v1"
        return await agent.call(
            "POST",
            f"{resource}/echo",
            resource=resource,
            scope="node:host",
            content=b"{}",
            headers={"Content-Type": "application/json"},
        )

    async def calling(agent: Agent) -> None:
        await agent.attest()
        await agent.renew()
        released = scene.standin.held["echo"] = asyncio.Event()
        slow = asyncio.create_task(echo(agent))
        await asyncio.sleep(0.2)
        async with asyncio.timeout(20):
            await agent.token("https://other/", "x")
        scene.standin.generation = 2
        await agent.attest()
        asyncio.get_running_loop().call_later(0.3, released.set)
        async with asyncio.timeout(20):
            await agent.renew()
        assert (await slow).status == 200
        assert (await echo(agent)).status == 200
        assert scene.standin.asked.count("certificates") == 2

    scene.play(calling)


def test_one_result_serves_several_rounds(scene: Any) -> None:
    scene.standin.ear_seconds = scene.standin.certificate_seconds = 8.0

    async def steady(agent: Agent) -> None:
        scene.standin.ear = (await agent.attest()).ear
        await agent.renew()
        await asyncio.sleep(4.2)  # half of the certificate's life is over, and this result gives none that ends later
        await agent.attest()
        await agent.renew()
        assert scene.standin.asked.count("certificates") == 1
        scene.standin.ear = None
        await agent.attest()
        await agent.renew()
        assert scene.standin.asked.count("certificates") == 2

    scene.play(steady)


@pytest.mark.parametrize("line", [b"\n", b"null\n", b'{"op": "shell"}\n', b'{"op": "status", "more": 1}\n', b"\xff\n"])
def test_the_socket_refuses_what_is_no_request(scene: Any, line: bytes) -> None:
    async def serving(agent: Agent) -> None:
        async with serve_control(agent, scene.state):
            for sent, ok in ((line, False), (b'{"op": "status"}\n', True)):
                reader, writer = await asyncio.open_unix_connection(scene.state / "agent.sock")
                writer.write(sent)
                said = json.loads(await reader.readline())
                assert said["ok"] is ok
                assert ok or said["code"] == "invalid-input"
                writer.close()

    scene.play(serving)


def test_the_key_of_the_certificate_touches_no_disk(scene: Any) -> None:
    async def looking(agent: Agent) -> None:
        await agent.attest()
        await agent.renew()
        files = [path for path in scene.state.rglob("*") if path.is_file()]
        assert {path.name for path in files} == {"log.json", "node.json"}
        assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in files)

    scene.play(looking)


def test_evidence_is_kept_for_offline_judges(scene: Any, tmp_path: Path) -> None:
    async def saving(agent: Agent) -> None:
        await agent.attest()
        assert (tmp_path / "evidence" / "ear.jwt").read_text().count(".") == 2
        scene.standin.verdict = "contraindicated"
        await agent.attest()
        assert not (tmp_path / "evidence" / "ear.jwt").exists()

    scene.play(saving, save=tmp_path / "evidence")
    names = {"quote.bin", "signature.bin", "ak.pub", "ak_parent.pub", "pcrs.json", "bootlog.bin", "nonce.bin"}
    assert {path.name for path in (tmp_path / "evidence").iterdir()} == names
    sent = scene.standin.evidence[1]
    assert (tmp_path / "evidence" / "quote.bin").read_bytes() == base64.b64decode(sent["quote"])
    assert json.loads((tmp_path / "evidence" / "pcrs.json").read_text()) == sent["pcrs"]


def test_waiting_grows_and_is_never_in_step() -> None:
    pace = Pace(first=1.0, longest=30.0)
    for failures, least, most in ((1, 0.5, 1.0), (4, 4.0, 8.0), (9, 15.0, 30.0), (10_000, 15.0, 30.0)):
        waits = {pace.after(failures) for _ in range(50)}
        assert least <= min(waits) <= max(waits) <= most
        assert len(waits) > 10
