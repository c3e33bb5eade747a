"""A challenge from before a change of policy, or of what is asked for: its answer counts no more, the next one does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_attest.policy_bundle import sign_policy_bundle
from umec_policies import PolicySet, load_default


def same(_: Path) -> dict[str, Any]:
    return {}


def other_pcrs(_: Path) -> dict[str, Any]:
    return {"pcrs": (0, 2, 4, 7, 11)}


def other_policy(folder: Path) -> dict[str, Any]:
    """The default policy with one rule more."""
    default = load_default("appraisal")
    changed = PolicySet(
        f'{default.policies_text}\n@id("one-more") forbid (principal, action, resource) when {{ false }};',
        default.schema_text,
    )
    key = generate_private_key(SECP256R1())
    signer, bundle = folder / "policies.pem", folder / "policies.dsse"
    signer.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    bundle.write_bytes(sign_policy_bundle(changed, version=1, key=key))
    return {"signed_policies": bundle, "policy_signers": (signer,)}


@pytest.mark.parametrize(
    ("change", "code"), [(same, None), (other_pcrs, "nonce-superseded"), (other_policy, "nonce-superseded")]
)
def test_a_nonce_of_before_a_change_is_refused(
    reopen: Any,
    tpms: Any,
    clock: Any,
    tmp_path: Path,
    change: Callable[[Path], dict[str, Any]],
    code: str | None,
) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.ready_node(booted)
                evidence = booted.evidence(await world.challenge())
            async with reopen(clock, **change(tmp_path)) as world:
                answer = await world.post("evidence", evidence, status=200 if code is None else 409)
                assert answer.get("code") == code
                assert (await world.get("nodes/node-1"))["standing"] == "trusted"
                assert "verdict" in await world.round(booted)

    asyncio.run(body())
