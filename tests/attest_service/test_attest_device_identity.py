"""Enrolment with the identity that a device's maker gave it: IAK and IDevID in real software TPMs."""

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from umec_attest.agent.device_keys import DeviceKeys, prove_keys, show_keys
from umec_attest.testing.maker import DeviceMaker


@dataclass
class Device:
    """A node, and the keys that its maker put into its TPM."""

    booted: Any
    keys: DeviceKeys

    def request(self, *, ticket: str | None = None, certificate: bool = True, **changes: Any) -> dict[str, Any]:
        node = self.booted.node
        body = {**node.enrolment(ticket=ticket), **show_keys(node.tpm, self.keys), **changes}
        if not certificate:
            body = {name: value for name, value in body.items() if name not in {"ek_certificate", "ek_chain"}}
        return {name: value for name, value in body.items() if value is not None}

    def proof(self, begun: dict[str, Any], keys: DeviceKeys | None = None, **changes: Any) -> dict[str, Any]:
        node = self.booted.node
        body = node.activation(begun)
        qualifying = hashlib.sha256(base64.b64decode(body["secret"])).digest()
        proven = {**body, **prove_keys(node.tpm, keys or self.keys, node.ak, qualifying), **changes}
        return {name: value for name, value in proven.items() if value is not None}

    async def enrol(self, world: Any, *, status: int = 200, **changes: Any) -> dict[str, Any]:
        begun = await world.post("enrolments", self.request(**changes), status=201)
        body = await asyncio.to_thread(self.proof, begun)
        return dict(await world.post(f"enrolments/{begun['enrolment']}/activation", body, status=status))


@pytest.fixture(scope="module")
def maker() -> DeviceMaker:
    return DeviceMaker()


@pytest.fixture
def device(tpms: Any, maker: DeviceMaker) -> Callable[..., Any]:
    @contextlib.contextmanager
    def made(name: str = "node-1", index: int = 0, serial: str = "box-1") -> Iterator[Device]:
        with tpms.booted(name, index) as booted:
            yield Device(booted, maker.provision(booted.tpm, serial))

    return made


@pytest.fixture
def trusting(run: Callable[..., None], maker: DeviceMaker, tmp_path: Path) -> Callable[..., None]:
    """Run a test with a service that believes the maker."""

    def runner(body: Callable[[Any], Awaitable[None]], **changes: Any) -> None:
        roots = tmp_path / "devices"
        roots.mkdir()
        (roots / "maker.pem").write_bytes(maker.root_pem)
        run(body, **{"device_roots": roots, **changes})

    return runner


async def facts_of(world: Any) -> dict[str, Any]:
    entries = (await world.get("audit"))["entries"]
    return dict([entry for entry in entries if entry["action"] == "node.enrol"][-1]["facts"])


def test_a_device_whose_maker_is_known_enrols(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device() as box:
            ticket = await world.ticket(box.booted.node)
            assert (await box.enrol(world, ticket=ticket))["approved"]
            facts = await facts_of(world)
            assert (facts["endorsed_by"], facts["device"]) == ("certificate", "box-1")
            assert facts["tpm"].startswith("id:00001014 swtpm ")
            assert len(facts["iak_sha256"]) == len(facts["idevid_sha256"]) == 64
            await world.reference()
            assert (await world.round(box.booted))["standing"] == "trusted"

    trusting(body)


def test_the_maker_of_the_device_vouches_for_a_tpm_without_certificate(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device() as box:
            alone = box.request(certificate=False, iak=None, idevid=None)
            assert (await world.post("enrolments", alone, status=422))["code"] == "ek-trust-missing"
            assert not (await box.enrol(world, certificate=False))["approved"]
            assert (await facts_of(world))["endorsed_by"] == "device-identity"

    trusting(body)


def test_a_maker_that_nobody_configured_vouches_for_nothing(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device() as box:
            for certificate in (True, False):
                refused = await world.post("enrolments", box.request(certificate=certificate), status=422)
                assert refused["code"] == "device-certificate-path"
            await world.post("enrolments", box.request(iak=None, idevid=None), status=201)

    trusting(body, device_roots=None)


def test_an_idevid_comes_with_its_iak(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device() as box:
            assert (await world.post("enrolments", box.request(iak=None), status=400))["code"] == "invalid-input"
            await world.post("enrolments", box.request(idevid=None), status=201)

    trusting(body)


def test_the_iak_certifies_exactly_what_was_shown(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device() as box:

            async def tried(shown: dict[str, Any], proven: dict[str, Any], status: int) -> str | None:
                begun = await world.post("enrolments", box.request(**shown), status=201)
                proof = await asyncio.to_thread(lambda: box.proof(begun, **proven))
                answer = await world.post(f"enrolments/{begun['enrolment']}/activation", proof, status=status)
                return answer.get("code")

            missing: list[tuple[dict[str, Any], dict[str, Any]]] = [
                ({}, {"iak_certifies_ak": None}),
                ({}, {"iak_certifies_idevid": None}),
                ({}, {"iak_certifies_ak": None, "iak_certifies_idevid": None}),
                ({"idevid": None}, {}),
                ({"iak": None, "idevid": None}, {}),
            ]
            for shown, proven in missing:
                assert await tried(shown, proven, 422) == "device-proof-mismatch"
            swapped = DeviceKeys(box.keys.iak, box.keys.iak)
            assert await tried({}, {"keys": swapped}, 422) == "certify-name-mismatch"
            other = DeviceKeys(box.keys.idevid, box.keys.idevid)
            assert await tried({}, {"keys": other}, 422) == "certify-name-mismatch"
            begun = await world.post("enrolments", box.request(), status=201)
            before = await asyncio.to_thread(box.proof, begun)
            for name in ("iak_certifies_ak", "iak_certifies_idevid"):  # of an earlier enrolment, each by itself
                assert await tried({}, {name: before[name]}, 422) == "certify-nonce-mismatch"
            assert await tried({}, {}, 200) is None

    trusting(body)


def test_an_iak_of_another_tpm_vouches_for_nothing_here(trusting: Any, device: Any) -> None:
    """Somebody shows the identity of a device that they have elsewhere, for a TPM that has none."""

    async def body(world: Any) -> None:
        with device(serial="box-1") as genuine, device("node-2", 1, "box-2") as other:
            shown = show_keys(genuine.booted.node.tpm, genuine.keys)
            begun = await world.post("enrolments", other.request(certificate=False, **shown), status=201)
            proof = await asyncio.to_thread(other.proof, begun)
            path = f"enrolments/{begun['enrolment']}/activation"
            assert (await world.post(path, proof, status=422))["code"] == "certify-name-mismatch"
            assert (await world.post("challenges", {"node": "node-2"}, status=404))["code"] == "node-unknown"

    trusting(body)


def test_a_node_keeps_the_identity_of_its_device(trusting: Any, device: Any, maker: DeviceMaker) -> None:
    """Another IAK or IDevID, or none where there was one, is another device: whatever ticket it has."""

    async def body(world: Any) -> None:
        with device() as box:
            node = box.booted.node
            await box.enrol(world, ticket=await world.ticket(node))
            mine = box.request()
            anew = Device(box.booted, maker.provision(box.booted.tpm, "box-1")).request()
            for wrong in (
                {"iak": None, "idevid": None},
                {"idevid": None},
                {"iak": anew["iak"], "idevid": mine["idevid"]},
                {"iak": mine["iak"], "idevid": anew["idevid"]},
            ):
                request = {**mine, **wrong, "ticket": await world.ticket(node)}
                request = {name: value for name, value in request.items() if value is not None}
                assert (await world.post("enrolments", request, status=409))["code"] == "node-other-device"
            await world.post("enrolments", {**mine, "ticket": await world.ticket(node)}, status=201)

    trusting(body)


def test_one_device_is_one_node(trusting: Any, device: Any) -> None:
    """Neither its IAK nor its IDevID enrols under another name, in another TPM."""

    async def body(world: Any) -> None:
        with device() as box, device("node-2", 1) as other:
            await box.enrol(world)
            taken, own = box.request(), other.request()
            for wrong in ({"iak": taken["iak"]}, {"idevid": taken["idevid"]}):
                refused = await world.post("enrolments", {**own, **wrong}, status=409)
                assert refused["code"] == "device-enrolled-elsewhere"
            await other.enrol(world)

    trusting(body)


def test_a_node_may_show_the_identity_of_its_device_later(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device() as box:
            await world.enrol(box.booted.node, ticket=await world.ticket(box.booted.node))
            assert (await box.enrol(world, ticket=await world.ticket(box.booted.node)))["approved"]
            bare = box.booted.node.enrolment(ticket=await world.ticket(box.booted.node))
            assert (await world.post("enrolments", bare, status=409))["code"] == "node-other-device"

    trusting(body)


def test_the_name_that_a_stranger_asked_for_is_free_for_another_device(trusting: Any, device: Any) -> None:
    async def body(world: Any) -> None:
        with device("node-1", 1, "box-2") as stranger, device() as box:
            await stranger.enrol(world)
            assert (await box.enrol(world, ticket=await world.ticket(box.booted.node)))["approved"]
            assert (await facts_of(world))["device"] == "box-1"

    trusting(body)
