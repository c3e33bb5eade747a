"""A node takes other keys and stays the node that it is; everybody else who asks for that is refused."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from umec_attest.agent.tpm import Attested, WrappedKey
from umec_attest.testing.image import Tamper

NODE = "node-1"


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def said(made: Attested) -> dict[str, str]:
    return {"attest": text(made.attest), "signature": text(made.signature)}


@dataclass
class Rotation:
    """A rotation under way, by the node's own TPM; its parts can be exchanged for others."""

    world: Any
    node: Any
    ak: WrappedKey
    node_key: WrappedKey
    answer: dict[str, Any]
    secret: bytes

    @classmethod
    def make(cls, world: Any, node: Any) -> "Rotation":
        return cls(world, node, node.tpm.create_attestation_key(), node.tpm.create_node_key(), {}, b"")

    @property
    def names(self) -> dict[str, Any]:
        return {"node": NODE, "ak_public": text(self.ak.public), "node_key_public": text(self.node_key.public)}

    @property
    def qualifying(self) -> bytes:
        return hashlib.sha256(self.secret).digest()

    async def ask(self, *, status: int = 201, **changed: Any) -> dict[str, Any]:
        return dict(await self.world.post("rotations", {**self.names, **changed}, status=status))

    async def begin(self) -> "Rotation":
        self.answer = await self.ask()
        blob, secret = (base64.b64decode(self.answer[name]) for name in ("credential_blob", "encrypted_secret"))
        self.secret = self.node.tpm.activate_credential(self.ak, blob, secret)
        return self

    def proof(self, *, ak: WrappedKey | None = None, qualifying: bytes | None = None) -> dict[str, Any]:
        """What the TPM says; `ak` speaks in the place of the present one."""
        tpm, word = self.node.tpm, self.qualifying if qualifying is None else qualifying
        made = tpm.quote(self.ak, word, self.answer["pcrs"]["sha256"])
        return {
            **self.names,
            "permit": self.answer["permit"],
            "secret": text(self.secret),
            "ak_certified": said(tpm.certify(self.ak, ak or self.node.ak, word)),
            "node_key_certified": said(tpm.certify(self.node_key, self.ak, word)),
            "quoted": said(made.quote),
            "pcrs": {"sha256": {str(index): value.hex() for index, value in made.pcrs.items()}},
        }

    async def prove(self, *, status: int = 200, **changed: Any) -> dict[str, Any]:
        return dict(await self.world.post("rotations/proof", {**self.proof(), **changed}, status=status))

    def adopt(self) -> None:
        self.node.ak, self.node.node_key = self.ak, self.node_key


Body = Callable[[Any, Any, Rotation], Any]


@pytest.fixture
def rotating(run: Any, tpms: Any) -> Callable[[Body], None]:
    """Run a test with a trusted node and new keys in its TPM."""

    def runner(body: Body, **changes: Any) -> None:
        async def opened(world: Any) -> None:
            with tpms.booted() as booted:
                assert (await world.ready_node(booted))["standing"] == "trusted"
                await body(world, booted, Rotation.make(world, booted.node))

        run(opened, **changes)

    return runner


def test_a_node_takes_other_keys_and_what_was_bound_to_the_former_ends(rotating: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        before = await world.get(f"nodes/{NODE}")
        asked = await world.challenge()
        token = world.token("node:host", node=NODE, generation=before["generation"])
        former = booted.node.ak
        world.view.apply(await world.statement())
        await world.get("standings/own", headers=token)
        await rotation.begin()
        done = await rotation.prove()
        assert done == {"node": NODE, "standing": "trusted", "generation": before["generation"] + 1}
        after = await world.get(f"nodes/{NODE}")
        assert (after["standing"], after["deadline"]) == ("trusted", before["deadline"])
        assert (await world.statement(node=NODE)).entries[-1].generation == done["generation"]
        assert (await world.get("standings/own", headers=token, status=403))["code"] == "standing-fallen"
        world.view.apply(await world.statement())
        own = world.token("node:host", node=NODE, generation=done["generation"])
        await world.get("standings/own", headers=own)
        refused = await world.post("evidence", booted.evidence(asked), status=422)
        assert refused["code"] == "nonce-unknown"
        refused = await world.round(booted, status=422)  # a new challenge, by the former AK
        assert refused["code"] == "quote-signer-mismatch"
        rotation.adopt()
        result = await world.round(booted)
        assert (result["standing"], result["generation"]) == ("trusted", done["generation"])
        assert [entry for entry in await world.audited() if entry[0] == "node.rotate"] == [
            ("node.rotate", "done", None)
        ]
        [facts] = [e["facts"] for e in (await world.get("audit"))["entries"] if e["action"] == "node.rotate"]
        assert facts["former_ak_name"] == former.name.hex()
        assert facts["ak_name"] == rotation.ak.name.hex()
        assert facts["node_key_name"] == rotation.node_key.name.hex()
        assert facts["generation"] == done["generation"]

    rotating(body)


def test_a_reboot_after_a_rotation_is_no_alarm(rotating: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        await (await rotation.begin()).prove()
        rotation.adopt()
        assert (await world.round(booted))["verdict"] == "affirming"
        booted.reboot()
        refused = await world.round(booted, status=422)
        assert refused["code"] == "boot-log-required"
        result = await world.round(booted)
        assert (result["verdict"], result["standing"]) == ("affirming", "trusted")
        assert [finding["id"] for finding in result["findings"] if finding["id"].endswith("-fell")] == []

    rotating(body)


def test_what_had_its_effect_is_said_to_be_done(rotating: Any) -> None:
    async def body(world: Any, _booted: Any, rotation: Rotation) -> None:
        proof = (await rotation.begin()).proof()
        await world.post("rotations/proof", proof)
        generation = (await world.get(f"nodes/{NODE}"))["generation"]
        assert (await world.post("rotations/proof", proof, status=409))["code"] == "rotation-done"
        assert (await rotation.ask(status=409))["code"] == "rotation-done"
        await world.post(f"nodes/{NODE}/quarantine", {}, headers=world.admin)
        assert (await rotation.ask(status=409))["code"] == "rotation-done"  # who does not hear it loses its keys
        assert (await world.get(f"nodes/{NODE}"))["generation"] == generation + 1

    rotating(body)


def test_of_two_proofs_at_once_one_counts(rotating: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        first, second = await rotation.begin(), await Rotation.make(world, booted.node).begin()
        answers = await asyncio.gather(
            *(world.http.post("/attest/v1/rotations/proof", json=one.proof()) for one in (first, second))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        [lost] = [answer.json()["code"] for answer in answers if answer.status_code == 409]
        assert lost == "rotation-superseded"

    rotating(body)


def test_another_tpm_is_refused(rotating: Any, tpms: Any) -> None:
    async def body(world: Any, _booted: Any, rotation: Rotation) -> None:
        with tpms.booted("node-2", 1) as other:
            thief = Rotation.make(world, other.node)
            thief.answer = await thief.ask()
            thief.secret = bytes(32)  # its TPM cannot open what was sealed to the EK of another
            refused = await world.post("rotations/proof", thief.proof(), status=403)
            assert refused["code"] == "rotation-secret-mismatch"
            good = (await rotation.begin()).proof()
            own = thief.proof(ak=other.node.ak, qualifying=rotation.qualifying)
            for part in ("ak_certified", "node_key_certified", "quoted"):
                refused = await world.post("rotations/proof", {**good, part: own[part]}, status=422)
                assert refused["code"] in {"certify-name-mismatch", "quote-signer-mismatch"}
        await rotation.prove()

    rotating(body)


def test_each_statement_has_to_be_there_and_to_be_the_right_one(rotating: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        tpm, node = booted.node.tpm, booted.node
        await rotation.begin()
        word = rotation.qualifying
        good = rotation.proof()
        late = rotation.proof(qualifying=hashlib.sha256(b"another rotation").digest())
        quoted_by_former = tpm.quote(node.ak, word, rotation.answer["pcrs"]["sha256"])
        fewer = tpm.quote(rotation.ak, word, [0, 7])
        broken = {**good["ak_certified"], "signature": late["ak_certified"]["signature"]}
        values = dict(good["pcrs"]["sha256"])
        faults: list[tuple[dict[str, Any], str]] = [
            ({"ak_certified": said(tpm.certify(rotation.ak, rotation.ak, word))}, "certify-name-mismatch"),
            ({"ak_certified": said(tpm.certify(rotation.node_key, node.ak, word))}, "certify-name-mismatch"),
            ({"ak_certified": late["ak_certified"]}, "certify-nonce-mismatch"),
            ({"ak_certified": good["quoted"]}, "certify-type-mismatch"),
            ({"ak_certified": broken}, "signature-invalid"),
            ({"node_key_certified": said(tpm.certify(rotation.node_key, node.ak, word))}, "certify-name-mismatch"),
            ({"node_key_certified": said(tpm.certify(node.node_key, rotation.ak, word))}, "certify-name-mismatch"),
            ({"node_key_certified": late["node_key_certified"]}, "certify-nonce-mismatch"),
            ({"quoted": said(quoted_by_former.quote)}, "quote-signer-mismatch"),
            ({"quoted": late["quoted"]}, "quote-nonce-mismatch"),
            ({"quoted": good["ak_certified"]}, "quote-type-mismatch"),
            ({"quoted": said(fewer.quote)}, "pcr-selection-mismatch"),
            ({"pcrs": {"sha256": {**values, "7": "00" * 32}}}, "pcr-digest-mismatch"),
            ({"secret": text(bytes(32))}, "rotation-secret-mismatch"),
            ({"secret": text(b"")}, "rotation-secret-mismatch"),
        ]
        for fault, code in faults:
            answer = await world.http.post("/attest/v1/rotations/proof", json={**good, **fault})
            assert (answer.status_code, answer.json()["code"]) in {(422, code), (403, code)}, (fault, answer.text)
        for part in ("permit", "secret", "ak_certified", "node_key_certified", "quoted", "pcrs"):
            missing = {name: value for name, value in good.items() if name != part}
            assert (await world.post("rotations/proof", missing, status=400))["code"] == "invalid-input"
        assert (await world.get(f"nodes/{NODE}"))["generation"] == 2
        await world.post("rotations/proof", good)

    rotating(body)


def test_a_permit_is_for_one_node_and_its_keys_and_a_short_time(rotating: Any, tpms: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        good = (await rotation.begin()).proof()
        with tpms.booted("node-2", 1) as other:
            assert (await world.ready_node(other))["standing"] == "trusted"
            refused = await world.post("rotations/proof", {**good, "node": "node-2"}, status=422)
            assert refused["code"] == "rotation-unknown"
        token = base64.urlsafe_b64decode(good["permit"] + "==")
        flipped = base64.urlsafe_b64encode(token[:-1] + bytes([token[-1] ^ 1])).rstrip(b"=").decode()
        for permit in ("", "AAAA", "!", flipped):
            refused = await world.post("rotations/proof", {**good, "permit": permit}, status=422)
            assert refused["code"] == "rotation-unknown"
        others = {
            "ak_public": booted.node.tpm.create_attestation_key(),
            "node_key_public": booted.node.tpm.create_node_key(),
        }
        for name, key in others.items():
            refused = await world.post("rotations/proof", {**good, name: text(key.public)}, status=422)
            assert refused["code"] == "rotation-unknown"
        world.clock.advance(119.9)
        kept = world.clock.now
        world.clock.advance(0.1)
        assert (await world.post("rotations/proof", good, status=422))["code"] == "rotation-expired"
        world.clock.now = kept
        await world.post("rotations/proof", good)

    rotating(body, silent_rounds=100)


def test_a_permit_ends_with_the_generation(rotating: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        good = (await rotation.begin()).proof()
        await world.post(f"nodes/{NODE}/quarantine", {}, headers=world.admin)
        assert (await world.post("rotations/proof", good, status=403))["code"] == "rotation-not-standing"
        await world.post(f"nodes/{NODE}/readmit", {}, headers=world.admin)
        assert (await world.round(booted))["standing"] == "trusted"
        assert (await world.post("rotations/proof", good, status=409))["code"] == "rotation-superseded"
        await (await rotation.begin()).prove()

    rotating(body)


@pytest.mark.parametrize("act", ["quarantine", "revoke", "silence", "tamper", "pending"])
def test_only_a_node_that_stands_gets_other_keys(run: Any, tpms: Any, act: str) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            rotation = Rotation.make(world, booted.node)
            assert (await rotation.ask(status=404))["code"] == "node-unknown"
            if act == "pending":
                await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            else:
                await world.ready_node(booted)
                await rotation.ask()
            if act == "silence":
                await world.pass_time(100)
            elif act == "tamper":
                booted.tpm.power_cycle()
                booted.boot(Tamper.CMDLINE)
                await world.round(booted, status=422)
                assert (await world.round(booted))["standing"] == "untrusted"
            elif act != "pending":
                await world.post(f"nodes/{NODE}/{act}", {}, headers=world.admin)
            refused = await rotation.ask(status=403)
            assert refused["code"] == "rotation-not-standing"
            assert ("rotation.begin", "refused", "rotation-not-standing") in await world.audited()

    run(body)


def test_keys_have_to_be_new_and_of_their_kind(rotating: Any) -> None:
    async def body(_world: Any, booted: Any, rotation: Rotation) -> None:
        node = booted.node
        for changed, code in (
            ({"ak_public": text(node.ak.public)}, "rotation-key-reused"),
            ({"node_key_public": text(node.node_key.public)}, "rotation-key-reused"),
            ({"ak_public": text(rotation.node_key.public)}, "ak-attributes"),
            ({"node_key_public": text(rotation.ak.public)}, "node-key-attributes"),
        ):
            assert (await rotation.ask(status=422, **changed))["code"] == code
        await rotation.ask()

    rotating(body)


def test_what_happened_since_the_last_round_is_judged_first(rotating: Any) -> None:
    async def body(world: Any, booted: Any, rotation: Rotation) -> None:
        await rotation.begin()
        booted.reboot()
        refused = await rotation.prove(status=409)
        assert refused["code"] == "rotation-out-of-step"
        await world.round(booted, status=422)
        await world.round(booted)
        await rotation.prove()

    rotating(body)


def test_a_verifier_that_restarts_knows_its_own_permit(reopen: Any, tpms: Any, clock: Any) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.ready_node(booted)
                rotation = await Rotation.make(world, booted.node).begin()
            async with reopen(clock) as world:
                rotation.world = world
                await rotation.prove()

    asyncio.run(body())
