"""DPoP proofs (RFC 9449, section 4.3): each reason for refusing one, and the good one beside it."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from umec_core.dpop import (
    DpopForeign,
    DpopInvalid,
    DpopReplayed,
    ReplayCache,
    ReplayCacheFull,
    ReplayQuota,
    make_proof,
    verify_proof,
)
from umec_core.errors import UmecError
from umec_core.jose import base64url_encode, peek_claims, private_jwk, public_jwk, sign_jwt, thumbprint

KEY = generate_private_key(SECP256R1())
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
URL = "https://mp1.test:8444/mec_app_support/v1/x"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256 (FIPS 186-5)."""


def check(proof: str, *, method: str = "GET", url: str = URL, now: datetime = NOW, access: str | None = "t") -> str:
    return verify_proof(proof, method=method, url=url, now=now, replay=ReplayCache(), access_token=access).thumbprint


def proof(*, header: dict | None = None, typ: str = "dpop+jwt", **changes: object) -> str:
    claims = dict(peek_claims(make_proof(KEY, "GET", URL, now=NOW, access_token="t"))) | changes
    kept = {name: value for name, value in claims.items() if value is not ...}
    return sign_jwt(kept, KEY, typ=typ, extra_header=header if header is not None else {"jwk": public_jwk(KEY)})


def refused(text: str, **options: object) -> None:
    with pytest.raises(DpopInvalid) as caught:
        check(text, **options)
    assert caught.value.code == "dpop-invalid"


def test_the_good_one():
    assert check(proof()) == thumbprint(KEY)
    assert check(make_proof(KEY, "get", URL + "?a=b#c", now=NOW, access_token="t"), url=URL + "?other=1")
    assert check(make_proof(KEY, "GET", "https://MP1.test/x", now=NOW), url="https://mp1.test:443/x", access=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"htm": "POST"},
        {"htm": ...},
        {"htu": "https://mp1.test:8444/other"},
        {"htu": "http://mp1.test:8444/mec_app_support/v1/x"},
        {"htu": "https://mp1.test:8445/mec_app_support/v1/x"},
        {"htu": "https://user@mp1.test:8444/mec_app_support/v1/x"},
        {"htu": "https://[mp1.test/"},
        {"htu": "https://mp1.test:99999/mec_app_support/v1/x"},
        {"htu": ...},
        {"jti": ...},
        {"jti": ""},
        {"jti": "j" * 129},
        {"jti": "\ud800"},
        {"jti": 5},
        {"iat": ...},
        {"iat": "now"},
        {"iat": NOW.timestamp() - 61},
        {"iat": NOW.timestamp() + 11},
        {"exp": NOW.timestamp()},
        {"nbf": NOW.timestamp() + 11},
        {"ath": ...},
        {"ath": "another"},
        {"ath": 5},
    ],
)
def test_claims(changes):
    refused(proof(**changes))


@pytest.mark.parametrize("changes", [{"iat": NOW.timestamp() - 10}, {"iat": NOW.timestamp() + 10}, {"nbf": 0}])
def test_clocks_may_differ_a_little(changes):
    assert check(proof(**changes))


def test_headers():
    refused(proof(typ="jwt"))
    refused(proof(header={"kid": "k"}))
    refused(proof(header={"jwk": private_jwk(KEY)}))
    refused(proof(header={"jwk": public_jwk(generate_private_key(SECP256R1()))}))
    for header in ({"jwk": public_jwk(KEY), "jku": "https://elsewhere.test"}, {"jwk": "text"}, {"jwk": None}):
        head = base64url_encode(json.dumps({"alg": "ES256", "typ": "dpop+jwt", **header}).encode())
        refused(".".join([head, *proof().split(".")[1:]]))
    refused(proof() + "A" * 5000)
    refused(proof(padding="A" * 5000))
    assert check(proof(padding="A" * 500))


def test_a_proof_for_no_token_is_not_one_for_a_token():
    refused(make_proof(KEY, "GET", URL, now=NOW))
    refused(make_proof(KEY, "GET", URL, now=NOW, access_token="t"), access=None)
    assert check(make_proof(KEY, "GET", URL, now=NOW), access=None)


def test_a_proof_is_good_once():
    replay, text = ReplayCache(), proof()
    for attempt in (text, make_proof(KEY, "GET", URL, now=NOW, access_token="t")):
        verify_proof(attempt, method="GET", url=URL, now=NOW, replay=replay, access_token="t")
    with pytest.raises(DpopReplayed) as caught:
        verify_proof(text, method="GET", url=URL, now=NOW, replay=replay, access_token="t")
    assert caught.value.code == "dpop-replayed"


def test_a_replay_of_a_proof_whose_signature_is_spelt_differently():
    replay, text = ReplayCache(), proof()
    verify_proof(text, method="GET", url=URL, now=NOW, replay=replay, access_token="t")
    signed, _, signature = text.rpartition(".")
    octets = base64.urlsafe_b64decode(signature + "==")
    r, s = octets[:32], int.from_bytes(octets[32:], "big")
    twin = f"{signed}.{base64url_encode(r + (ORDER - s).to_bytes(32, 'big'))}"  # ECDSA: (r, n-s) is as good as (r, s)
    assert twin != text
    assert check(twin) == thumbprint(KEY)
    with pytest.raises(DpopReplayed) as caught:
        verify_proof(twin, method="GET", url=URL, now=NOW, replay=replay, access_token="t")
    assert caught.value.code == "dpop-replayed"
    refused(text + "=")


def test_the_cache_forgets_what_is_over_and_closes_when_full():
    replay = ReplayCache(limit=2)
    assert replay.add("a", "1", until=NOW + timedelta(seconds=5), now=NOW)
    assert not replay.add("a", "1", until=NOW + timedelta(seconds=5), now=NOW)
    assert replay.add("b", "1", until=NOW + timedelta(seconds=5), now=NOW)
    with pytest.raises(ReplayCacheFull) as caught:
        replay.add("c", "1", until=NOW, now=NOW)
    assert caught.value.code == "replay-cache-full"
    assert replay.add("c", "1", until=NOW, now=NOW + timedelta(seconds=6))


def test_a_proof_by_another_key_is_refused_and_not_remembered():
    replay, text = ReplayCache(limit=1), proof()
    holder = thumbprint(generate_private_key(SECP256R1()))
    for _ in range(2):
        with pytest.raises(DpopForeign) as caught:
            verify_proof(text, method="GET", url=URL, now=NOW, replay=replay, access_token="t", holder=holder)
        assert caught.value.code == "dpop-foreign"
    verify_proof(text, method="GET", url=URL, now=NOW, replay=replay, access_token="t", holder=thumbprint(KEY))


def test_one_key_cannot_fill_the_cache_for_all():
    replay = ReplayCache(limit=8, quota=2)
    until = NOW + timedelta(seconds=5)
    assert replay.add("a", "1", until=until, now=NOW)
    assert replay.add("a", "2", until=until, now=NOW)
    assert not replay.add("a", "2", until=until, now=NOW)
    with pytest.raises(ReplayQuota) as caught:
        replay.add("a", "3", until=until, now=NOW)
    assert caught.value.code == "replay-quota"
    assert replay.add("b", "1", until=until, now=NOW)
    assert replay.add("a", "3", until=until, now=NOW + timedelta(seconds=6))


def test_a_payer_with_many_keys_has_one_quota():
    replay = ReplayCache(limit=8, quota=2)
    keys = [generate_private_key(SECP256R1()) for _ in range(3)]
    made = [make_proof(key, "GET", URL, now=NOW) for key in keys]
    for text in made[:2]:
        verify_proof(text, method="GET", url=URL, now=NOW, replay=replay, payer="app")
    with pytest.raises(ReplayQuota):
        verify_proof(made[2], method="GET", url=URL, now=NOW, replay=replay, payer="app")
    verify_proof(made[2], method="GET", url=URL, now=NOW, replay=replay, payer="other")


@given(st.text(max_size=300) | st.text(alphabet="eyJ.-_0", max_size=300))
def test_any_text_is_a_proof_or_one_error(text):
    with pytest.raises(DpopInvalid):
        check(text)


@given(
    st.dictionaries(
        st.sampled_from(["jti", "htm", "htu", "iat", "ath", "exp", "nbf", "nonce"]),
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers()
        | st.text(max_size=40),
    )
)
def test_any_signed_claims_are_a_proof_or_one_error(claims):
    text = sign_jwt(claims, KEY, typ="dpop+jwt", extra_header={"jwk": public_jwk(KEY)})
    with pytest.raises(UmecError) as caught:
        check(text)
    assert caught.value.code == "dpop-invalid"
