"""A verifier's database comes back from before a rotation: nodes go on with the keys that it knows."""

import json
import stat
from datetime import timedelta
from typing import Any

import pytest

from umec_attest.agent import former_keys
from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.former_keys import former_states
from umec_attest.agent.loop import Agent
from umec_attest.agent.state import NodeState, load_state
from umec_attest.service.errors import BootLogRequired
from umec_core.clock import system_clock
from umec_core.errors import Forbidden
from umec_core.remote import RemoteRefused

NODE = "kerb-7"


def ak(scene: Any) -> bytes:
    return load_state(scene.state).ak.public


async def good_round(agent: Agent) -> None:
    assert (await agent.attest()).verdict == "affirming"
    await agent.renew()
    await agent.token("https://a/", "node:host")


async def refused_round(agent: Agent) -> str:
    with pytest.raises(RemoteRefused) as refused:
        await agent.attest()
    return refused.value.code


def kept(scene: Any) -> list[NodeState]:
    return former_states(scene.state, load_state(scene.state), system_clock())


def test_a_node_goes_back_to_the_keys_that_a_restored_database_knows(scene: Any) -> None:
    async def restored(agent: Agent) -> None:
        await good_round(agent)
        backup, first = dict(scene.standin.nodes), load_state(scene.state)
        await agent.rotate()
        await good_round(agent)
        await agent.rotate()
        await good_round(agent)
        newest, last = dict(scene.standin.nodes), load_state(scene.state)
        scene.standin.nodes.update(backup)
        scene.standin.faults["evidence"] = []
        await good_round(agent)
        assert load_state(scene.state) == first
        assert scene.lines[-2]["event"] == "round"
        line = next(line for line in scene.lines if line["event"] == "keys-restored")
        assert line["ak_name"] == first.ak.name.hex()
        assert stat.S_IMODE((scene.state / "former-keys.json").stat().st_mode) == 0o600
        scene.standin.asked.clear()
        await good_round(agent)
        assert scene.standin.asked.count("challenges") == 1  # it stays with them
        scene.standin.nodes.update(newest)  # the first database again
        await good_round(agent)
        assert ak(scene) == last.ak.public
        await agent.rotate()
        await good_round(agent)

    scene.play(restored)
    scene.play(good_round)
    assert len(kept(scene)) == 3


def test_what_the_verifier_asks_for_of_former_keys_it_gets(scene: Any) -> None:
    async def restored(agent: Agent) -> None:
        await good_round(agent)
        backup, first = dict(scene.standin.nodes), ak(scene)
        await agent.rotate()
        scene.standin.nodes.update(backup)
        real, asked = scene.standin._fault, []

        def fault(path: str) -> Any:
            asked.append(path)
            if asked.count("evidence") == 2 and path == "evidence":
                raise BootLogRequired("another boot than the one that is known")
            return real(path)

        scene.standin._fault = fault
        await agent.attest()
        assert ak(scene) == first
        assert asked.count("evidence") == 4

    scene.play(restored)


def test_keys_that_were_replaced_too_long_ago_are_tried_no_more(scene: Any) -> None:
    offset = timedelta(0)

    async def restored(agent: Agent) -> None:
        nonlocal offset
        await good_round(agent)
        backup = dict(scene.standin.nodes)
        await agent.rotate()
        present = ak(scene)
        scene.standin.nodes.update(backup)
        offset = timedelta(days=30, minutes=1)
        assert await refused_round(agent) == "quote-signer-mismatch"
        assert ak(scene) == present
        offset = timedelta(days=29)
        assert (await agent.attest()).verdict == "affirming"
        assert ak(scene) != present

    scene.play(restored, clock=lambda: system_clock() + offset)


def test_a_verifier_that_knows_none_of_the_keys_or_refuses_otherwise_changes_none(scene: Any) -> None:
    async def refused(agent: Agent) -> None:
        await good_round(agent)
        backup = dict(scene.standin.nodes)
        await agent.rotate()
        present, known = ak(scene), dict(scene.standin.nodes)
        scene.standin.nodes[NODE] = {**known[NODE], "ak": known[NODE]["node_key"]}
        scene.standin.asked.clear()
        assert await refused_round(agent) == "quote-signer-mismatch"
        assert scene.standin.asked.count("evidence") == 2
        scene.standin.nodes.update(backup)
        scene.standin.faults["evidence"] = [Forbidden("for whatever reason")]
        assert await refused_round(agent) == "forbidden"
        assert ak(scene) == present
        await good_round(agent)
        assert ak(scene) != present

    scene.play(refused)


def test_the_oldest_go_when_there_are_too_many(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(former_keys, "MOST", 2)
    had = []

    async def rotating(agent: Agent) -> None:
        await good_round(agent)
        for _ in range(3):
            had.append(ak(scene))
            await agent.rotate()

    scene.play(rotating)
    assert [state.ak.public for state in kept(scene)] == [had[2], had[1]]


def test_a_file_that_holds_no_keys_is_said(scene: Any) -> None:
    async def rotating(agent: Agent) -> None:
        await good_round(agent)
        await agent.rotate()

    scene.play(rotating)
    path = scene.state / "former-keys.json"
    good = json.loads(path.read_text())
    one = good["former"][0]
    for fault in (
        {**good, "format": 2},
        {**good, "more": 1},
        {**good, "former": [{**one, "more": 1}]},
        {**good, "former": [{**one, "until": "yesterday"}]},
        {**good, "former": [{**one, "ak": {**one["ak"], "private": ""}}]},
    ):
        path.write_text(json.dumps(fault))
        with pytest.raises(AgentStateInvalid) as refused:
            kept(scene)
        assert refused.value.code == "agent-state-invalid"
    path.write_text(json.dumps(good))
    assert len(kept(scene)) == 1
