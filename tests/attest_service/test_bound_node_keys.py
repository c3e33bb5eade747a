"""Node keys and the owner of their image: what an enrolment, an approval by an operator and a rotation take."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.node_binding import owner_policy
from umec_attest.predict import predict
from umec_attest.reference import sign_reference_set
from umec_attest.tpm.algorithms import HashAlgorithm

OWNER = generate_private_key(SECP256R1()).public_key()
OTHER = generate_private_key(SECP256R1()).public_key()
NODE, IMAGE = "node-1", "edge-node"

Run = Callable[..., None]


async def publish(world: Any, signer: Any, version: int, owner: Any, *, days: int = 30) -> None:
    pcrs = {index: [value] for index, value in predict(world.tpms.image).pcrs.items()}
    envelope = sign_reference_set(
        name=IMAGE,
        subject_sha256="cd" * 32,
        version=version,
        issued=world.clock(),
        expires=world.clock() + timedelta(days=days),
        pcrs={HashAlgorithm.SHA256: pcrs},
        ignored={},
        owner=owner,
        key=signer,
    )
    answer = await world.http.post("/attest/v1/reference-sets", content=envelope, headers=world.admin)
    assert answer.status_code == 201, answer.text


@pytest.fixture
def signer(tmp_path: Any) -> Any:
    """Another pinned signer of reference sets: the world's own is not told to tests."""
    key = generate_private_key(SECP256R1())
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "second.pem").write_bytes(pem)
    return key


def take(node: Any, policy: bytes) -> None:
    """Give a node another node key, bound to this policy; to nothing where that is empty."""
    node.node_key = node.tpm.create_node_key(policy)


def bound_to(owner: Any = OWNER, image: str = IMAGE) -> bytes:
    return owner_policy(owner, image)


async def refused(world: Any, booted: Any, code: str) -> None:
    request = booted.node.enrolment(ticket=await world.ticket(booted.node))
    assert (await world.post("enrolments", request, status=422))["code"] == code


FAULTS = {
    "unbound": (b"", "node-key-unbound"),
    "another owner's": (bound_to(OTHER), "node-key-policy"),
    "of another image": (bound_to(image="other-node"), "node-key-policy"),
    "any": (b"\x01" * 32, "node-key-policy"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_an_image_has_an_owner_its_nodes_have_bound_keys(
    run: Run, tpms: Any, signer: Any, tmp_path: Any, fault: str
) -> None:
    policy, code = FAULTS[fault]

    async def body(world: Any) -> None:
        await publish(world, signer, 1, OWNER)
        with tpms.booted() as booted:
            take(booted.node, policy)
            await refused(world, booted, code)
            assert ("enrolment.begin", "refused", code) in await world.audited()
            take(booted.node, bound_to())
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            assert (await world.round(booted))["standing"] == "trusted"
            assert (await world.get(f"nodes/{NODE}"))["node_key_bound"]

    run(body, reference_signers=(tmp_path / "second.pem",))


def test_where_nobody_named_an_owner_keys_are_bound_to_nothing(run: Run, tpms: Any) -> None:
    async def body(world: Any) -> None:
        with tpms.booted() as booted:
            take(booted.node, bound_to())
            await refused(world, booted, "node-key-policy")  # there is no set at all
            await world.reference()
            await refused(world, booted, "node-key-policy")  # and one without an owner
            take(booted.node, b"")
            assert (await world.ready_node(booted))["standing"] == "trusted"
            assert not (await world.get(f"nodes/{NODE}"))["node_key_bound"]

    run(body)


def test_the_newest_set_says_who_the_owner_is_also_when_its_time_is_over(
    run: Run, tpms: Any, signer: Any, tmp_path: Any
) -> None:
    async def body(world: Any) -> None:
        await publish(world, signer, 1, OTHER)
        await publish(world, signer, 2, OWNER, days=1)
        world.clock.advance(3 * 86400)
        with tpms.booted() as booted:
            await refused(world, booted, "node-key-unbound")
            take(booted.node, bound_to(OTHER))
            await refused(world, booted, "node-key-policy")
            take(booted.node, bound_to())
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))

    run(body, reference_signers=(tmp_path / "second.pem",))


def test_an_operator_approves_no_key_that_the_owner_would_not_have(
    run: Run, tpms: Any, signer: Any, tmp_path: Any
) -> None:
    async def body(world: Any) -> None:
        await publish(world, signer, 1, OWNER)
        path, who = f"nodes/{NODE}/approve", world.admin
        whole = {"tenant": "acme", "image": IMAGE}
        with tpms.booted() as booted:
            assert not (await world.enrol(booted.node))["approved"]  # nobody has said yet which image it is
            assert (await world.post(path, whole, status=422, headers=who))["code"] == "node-key-unbound"
            assert ("node.approve", "refused", "node-key-unbound") in await world.audited()
            shown = await world.get(f"nodes/{NODE}")
            assert (shown["approved"], shown["image"]) == (False, None)
            take(booted.node, bound_to())
            await world.enrol(booted.node, ticket=await world.ticket(booted.node))
            assert (await world.round(booted))["standing"] == "trusted"
        with tpms.booted("node-2", 1) as other:
            take(other.node, bound_to())
            assert not (await world.enrol(other.node))["approved"]
            await world.post("nodes/node-2/approve", whole, headers=who)
            assert (await world.round(other))["standing"] == "trusted"

    run(body, reference_signers=(tmp_path / "second.pem",))


@pytest.mark.parametrize("decision", ["approve", "activate", "rotate"])
def test_an_owner_who_is_published_first_counts_first(
    run: Run, tpms: Any, signer: Any, tmp_path: Any, hand_in: Any, decision: str
) -> None:
    """Whatever takes a node key, takes it after the set that was handed in before, though both end together."""

    async def prepare(world: Any, booted: Any) -> tuple[str, Any]:
        if decision == "approve":
            await world.enrol(booted.node)
            return f"nodes/{NODE}/approve", {"tenant": "acme", "image": IMAGE}
        if decision == "activate":
            request = booted.node.enrolment(ticket=await world.ticket(booted.node))
            begun = await world.post("enrolments", request, status=201)
            return f"enrolments/{begun['enrolment']}/activation", await asyncio.to_thread(booted.node.activation, begun)
        await world.enrol(booted.node, ticket=await world.ticket(booted.node))
        assert (await world.round(booted))["standing"] == "trusted"
        rotation = Rotation(world, booted.node, b"")
        permit = await rotation.ask()
        return "rotations/proof", await asyncio.to_thread(rotation._proof, permit)

    async def body(world: Any) -> None:
        await publish(world, signer, 1, None)
        store = world.service._store
        with tpms.booted() as booted:
            path, proof = await prepare(world, booted)
            async with world.writer_held():
                publishing = asyncio.create_task(publish(world, signer, 2, OWNER))
                await hand_in(store, publishing)
                options = {"headers": world.admin} if decision == "approve" else {}
                deciding = asyncio.create_task(world.post(path, proof, status=422, **options))
                await hand_in(store, deciding)
            await publishing
            assert (await deciding)["code"] == "node-key-unbound"

    run(body, reference_signers=(tmp_path / "second.pem",))


@pytest.mark.parametrize("change", ["the word", "the image"])
def test_an_enrolment_ends_by_what_holds_at_its_end(
    run: Run, tpms: Any, signer: Any, tmp_path: Any, change: str
) -> None:
    """An image without owner when it began, and one with an owner when it ends."""

    async def allow(world: Any, booted: Any, image: str) -> None:
        path, word = f"/attest/v1/allowed-tpms/{booted.node.ek_sha256}", {"asset": NODE, "tenant": "acme"}
        answer = await world.http.put(path, json=word | {"image": image}, headers=world.admin)
        assert answer.status_code == 200, answer.text

    async def body(world: Any) -> None:
        before = "other-node" if change == "the word" else IMAGE
        await publish(world, signer, 1, OWNER if change == "the word" else None)
        with tpms.booted() as booted:
            for changed in (True, False):
                await allow(world, booted, before)
                begun = await world.post("enrolments", booted.node.enrolment(), status=201)
                if changed and change == "the word":
                    await allow(world, booted, IMAGE)
                elif changed:
                    await publish(world, signer, 2, OWNER)
                proof = await asyncio.to_thread(booted.node.activation, begun)
                path = f"enrolments/{begun['enrolment']}/activation"
                if changed:
                    assert (await world.post(path, proof, status=422))["code"] == "node-key-unbound"
                    assert ("enrolment.activate", "refused", "node-key-unbound") in await world.audited()
                    before = "other-node"
                else:
                    assert (await world.post(path, proof))["approved"]

    run(body, reference_signers=(tmp_path / "second.pem",))


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Rotation:
    """New keys for a node, and what its TPM says of them."""

    def __init__(self, world: Any, node: Any, policy: bytes) -> None:
        self.world, self.node = world, node
        self.ak, self.node_key = node.tpm.create_attestation_key(), node.tpm.create_node_key(policy)
        self.names = {
            "node": node.name,
            "ak_public": text(self.ak.public),
            "node_key_public": text(self.node_key.public),
        }

    async def ask(self, *, status: int = 201) -> dict[str, Any]:
        return dict(await self.world.post("rotations", self.names, status=status))

    async def prove(self, permit: dict[str, Any], *, status: int = 200) -> dict[str, Any]:
        body = await asyncio.to_thread(self._proof, permit)
        return dict(await self.world.post("rotations/proof", body, status=status))

    def _proof(self, permit: dict[str, Any]) -> dict[str, Any]:
        tpm = self.node.tpm
        blob, sealed = (base64.b64decode(permit[name]) for name in ("credential_blob", "encrypted_secret"))
        secret = tpm.activate_credential(self.ak, blob, sealed)
        word = hashlib.sha256(secret).digest()
        made = tpm.quote(self.ak, word, permit["pcrs"]["sha256"])
        statements = {
            "ak_certified": tpm.certify(self.ak, self.node.ak, word),
            "node_key_certified": tpm.certify(self.node_key, self.ak, word),
            "quoted": made.quote,
        }
        said = {
            name: {"attest": text(one.attest), "signature": text(one.signature)} for name, one in statements.items()
        }
        pcrs = {"sha256": {str(index): value.hex() for index, value in made.pcrs.items()}}
        return {**self.names, "permit": permit["permit"], "secret": text(secret), **said, "pcrs": pcrs}

    def adopt(self) -> None:
        self.node.ak, self.node.node_key = self.ak, self.node_key


def test_an_unbound_key_of_before_has_a_bound_successor_and_no_other(
    run: Run, tpms: Any, signer: Any, tmp_path: Any
) -> None:
    async def body(world: Any) -> None:
        await publish(world, signer, 1, None)
        with tpms.booted() as booted:
            assert (await world.ready_node(booted))["standing"] == "trusted"
            unbound = Rotation(world, booted.node, b"")
            permit = await unbound.ask()
            await publish(world, signer, 2, OWNER)
            assert (await unbound.prove(permit, status=422))["code"] == "node-key-unbound"
            assert (await unbound.ask(status=422))["code"] == "node-key-unbound"
            wrong = Rotation(world, booted.node, bound_to(OTHER))
            assert (await wrong.ask(status=422))["code"] == "node-key-policy"
            assert (await world.round(booted))["standing"] == "trusted"  # it goes on with the key that it has
            bound = Rotation(world, booted.node, bound_to())
            done = await bound.prove(await bound.ask())
            assert done["standing"] == "trusted"
            assert (await bound.ask(status=409))["code"] == "rotation-done"
            bound.adopt()
            assert (await world.round(booted))["standing"] == "trusted"
            assert (await world.get(f"nodes/{NODE}"))["node_key_bound"]
            rotated = [each for each in (await world.get("audit"))["entries"] if each["action"] == "node.rotate"]
            assert [each["facts"]["node_key_bound"] for each in rotated if each["outcome"] == "done"] == [True]

    run(body, reference_signers=(tmp_path / "second.pem",))


def test_keys_that_a_node_has_stay_though_the_owner_changed(run: Run, tpms: Any, signer: Any, tmp_path: Any) -> None:
    """An agent that did not hear of its rotation asks once more, and hears that it was done."""

    async def body(world: Any) -> None:
        await publish(world, signer, 1, None)
        with tpms.booted() as booted:
            assert (await world.ready_node(booted))["standing"] == "trusted"
            rotation = Rotation(world, booted.node, b"")
            await rotation.prove(await rotation.ask())
            await publish(world, signer, 2, OWNER)
            assert (await rotation.ask(status=409))["code"] == "rotation-done"

    run(body, reference_signers=(tmp_path / "second.pem",))
