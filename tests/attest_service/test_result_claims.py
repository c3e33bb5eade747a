"""Results of a real verifier in the hands of the authorization server: for one audience, one node and a few minutes."""

import asyncio
import base64
import json
import sys
from datetime import timedelta
from typing import Any

from umec_attest.reference import PREDICATE_TYPE
from umec_core import dsse
from umec_core.errors import UmecError
from umec_core.jose import KeySet, verify_jwt
from umec_identity.authentication.attestation import verify_ear

MGMT = "https://edge.example:8443"
ISSUER = f"{MGMT}/attest/v1"
TYPE = "oauth-client-attestation+jwt"


def refusal(ear: str, keys: KeySet, now: Any, **changes: Any) -> str | None:
    """Why the authorization server refuses a result, or None."""
    try:
        verify_ear(ear, keys, **({"verifier": ISSUER, "audience": MGMT, "now": now} | changes))
    except UmecError as error:
        return error.code
    return None


def test_a_result_is_good_for_its_audience_until_it_expires_and_answers_its_challenge(
    reopen: Any, clock: Any, tpms: Any
) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.enrol(booted.node, ticket=await world.ticket(booted.node))
                await world.reference()
                challenge = await world.challenge()
                ear = (await world.post("evidence", booted.evidence(challenge)))["ear"]
                keys = KeySet.from_jwks((await world.http.get("/attest/v1/jwks")).json())
                claims = verify_jwt(ear, keys, typ=TYPE)
                nonce = base64.urlsafe_b64encode(base64.b64decode(challenge["nonce"])).rstrip(b"=").decode()
                assert claims["eat_nonce"] == nonce
                assert claims["exp"] - claims["iat"] == world.settings.result_seconds
                assert refusal(ear, keys, clock()) is None
                assert refusal(ear, keys, clock(), audience="https://elsewhere.example") == "attestation-invalid"
                assert refusal(ear, keys, clock(), verifier="https://elsewhere.example") == "attestation-invalid"
                late = clock() + timedelta(seconds=world.settings.result_seconds + 120)
                assert refusal(ear, keys, late) == "attestation-invalid"
                again = await world.challenge()
                later = (await world.post("evidence", booted.evidence(again)))["ear"]
                assert later == ear  # while nothing changes, the one that lives is given again

    asyncio.run(body())


def test_the_result_of_one_node_names_its_own_key_and_is_useless_for_another(
    reopen: Any, clock: Any, tpms: Any
) -> None:
    async def body() -> None:
        with tpms.booted() as booted, tpms.booted("node-2", 1) as other:
            async with reopen(clock) as world:
                mine, others = (await world.ready_node(booted))["ear"], (await world.ready_node(other))["ear"]
                keys = KeySet.from_jwks((await world.http.get("/attest/v1/jwks")).json())
                first, second = (
                    verify_ear(ear, keys, verifier=ISSUER, audience=MGMT, now=clock()) for ear in (mine, others)
                )
                assert (first.node, second.node) == ("node-1", "node-2")
                numbers = [ear.key.public_numbers() for ear in (first, second)]
                assert numbers[0] != numbers[1]
                head, _, signature = mine.split(".")
                stolen = ".".join((head, others.split(".")[1], signature))
                assert refusal(stolen, keys, clock()) == "attestation-invalid"

    asyncio.run(body())


def empty_set(signer: Any) -> bytes:
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "edge-node", "digest": {"sha256": "ab" * 32}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"version": 1, "issued": "2034-11-22T00:00:00Z", "expires": "2034-12-22T00:00:00Z", "pcrs": {}},
    }
    return dsse.sign(json.dumps(statement).encode(), dsse.IN_TOTO, signer)


def test_no_node_is_judged_by_a_reference_set_that_expects_nothing(reopen: Any, clock: Any, tpms: Any) -> None:
    async def body() -> None:
        with tpms.booted() as booted:
            async with reopen(clock) as world:
                await world.enrol(booted.node, ticket=await world.ticket(booted.node))
                signer = sys.modules[type(world).__module__].SIGNER  # whom this verifier pins
                answer = await world.http.post(
                    "/attest/v1/reference-sets", content=empty_set(signer), headers=world.admin
                )
                assert answer.json()["code"] == "reference-empty"
                challenge = await world.challenge()
                refused = await world.post("evidence", booted.evidence(challenge), status=503)
                assert refused["code"] == "reference-missing"
                assert (await world.get("nodes/node-1"))["standing"] == "pending"

    asyncio.run(body())
