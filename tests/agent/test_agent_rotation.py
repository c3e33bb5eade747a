"""The agent gets other keys, and goes on from whatever was interrupted."""

import asyncio
import json
import stat
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from umec_attest.agent.control import ask, serve_control
from umec_attest.agent.errors import AgentStateInvalid, AnswerInvalid, TpmRefused
from umec_attest.agent.loop import Agent
from umec_attest.agent.requests import Rotate
from umec_attest.agent.rotation import load_next_keys, rotation_pending
from umec_attest.agent.state import load_state
from umec_attest.testing import firmware
from umec_core.clock import system_clock
from umec_core.errors import Conflict, Forbidden, Unavailable
from umec_core.keys import KeyFileExposed
from umec_core.remote import RemoteRefused

NODE = "kerb-7"


def keys(scene: Any) -> tuple[bytes, bytes]:
    state = load_state(scene.state)
    return state.ak.public, state.node_key.public


def known(scene: Any) -> tuple[bytes, bytes]:
    node = scene.standin.nodes[NODE]
    return node["ak"].to_bytes(), node["node_key"].to_bytes()


async def good_round(agent: Agent) -> None:
    assert (await agent.attest()).verdict == "affirming"
    await agent.renew()
    await agent.token("https://a/", "node:host")


def test_new_keys_take_the_place_of_the_present_ones(scene: Any) -> None:
    async def rotating(agent: Agent) -> None:
        await good_round(agent)
        before, since = keys(scene), load_state(scene.state).keys_since
        await agent.rotate()
        assert not set(before) & set(keys(scene))
        assert keys(scene) == known(scene)
        assert load_state(scene.state).keys_since > since
        assert not rotation_pending(scene.state)
        assert stat.S_IMODE((scene.state / "node.json").stat().st_mode) == 0o600
        assert scene.lines[-1]["event"] == "rotated"
        await good_round(agent)
        assert scene.standin.asked.count("certificates") == 2

    scene.play(rotating)
    scene.play(good_round)


def interrupted(fault: str, error: type[Exception] | Callable[[], Exception] | dict[str, Any]) -> Any:
    def prepare(scene: Any) -> None:
        scene.standin.faults[fault] = [error() if callable(error) else error]

    return prepare


def lost(scene: Any) -> None:
    scene.standin.lost_answers.add("rotations-proof")


GARBAGE = {"permit": "p", "credential_blob": "AAAA", "encrypted_secret": "AAAA", "pcrs": {"sha256": [0]}}


@pytest.mark.parametrize(
    ("prepare", "code", "taken", "power"),
    [
        (interrupted("rotations", lambda: Unavailable("restarting")), "unavailable", False, False),  # between 1 and 2
        (interrupted("rotations", {"permit": 7}), "answer-invalid", False, False),  # 2 said nothing
        (interrupted("rotations", GARBAGE), "tpm-refused", False, True),  # between 2 and 3
        (interrupted("rotations-proof", lambda: Unavailable("restarting")), "unavailable", False, True),  # 3 and 4
        (interrupted("rotations-proof", lambda: Conflict("meanwhile")), "conflict", False, False),
        (lost, "unavailable", True, False),  # between 4 and 5
        (lost, "unavailable", True, True),
    ],
    ids=["begin", "nonsense", "tpm", "proof", "refused", "answer-lost", "answer-lost-and-power-cut"],
)
def test_a_rotation_goes_on_where_it_was_interrupted(
    scene: Any, prepare: Callable[[Any], None], code: str, taken: bool, power: bool
) -> None:
    async def cut(agent: Agent) -> None:
        await good_round(agent)
        before = keys(scene)
        prepare(scene)
        with pytest.raises((RemoteRefused, AnswerInvalid, TpmRefused)) as refused:
            await agent.rotate()
        assert refused.value.code == code
        assert keys(scene) == before
        assert (known(scene) != before) is taken

    scene.play(cut)
    kept = load_next_keys(scene.state)
    assert stat.S_IMODE((scene.state / "next-keys.json").stat().st_mode) == 0o600
    if power:
        scene.device.power_cycle()
        firmware.boot(scene.device, scene.image, log=scene.log)
    scene.play(good_round)
    assert keys(scene) == known(scene) == (kept.ak.public, kept.node_key.public)
    assert not rotation_pending(scene.state)


def test_what_was_kept_goes_though_the_power_went_first(scene: Any) -> None:
    async def rotating(agent: Agent) -> None:
        await good_round(agent)
        scene.standin.faults["rotations"] = [Unavailable("restarting")]
        with pytest.raises(RemoteRefused):
            await agent.rotate()
        kept = (scene.state / "next-keys.json").read_bytes()
        await agent.rotate()
        (scene.state / "next-keys.json").write_bytes(kept)  # between 5 and 6
        (scene.state / "next-keys.json").chmod(0o600)

    scene.play(rotating)
    after = keys(scene)
    scene.play(good_round)
    assert keys(scene) == known(scene) == after
    assert not rotation_pending(scene.state)


def test_kept_keys_that_are_none_cost_no_round(scene: Any) -> None:
    path = scene.state / "next-keys.json"

    async def attesting(agent: Agent) -> None:
        await good_round(agent)
        path.write_text(json.dumps({"format": 1}))
        with pytest.raises(KeyFileExposed) as exposed:
            load_next_keys(scene.state)
        assert exposed.value.code == "key-file-exposed"
        path.chmod(0o600)
        with pytest.raises(AgentStateInvalid) as refused:
            load_next_keys(scene.state)
        assert refused.value.code == "agent-state-invalid"
        await good_round(agent)
        path.unlink()
        scene.standin.faults["rotations"] = [Unavailable("so that they are kept")]
        with pytest.raises(RemoteRefused):
            await agent.rotate()
        kept = json.loads(path.read_text())
        for fault in ({**kept, "more": 1}, {**kept, "format": 2}):
            path.write_text(json.dumps(fault))
            with pytest.raises(AgentStateInvalid) as refused:
                load_next_keys(scene.state)
            assert refused.value.code == "agent-state-invalid"
        path.write_text(json.dumps(kept))
        await agent.rotate()

    scene.play(attesting)
    assert [line["code"] for line in scene.lines if line["event"] == "refused"] == ["agent-state-invalid"]


def test_keys_have_successors_when_their_time_is_over(scene: Any) -> None:
    offset = timedelta(0)

    async def running(agent: Agent) -> None:
        nonlocal offset
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "round" and line["round"] == 3)
        assert scene.standin.asked.count("rotations") == 0
        offset = timedelta(days=26)  # nine tenths of a period may be enough, less is not
        await scene.until(lambda line: line["event"] == "round" and line["round"] == 5)
        assert scene.standin.asked.count("rotations") == 0
        offset = timedelta(days=30)
        await scene.until(lambda line: line["event"] == "rotated")
        await scene.until(lambda line: line["event"] == "certificate")
        stop.set()
        await working

    scene.standin.ear_seconds = 10_000_000.0
    scene.standin.certificate_seconds = 10_000_000.0
    scene.play(running, clock=lambda: system_clock() + offset)
    assert scene.standin.asked.count("rotations") == 1


def test_without_a_period_only_who_asks_gets_new_keys(scene: Any) -> None:
    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "certificate")
        await scene.until(lambda line: line["event"] == "round")
        assert scene.standin.asked.count("rotations") == 0
        async with serve_control(agent, scene.state):
            before = keys(scene)
            said = await ask(scene.state, Rotate())
            assert said is not None
            assert (said["standing"], said["generation"]) == ("trusted", 2)
            assert keys(scene) == known(scene) != before
            await agent.token("https://a/", "node:host")
        stop.set()
        await working

    scene.standin.ear_seconds = scene.standin.certificate_seconds = 100_000_000.0
    scene.play(running, rotation=None, clock=lambda: system_clock() + timedelta(days=1000))


def test_a_round_waits_for_a_rotation_and_begins_no_other(scene: Any) -> None:
    async def both(agent: Agent) -> None:
        await good_round(agent)
        rotating = asyncio.create_task(agent.rotate())
        while not rotation_pending(scene.state):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.001)
        await asyncio.gather(agent.attest(), rotating)
        assert scene.standin.generation == 2
        await good_round(agent)

    scene.play(both)


def test_a_rotation_that_is_refused_is_not_asked_for_all_the_time(scene: Any) -> None:
    scene.standin.faults["rotations"] = [Forbidden("not yet")] * 9

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "refused")
        for _ in range(3):
            await scene.until(lambda line: line["event"] == "round")
        assert scene.standin.asked.count("rotations") == 1
        scene.standin.faults["evidence"] = [Forbidden("for whatever reason")]  # perhaps because of the keys
        await scene.until(lambda line: line.get("detail") == "for whatever reason")
        await scene.until(lambda line: line["event"] == "round")
        assert scene.standin.asked.count("rotations") == 2
        stop.set()
        await working

    scene.play(running, rotation=timedelta(0))


def test_a_verifier_that_cannot_rotate_now_is_asked_with_every_round_and_costs_none(scene: Any) -> None:
    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        scene.standin.faults["rotations"] = [Unavailable("not now"), Unavailable("nor now"), Unavailable("nor yet")]
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "rotated")
        await scene.until(lambda line: line["event"] == "round")
        stop.set()
        await working

    scene.play(running, rotation=timedelta(0))
    assert [line["code"] for line in scene.lines if line["event"] == "refused"] == ["unavailable"] * 3
    assert [line["verdict"] for line in scene.lines if line["event"] == "round"][:2] == ["affirming"] * 2


def test_a_node_that_does_not_stand_asks_for_no_keys(scene: Any) -> None:
    scene.standin.verdict = "contraindicated"

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        for _ in range(2):
            await scene.until(lambda line: line["event"] == "round")
        assert scene.standin.asked.count("rotations") == 0
        scene.standin.verdict = "affirming"
        await scene.until(lambda line: line["event"] == "rotated")
        stop.set()
        await working

    scene.play(running, rotation=timedelta(0))


def test_a_round_that_rotated_is_followed_by_another_at_once(scene: Any) -> None:
    """Else the node would have no credentials until the next one is due."""

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda _: sum(line["event"] != "round" for line in scene.lines) == 2)
        stop.set()
        await working

    scene.standin.round_seconds = 0.05
    scene.play(running, rotation=timedelta(0))
    assert [line["event"] for line in scene.lines][:4] == ["round", "rotated", "round", "certificate"]


def test_a_rotation_that_is_refused_adds_no_round(scene: Any) -> None:
    def report(line: Any) -> None:
        scene.lines.append(line)
        if line["event"] == "certificate":
            scene.standin.generation += 1  # so that the next round is followed by another certificate

    async def running(agent: Agent) -> None:
        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda _: [line["event"] for line in scene.lines].count("certificate") == 2)
        stop.set()
        await working

    scene.standin.round_seconds = 0.05
    scene.standin.faults["rotations"] = [Forbidden("not yet")] * 9
    scene.play(running, rotation=timedelta(0), report=report)
    events = [line["event"] for line in scene.lines]
    assert events[:5] == ["round", "refused", "certificate", "round", "certificate"]
