"""Access tokens at an API: the negative matrix, and the same call without its one fault."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_core.clock import Clock
from umec_core.dpop import ReplayCache, make_proof
from umec_core.errors import UmecError
from umec_core.jose import KeySet, sign_jwt, thumbprint
from umec_core.principal import Principal
from umec_core.standing import Standing
from umec_core.tokens import KeysUnavailable, Presented, RemoteKeys, StaticKeys, TokenVerifier, certificate_thumbprint


def verify(world, presented: Presented) -> Principal:
    return asyncio.run(world.verifier.verify(presented))


def refused(world, code: str, presented: Presented) -> None:
    with pytest.raises(UmecError) as caught:
        verify(world, presented)
    assert caught.value.code == code


def test_the_good_one_and_what_it_says(world):
    who = verify(world, world.presented(world.token()))
    assert (who.subject, who.client_id, who.tenant, who.instance) == ("app-1", "app-1", "transit", "app-1")
    assert who.scopes == {"mec:app", "mec:dns"}
    assert (who.node, who.generation, who.binding, who.jti) == (None, None, "dpop", "j-1")
    who.require("mec:app")


def test_a_scope_that_is_missing(world):
    who = verify(world, world.presented(world.token()))
    with pytest.raises(UmecError) as caught:
        who.require("mec:app", "platform:admin")
    assert caught.value.code == "token-scope"
    assert "platform:admin" in caught.value.detail


@pytest.mark.parametrize("changes", [{"scheme": None}, {"token": None}, {"scheme": "Basic"}])
def test_nobody(world, changes):
    refused(world, "token-missing", replace(world.presented(world.token()), **changes))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://elsewhere.test"}, "token-invalid"),
        ({"iss": ...}, "token-invalid"),
        ({"aud": "https://elsewhere.test"}, "token-audience"),
        ({"aud": ["https://authority.test:8443/platform/v1"]}, "token-audience"),
        ({"aud": ["https://authority.test:8443/platform/v1", "x"]}, "token-audience"),
        ({"aud": ...}, "token-audience"),
        ({"sub": ...}, "token-invalid"),
        ({"sub": ""}, "token-invalid"),
        ({"client_id": ...}, "token-invalid"),
        ({"client_id": 7}, "token-invalid"),
        ({"jti": ...}, "token-invalid"),
        ({"iat": ...}, "token-invalid"),
        ({"exp": ...}, "token-invalid"),
        ({"exp": 2**39}, "token-expired"),
        ({"exp": 1}, "token-expired"),
        ({"iat": 2**39}, "token-expired"),
        ({"nbf": 2**39}, "token-expired"),
        ({"scope": ["mec:app"]}, "token-invalid"),
        ({"tenant": 5}, "token-invalid"),
        ({"node": "lamp-7"}, "token-invalid"),
        ({"generation": 5}, "token-invalid"),
        ({"node": ""}, "token-invalid"),
        ({"node": "", "generation": 5}, "token-invalid"),
        ({"tenant": ""}, "token-invalid"),
        ({"instance": ""}, "token-invalid"),
        ({"scope": ""}, "token-invalid"),
        ({"node": "lamp-7", "generation": True}, "token-invalid"),
        ({"node": "lamp-7", "generation": "5"}, "token-invalid"),
        ({"cnf": {}}, "token-invalid"),
        ({"cnf": {"kid": "x"}}, "token-invalid"),
        ({"cnf": {"jkt": "x", "x5t#S256": "y"}}, "token-invalid"),
        ({"cnf": "x"}, "token-invalid"),
        ({"cnf": ...}, "token-binding"),
        ({"cnf": None}, "token-binding"),
    ],
)
def test_claims(world, changes, code):
    refused(world, code, world.presented(world.token(**changes)))
    verify(world, world.presented(world.token()))


def test_other_kinds_of_tokens_and_other_keys(world):
    refused(world, "token-invalid", world.presented(world.token(typ="JWT")))
    refused(world, "token-invalid", world.presented(world.token(key=world.client_key)))
    refused(world, "token-invalid", world.presented("nonsense"))
    refused(world, "token-invalid", world.presented("A" * 9000))
    refused(world, "token-invalid", world.presented(world.token(padding="A" * 8000)))
    verify(world, world.presented(world.token(padding="A" * 800)))


def test_a_token_ends_also_when_it_is_remembered(world):
    token = world.token()
    verify(world, world.presented(token))
    world.later(seconds=299)
    verify(world, world.presented(token))
    world.later(seconds=1)
    refused(world, "token-expired", world.presented(token))


def test_a_stolen_token(world):
    token = world.token()
    thief = type(world)().client_key
    refused(world, "token-binding", world.presented(token, key=thief))
    refused(world, "token-binding", world.presented(token, proof=None))
    refused(world, "token-binding", world.presented(token, scheme="Bearer"))
    refused(world, "token-binding", world.presented(token, scheme="Bearer", proof=None))
    refused(world, "dpop-invalid", world.presented(token, proof="nonsense"))
    refused(world, "dpop-invalid", world.presented(token, method="DELETE"))
    refused(world, "dpop-invalid", world.presented(token, proof=world.presented(world.token(jti="j-2")).proof))
    verify(world, world.presented(token))


def test_a_replayed_proof(world):
    presented = world.presented(world.token())
    verify(world, presented)
    refused(world, "dpop-replayed", presented)
    verify(world, world.presented(presented.token))


def test_a_thief_without_the_key_fills_no_cache(world):
    token, thief = world.token(), type(world)().client_key
    world.verifier = TokenVerifier(
        issuer=world.claims()["iss"],
        audience=world.verifier.audience,
        keys=StaticKeys(KeySet([world.token_key.public_key()])),
        standings=None,
        clock=lambda: world.now,
        replay=ReplayCache(limit=1),
    )
    for _ in range(3):
        refused(world, "token-binding", world.presented(token, key=thief))
    verify(world, world.presented(token))


def test_certificate_bound_tokens(world):
    token = world.token(cnf={"x5t#S256": certificate_thumbprint(b"der")})
    good = world.presented(token, scheme="Bearer", proof=None, client_certificate=b"der")
    refused(world, "token-binding", replace(good, client_certificate=None))
    refused(world, "token-binding", replace(good, client_certificate=b"another"))
    refused(world, "token-binding", replace(good, scheme="DPoP"))
    assert verify(world, good).binding == "mtls"


def test_bearer_only_by_explicit_permission(world):
    good = world.presented(world.token(cnf=...), scheme="Bearer", proof=None)
    refused(world, "token-binding", good)
    world.allow_bearer = True
    assert verify(world, good).binding == "bearer"
    refused(world, "token-binding", replace(good, scheme="DPoP"))


def test_node_bound_tokens_follow_the_standing(world, statement):
    token = world.token(node="lamp-7", generation=3)
    refused(world, "standing-stale", world.presented(token))
    world.view.apply(statement((1, "lamp-7", Standing.TRUSTED, 3)))
    assert verify(world, world.presented(token)).node == "lamp-7"
    refused(world, "standing-fallen", world.presented(world.token(node="lamp-7", generation=2, jti="old")))
    refused(world, "standing-fallen", world.presented(world.token(node="lamp-7", generation=4, jti="new")))
    refused(world, "standing-fallen", world.presented(world.token(node="lamp-8", generation=3, jti="other")))
    world.later(seconds=11)
    refused(world, "standing-stale", world.presented(token))
    world.view.apply(statement(after=1, at=world.now))
    verify(world, world.presented(token))
    world.view.apply(statement((2, "lamp-7", Standing.UNTRUSTED, 4), after=1, at=world.now))
    refused(world, "standing-fallen", world.presented(token))
    world.view.apply(statement((3, "lamp-7", Standing.TRUSTED, 5), after=2, at=world.now))
    refused(world, "standing-fallen", world.presented(token))
    verify(world, world.presented(world.token(node="lamp-7", generation=5, jti="next")))


def test_an_api_without_a_view_refuses_node_bound_tokens(world):
    world.verifier = TokenVerifier(
        issuer=world.claims()["iss"],
        audience=world.verifier.audience,
        keys=StaticKeys(KeySet([world.token_key.public_key()])),
        standings=None,
        clock=lambda: world.now,
    )
    refused(world, "standing-stale", world.presented(world.token(node="lamp-7", generation=3)))
    verify(world, world.presented(world.token()))


def test_a_revoked_token(world):
    denied: set[str] = set()
    world.verifier = TokenVerifier(
        issuer=world.claims()["iss"],
        audience=world.verifier.audience,
        keys=StaticKeys(KeySet([world.token_key.public_key()])),
        standings=None,
        clock=lambda: world.now,
        denied=lambda claims: claims["jti"] in denied,
    )
    token = world.token()
    verify(world, world.presented(token))
    denied.add("j-1")
    refused(world, "token-revoked", world.presented(token))


def test_a_verifier_without_issuer_or_audience_is_not_made(world):
    for issuer, audience in (("", "a"), ("i", "")):
        with pytest.raises(ValueError, match="issuer"):
            TokenVerifier(
                issuer=issuer, audience=audience, keys=world.verifier._keys, standings=None, clock=lambda: world.now
            )


@pytest.mark.parametrize("audience", ["mec", "urn:mec", "//site.test/mec"])
def test_an_audience_that_is_no_url_needs_a_base(world, audience):
    def make(**changes):
        keys = world.verifier._keys
        return TokenVerifier(
            issuer="i", audience=audience, keys=keys, standings=None, clock=lambda: world.now, **changes
        )

    with pytest.raises(ValueError, match="address"):
        make()
    assert make(base="https://site.test/").base == "https://site.test"


class Keys:
    """A key set behind a URL: what it serves, and how often it was asked."""

    def __init__(self) -> None:
        self.served: list = []
        self.asked = 0

    async def __call__(self, url: str, *, limit: int) -> bytes:  # noqa: ARG002
        self.asked += 1
        if not self.served:
            raise KeysUnavailable("down")
        return json.dumps(KeySet([key.public_key() for key in self.served]).jwks()).encode()


def test_remote_keys(world):
    clock: Clock = lambda: world.now  # noqa: E731
    remote, first, second = Keys(), world.token_key, world.client_key
    keys = RemoteKeys("https://authority.test/jwks", remote, clock=clock)

    async def scenario() -> None:
        with pytest.raises(KeysUnavailable) as caught:
            await keys.keys(None)
        assert caught.value.code == "keys-unavailable"
        remote.served = [first]
        assert thumbprint(first) in await keys.keys(thumbprint(first))
        assert remote.asked == 2
        for made_up in range(50):
            await keys.keys(f"k{made_up}")
        assert remote.asked == 2, "made-up identifiers must not drive us to ask"
        world.later(seconds=10)
        remote.served = [first, second]
        assert thumbprint(second) in await keys.keys(thumbprint(second))
        assert remote.asked == 3
        world.now += timedelta(minutes=6)
        remote.served = []
        with pytest.raises(KeysUnavailable):
            await keys.keys(thumbprint(first))

    asyncio.run(scenario())


@given(st.binary(max_size=60), st.text(max_size=60))
def test_anything_presented_is_a_principal_or_one_refusal(steady, raw, text):
    from_text = Presented(scheme="DPoP", token=text, proof=raw.decode("latin-1"), method="GET", url=text)
    with pytest.raises(UmecError) as caught:
        verify(steady, from_text)
    assert caught.value.code == "token-invalid"


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "client_id", "jti", "iat", "exp", "scope", "cnf", "node", "generation"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.lists(st.text(max_size=5), max_size=2),
    )
)
def test_any_signed_claims_are_a_principal_or_one_refusal(steady, changes):
    token = sign_jwt({**steady.claims(), **changes}, steady.token_key, typ="at+jwt")
    proof = make_proof(steady.client_key, "GET", steady.url, now=steady.now, access_token=token)
    presented = Presented(scheme="DPoP", token=token, proof=proof, method="GET", url=steady.url)
    try:
        verify(steady, presented)
    except UmecError as error:
        assert error.code.split("-")[0] in {"token", "standing"}, error.code  # noqa: PT017
