"""What a request presents at an API: the listener's own URL, one token, one proof."""

import asyncio
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends

from umec_core.dpop import make_proof
from umec_core.http import create_app, require
from umec_core.principal import Principal
from umec_core.tokens import TokenVerifier

BASE = "https://authority.test:8443"


def ask(world, url, *, proof_url=None, headers=(), scopes=("mec:app",), either=False):
    router = APIRouter()
    may = require(world.verifier, *scopes, either=either)

    @router.get("/platform/v1/{name}")
    async def show(name: str, who: Annotated[Principal, Depends(may)], x: int = 0) -> dict[str, str]:  # noqa: ARG001
        return {"client": who.client_id}

    async def asking():
        token = world.token()
        proof = make_proof(world.client_key, "GET", proof_url or url, now=world.now, access_token=token)
        shown = [("Authorization", f"DPoP {token}"), ("DPoP", proof), *headers]
        transport = httpx.ASGITransport(create_app("test", [router]))
        async with httpx.AsyncClient(transport=transport) as http:
            return await http.get(url, headers=shown)

    return asyncio.run(asking())


def test_a_proof_for_another_listener_is_refused_whatever_host_the_request_names(world):
    url = "https://elsewhere.test/platform/v1/tenants"
    answer = ask(world, url)
    assert (answer.status_code, answer.json()["code"]) == (401, "dpop-invalid")
    assert ask(world, url, proof_url=f"{BASE}/platform/v1/tenants").status_code == 200


@pytest.mark.parametrize("path", ["/platform/v1/tenants", "/platform/v1/a%20b", "/platform/v1/tenants?x=1"])
def test_a_proof_is_for_the_path_as_it_was_sent(world, path):
    assert ask(world, BASE + path).status_code == 200
    answer = ask(world, BASE + path, proof_url=f"{BASE}/platform/v1/other")
    assert (answer.status_code, answer.json()["code"]) == (401, "dpop-invalid")


@pytest.mark.parametrize("header", ["Authorization", "DPoP"])
def test_two_tokens_or_proofs_are_none(world, header):
    answer = ask(world, f"{BASE}/platform/v1/tenants", headers=[(header, "DPoP x")])
    assert (answer.status_code, answer.json()["code"]) == (401, "token-missing")


def test_one_of_several_scopes(world):
    url = f"{BASE}/platform/v1/tenants"
    answer = ask(world, url, scopes=("platform:admin", "mec:app"))
    assert (answer.status_code, answer.json()["code"]) == (403, "token-scope")
    assert ask(world, url, scopes=("platform:admin", "mec:app"), either=True).status_code == 200
    answer = ask(world, url, scopes=("platform:admin", "attest:admin"), either=True)
    assert (answer.status_code, answer.json()["code"]) == (403, "token-scope")


def test_a_verifier_whose_api_has_no_address_is_not_made(world):
    options = {"issuer": BASE, "keys": world.verifier._keys, "standings": None, "clock": lambda: world.now}
    with pytest.raises(ValueError, match="address"):
        TokenVerifier(audience="sigstore", **options)
    assert TokenVerifier(audience="sigstore", base=BASE, **options).base == BASE
    assert TokenVerifier(audience="https://mp1.test:8444/", **options).base == "https://mp1.test:8444"
