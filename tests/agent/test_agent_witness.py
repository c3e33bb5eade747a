"""The agent keeps the verifier's checkpoints, and believes no verifier whose log does not go on from them."""

import asyncio
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from umec_attest.agent.enrol import enrol
from umec_attest.agent.errors import (
    AgentStateInvalid,
    LogDistrusted,
    LogInconsistent,
    LogKeyChanged,
    LogRefused,
    LogShrunk,
    NotAttested,
)
from umec_attest.agent.fields import FieldInvalid
from umec_attest.agent.loop import LOOK_EVERY, Agent
from umec_attest.agent.wire import ShownCheckpoint
from umec_attest.agent.witness import LogWitness, Refusal, SeenLog, next_seen, shown_log
from umec_core.client import RemoteUnavailable
from umec_core.errors import Unavailable
from umec_core.keys import KeyFileExposed, write_private
from umec_core.note import sign_checkpoint
from umec_core.remote import RemoteRefused
from umec_core.tree import EMPTY_ROOT, Tree
from umec_platform.cli.node import app

ORIGIN = "umec/attest"
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def spki(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def tree(*entries: str) -> Tree:
    grown = Tree()
    for entry in entries:
        grown.append(entry.encode())
    return grown


def shown(log: Tree, first: int = 0, *, key: Any = KEY, origin: str = ORIGIN, **changed: Any) -> ShownCheckpoint:
    proof = log.consistency(first) if 0 < first <= log.size else []
    said = {
        "origin": origin,
        "key": spki(key),
        "checkpoint": sign_checkpoint(origin, log.size, log.root(), key),
        "proof": tuple(proof),
    }
    return ShownCheckpoint(**(said | changed))


SEEN = next_seen(None, shown(tree("a", "b", "c")))


def test_a_log_that_grew_is_believed() -> None:
    grown = next_seen(SEEN, shown(tree("a", "b", "c", "d", "e"), 3))
    assert shown_log(grown) == {"origin": ORIGIN, "entries": 5, "root": tree("a", "b", "c", "d", "e").root().hex()}
    assert next_seen(grown, shown(tree("a", "b", "c", "d", "e"), 5)).verified().size == 5
    empty = next_seen(None, shown(tree()))
    assert empty.verified().root == EMPTY_ROOT
    assert next_seen(empty, shown(tree("x"))).verified().size == 1


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (shown(tree("a", "b")), LogShrunk),
        (shown(tree("a", "x", "c", "d"), 3), LogInconsistent),
        (shown(tree("a", "b", "x"), 3), LogInconsistent),
        (shown(tree("a", "b", "c", "d"), 2), LogInconsistent),
        (shown(tree("a", "b", "c", "d")), LogInconsistent),
        (shown(tree("a", "b", "c", "d"), 3, key=OTHER), LogKeyChanged),
        (shown(tree("a", "b", "c", "d"), 3, origin="umec/other"), LogKeyChanged),
        (shown(tree("a", "b", "c", "d"), 3, checkpoint="no note"), LogKeyChanged),
        (
            shown(
                tree("a", "b", "c", "d"),
                3,
                checkpoint=sign_checkpoint(ORIGIN, 4, tree("a", "b", "c", "d").root(), OTHER),
            ),
            LogKeyChanged,
        ),
    ],
    ids=["cut", "rewritten", "forked", "proof-of-another-size", "no-proof", "key", "origin", "no-note", "signature"],
)
def test_a_log_that_does_not_go_on_is_refused(said: ShownCheckpoint, error: type[LogRefused]) -> None:
    with pytest.raises(error) as refused:
        next_seen(SEEN, said)
    assert refused.value.code == error.code
    next_seen(SEEN, shown(tree("a", "b", "c", "d"), 3))


@pytest.mark.parametrize("key", [b"", b"\x30\x00", None], ids=["none", "broken", "of another kind"])
def test_a_first_log_without_a_good_key_is_refused(key: bytes | None) -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    note = SEEN.checkpoint if key is not None else sign_checkpoint(ORIGIN, 3, tree("a", "b", "c").root(), other)
    with pytest.raises(LogKeyChanged) as refused:
        next_seen(None, ShownCheckpoint(ORIGIN, spki(other) if key is None else key, note, ()))
    assert refused.value.code == "log-key-changed"
    assert next_seen(None, ShownCheckpoint(ORIGIN, spki(KEY), SEEN.checkpoint, ())) == SEEN


def test_what_was_seen_is_read_as_it_was_written() -> None:
    refused = SeenLog(SEEN.origin, SEEN.key, SEEN.checkpoint, Refusal("log-shrunk", "it was cut", NOW, "a note"))
    for seen in (SEEN, refused):
        assert SeenLog.from_json(seen.to_json()) == seen


@given(st.binary(max_size=200) | st.sampled_from([SEEN.to_json()[:-2], SEEN.to_json().replace(b'"key"', b'"keys"')]))
def test_any_bytes_are_a_memory_or_its_one_error(data: bytes) -> None:
    with pytest.raises(FieldInvalid):
        SeenLog.from_json(data)


def test_a_spoilt_memory_is_no_empty_one(tmp_path: Path) -> None:
    witness = LogWitness(tmp_path)
    assert witness.seen() is None
    witness.check()

    async def ask(_size: int) -> ShownCheckpoint:
        return shown(tree("a"))

    asyncio.run(witness.look(ask, NOW))
    path = tmp_path / "log.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    good = path.read_bytes()
    path.write_bytes(good[:-9])
    with pytest.raises(AgentStateInvalid) as refused:
        witness.check()
    assert refused.value.code == "agent-state-invalid"
    path.write_bytes(good)
    path.chmod(0o644)
    with pytest.raises(KeyFileExposed) as exposed:
        witness.check()
    assert exposed.value.code == "key-file-exposed"
    path.chmod(0o600)
    witness.check()


def test_what_was_refused_stays_refused(tmp_path: Path) -> None:
    witness = LogWitness(tmp_path)
    logs = [tree("a", "b"), tree("a"), tree("a", "b", "c")]

    async def ask(size: int) -> ShownCheckpoint:
        return shown(logs.pop(0), size)

    asyncio.run(witness.look(ask, NOW))
    with pytest.raises(LogShrunk) as shrunk:
        asyncio.run(witness.look(ask, NOW))
    assert shrunk.value.code == "log-shrunk"
    with pytest.raises(LogDistrusted) as refused:
        asyncio.run(witness.look(ask, NOW))
    assert refused.value.code == "log-distrusted"
    witness.forget()
    asyncio.run(witness.look(ask, NOW))


def test_an_operator_sees_what_a_node_saw_and_resets_it(tmp_path: Path) -> None:
    def said(*words: str, ends: int = 0) -> dict[str, Any]:
        ended = CliRunner().invoke(app, ["trust-log", "--state", str(tmp_path), "--json", *words])
        assert ended.exit_code == ends, ended.output
        return dict(json.loads(ended.stdout))

    path = tmp_path / "log.json"
    assert said() == {"seen": False}
    write_private(path, SEEN.to_json())
    assert said() == {"seen": True, "origin": ORIGIN, "entries": 3, "root": tree("a", "b", "c").root().hex()}
    refused = replace(SEEN, refusal=Refusal("log-shrunk", "it was cut", NOW, "a note"))
    write_private(path, refused.to_json())
    assert said(ends=1)["code"] == "log-distrusted"
    assert "log-shrunk" in said(ends=1)["detail"]
    assert said("--reset") == {"reset": True}
    assert said() == {"seen": False}


def test_the_log_is_known_from_the_enrolment_on(scene: Any) -> None:
    scene.standin.log.append(b"before")

    async def enrolled(agent: Agent) -> None:
        seen = LogWitness(scene.state).seen()
        assert seen is not None
        assert seen.verified().size == 1
        scene.standin.log_key = OTHER
        with pytest.raises(LogKeyChanged) as refused:
            await agent.attest()
        assert refused.value.code == "log-key-changed"

    scene.play(enrolled)


def test_an_enrolment_that_hears_no_checkpoint_counts_and_the_first_round_keeps_one(scene: Any) -> None:
    scene.standin.faults["checkpoint"] = [Unavailable("not now"), Unavailable("still not")]

    async def enrolled(agent: Agent) -> None:
        assert LogWitness(scene.state).seen() is None
        with pytest.raises(RemoteRefused) as refused:
            await agent.attest()
        assert refused.value.code == "unavailable"
        with pytest.raises(NotAttested):
            await agent.renew()  # without a look at the log, the result does not count
        await agent.attest()
        await agent.renew()
        assert LogWitness(scene.state).seen() is not None

    scene.play(enrolled)


@pytest.mark.parametrize("fault", ["rewritten", "cut", "forked"])
def test_a_verifier_whose_log_changed_is_believed_no_more_until_an_operator_resets_it(scene: Any, fault: str) -> None:
    good = scene.standin.log

    async def believing(agent: Agent) -> None:
        for _ in range(3):
            good.append(b"entry")
        await agent.attest()
        await agent.renew()
        await agent.token("https://a/", "node:host")
        size = good.size
        other = {"rewritten": size + 1, "cut": size - 2, "forked": size - 1}[fault]  # the round itself adds one
        scene.standin.log = tree(*(["entry"] * (size - 2) + ["another"] * 9)[:other])
        scene.standin.generation = 2  # so that there is a new result
        with pytest.raises(LogRefused) as refused:
            await agent.attest()
        assert refused.value.code == ("log-shrunk" if fault == "cut" else "log-inconsistent")
        with pytest.raises(NotAttested):
            await agent.token("https://a/", "node:host")

    async def restarted(agent: Agent) -> None:
        asked = len(scene.standin.asked)
        with pytest.raises(LogDistrusted) as refused:
            await agent.attest()
        assert refused.value.code == "log-distrusted"
        with pytest.raises(LogDistrusted):
            await agent.rotate()
        assert len(scene.standin.asked) == asked  # it is not even asked

        stop = asyncio.Event()
        working = asyncio.create_task(agent.run(stop))
        await scene.until(lambda line: line["event"] == "alarm" and line["code"] == "log-distrusted")
        LogWitness(scene.state).forget()
        await scene.until(lambda line: line["event"] == "certificate")
        stop.set()
        await working

    scene.play(believing)
    kept = LogWitness(scene.state).seen()
    assert kept is not None
    assert kept.refusal is not None
    assert kept.verified().size > 0  # both checkpoints are there, which proves it to anybody
    assert "umec/attest" in kept.refusal.checkpoint
    scene.play(restarted)


def test_the_log_is_looked_at_with_each_new_result_and_now_and_then(scene: Any) -> None:
    async def steady(agent: Agent) -> None:
        scene.standin.ear = (await agent.attest()).ear
        for _ in range(LOOK_EVERY - 1):
            await agent.attest()
        assert scene.standin.asked.count("checkpoint") == 2  # enrolment, first result
        await agent.attest()
        assert scene.standin.asked.count("checkpoint") == 3
        scene.standin.ear = None
        await agent.attest()
        assert scene.standin.asked.count("checkpoint") == 4

    scene.play(steady)


def test_a_new_enrolment_begins_a_new_memory(scene: Any) -> None:
    async def playing() -> None:
        async with scene.standin.running():
            await enrol(scene.plan(), scene.state)
            scene.standin.log, scene.standin.log_key = tree("other"), OTHER
            for name in ("next-keys.json", "former-keys.json"):
                (scene.state / name).write_text("of the former enrolment")
            await enrol(scene.plan(), scene.state, replace=True)
        assert not list(scene.state.glob("*-keys.json"))
        seen = LogWitness(scene.state).seen()
        assert seen is not None
        assert seen.key == spki(OTHER)
        with pytest.raises(RemoteUnavailable):
            await enrol(scene.plan(), scene.state, replace=True)  # nobody answers: nothing was forgotten
        assert LogWitness(scene.state).seen() == seen

    asyncio.run(playing())
