"""Signed policies at a verifier: an older bundle is refused at its start, and so is going back to unsigned ones."""

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.policy_bundle import sign_policy_bundle
from umec_core.errors import UmecError
from umec_policies import PolicySet, load_default

DEFAULT = load_default("appraisal")
NOBODY = PolicySet('@id("nobody") forbid (principal, action, resource);', DEFAULT.schema_text)


@pytest.fixture
def key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


@pytest.fixture
def named(tmp_path: Any, key: EllipticCurvePrivateKey) -> Any:
    """The settings that name a bundle of a version, signed by the pinned key or by `by`."""
    signer = tmp_path / "policies.pem"
    signer.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def run(version: int, policies: PolicySet = DEFAULT, by: EllipticCurvePrivateKey = key) -> dict[str, Any]:
        file = tmp_path / f"policies-{version}.dsse"
        file.write_bytes(sign_policy_bundle(policies, version=version, key=by))
        return {"signed_policies": file, "policy_signers": (signer,)}

    return run


@pytest.fixture
def start(reopen: Any, clock: Any) -> Any:
    """Start a verifier with these settings and ask it something; returns "started", or why it did not start."""

    def run(settings: dict[str, Any]) -> str:
        async def body() -> str:
            try:
                async with reopen(clock, **settings) as world:
                    return "started" if await world.audited() is not None else "silent"
            except UmecError as error:
                return error.code

        return asyncio.run(body())

    return run


def test_an_older_signed_policy_is_refused(start: Any, named: Any) -> None:
    assert start(named(2)) == "started"
    assert start(named(2)) == "started"
    assert start(named(3)) == "started"
    assert start(named(2)) == "policy-bundle-rollback"
    assert start(named(3, NOBODY)) == "policy-bundle-rollback"
    assert start(named(3)) == "started"


def test_signed_policies_that_are_taken_away_are_missed(start: Any, named: Any) -> None:
    assert start({}) == "started"
    assert start(named(1)) == "started"
    assert start({}) == "policy-bundle-missing"
    assert start(named(1)) == "started"


def test_policies_that_nobody_signed_or_that_are_not_there(start: Any, named: Any, tmp_path: Any) -> None:
    assert start(named(1, by=generate_private_key(SECP256R1()))) == "policy-bundle-signature"
    assert start(named(1) | {"policy_signers": ()}) == "policy-bundle-signature"
    assert start(named(1) | {"signed_policies": tmp_path / "nowhere"}) == "trust-file-invalid"
    assert start({}) == "started"  # nothing of it was in use


def test_nodes_are_judged_by_them_and_the_log_says_which_were_loaded(
    reopen: Any, clock: Any, tpms: Any, named: Any
) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock, **named(1)) as world:
                assert (await world.ready_node(booted))["verdict"] == "affirming"
                log = await world.get("audit")
                loaded = [entry for entry in log["entries"] if entry["action"] == "policies.load"]
                assert [entry["facts"]["version"] for entry in loaded] == [1]
                assert loaded[0]["facts"]["policy_sha256"] == DEFAULT.digest
            async with reopen(clock, **named(2, NOBODY)) as world:
                assert (await world.round(booted))["verdict"] == "contraindicated"
            async with reopen(clock, **named(2, NOBODY)) as world:
                actions = [action for action, _, _ in await world.audited()]
                assert actions.count("policies.load") == 2

    asyncio.run(body())


def test_a_verifier_with_older_policies_than_another_decides_nothing(
    reopen: Any, clock: Any, tpms: Any, named: Any
) -> None:
    """Also one that began before the newer ones were signed, or before any were."""

    async def refused(world: Any, booted: Any) -> None:
        answer = await world.post("evidence", booted.evidence(await world.challenge()), status=409)
        assert answer["code"] == "evidence-stale"
        assert "restart" in answer["advice"]

    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as unsigned:
                assert (await unsigned.ready_node(booted))["standing"] == "trusted"
                async with reopen(clock, **named(1)) as first:
                    await refused(unsigned, booted)
                    assert (await first.round(booted))["standing"] == "trusted"
                    async with reopen(clock, **named(2)) as second, reopen(clock, **named(2)) as other:
                        await refused(first, booted)
                        for newest in (second, other):
                            assert (await newest.round(booted))["standing"] == "trusted"
                        assert (await second.get("nodes/node-1"))["rounds"] == 4

    asyncio.run(body())
