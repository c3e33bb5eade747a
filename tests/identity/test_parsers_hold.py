"""Any bytes give a value or one refusal: forms, requests, challenges, attestation results, certificate requests."""

import contextlib
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from umec_core.jose import KeySet, public_jwk, sign_jwt
from umec_identity.authentication.assertion import peek_assertion
from umec_identity.authentication.attestation import ATTESTATION_TYPE, verify_ear
from umec_identity.authentication.challenge import Challenges
from umec_identity.certificates.authority import read_csr
from umec_identity.errors import AssertionInvalid, AttestationInvalid, ChallengeInvalid, CsrInvalid, IdentityError
from umec_identity.forms import OAuthRequest, parse_form

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = generate_private_key(SECP256R1())
KEYS = KeySet([KEY.public_key()])
ISSUER = "https://authority.test:8443"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
    max_leaves=5,
)


@given(st.binary(max_size=300))
def test_forms(body):
    with contextlib.suppress(IdentityError):
        assert all(isinstance(value, str) and value for value in parse_form(body).values())


@given(st.dictionaries(st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=20), max_size=10))
def test_a_form_survives_the_round_trip(form):
    assert parse_form(urlencode(form).encode()) == form


@given(
    st.lists(
        st.tuples(st.sampled_from(["dpop", "authorization", "content-type", "x"]), st.text(max_size=20)), max_size=5
    )
)
def test_requests(headers):
    with contextlib.suppress(IdentityError):
        OAuthRequest.build(b"a=b", headers, certificate=None, address="::1")


@given(st.text(max_size=120))
def test_challenges(text):
    with pytest.raises(ChallengeInvalid):
        Challenges(b"k" * 32).verify(text, NOW)


def test_a_challenge_of_another_key_or_time():
    mine = Challenges(b"k" * 32)
    challenge = mine.make(NOW)
    assert mine.verify(challenge, NOW + timedelta(seconds=60))
    for other, now in (
        (Challenges(b"l" * 32), NOW),
        (mine, NOW + timedelta(seconds=61)),
        (mine, NOW - timedelta(seconds=2)),
    ):
        with pytest.raises(ChallengeInvalid) as caught:
            other.verify(challenge, now)
        assert caught.value.code == "attestation-challenge"
    with pytest.raises(ValueError, match="32 bytes"):
        Challenges(b"short")


@given(st.text(max_size=200) | st.text(alphabet="eyJ.-_=0", max_size=200))
def test_assertions_before_their_signature(text):
    with pytest.raises(AssertionInvalid):
        peek_assertion(text, issuer=ISSUER, now=NOW)


@given(st.dictionaries(st.sampled_from(["iss", "sub", "aud", "iat", "exp", "jti", "nbf"]), values))
def test_assertions_with_any_claims(claims):
    with contextlib.suppress(AssertionInvalid):
        peek_assertion(sign_jwt(claims, KEY, typ="JWT"), issuer=ISSUER, now=NOW)


NAMES = ["iss", "sub", "aud", "iat", "exp", "jti", "eat_profile", "submods", "cnf", "umec", "nbf"]


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_attestation_results_with_any_claims(changes):
    seconds = int(NOW.timestamp())
    good = {
        "iss": f"{ISSUER}/attest/v1",
        "sub": "lamp-7",
        "aud": ISSUER,
        "iat": seconds,
        "exp": seconds + 60,
        "jti": "j",
        "eat_profile": "tag:github.com,2023:veraison/ear",
        "submods": {"node": {"ear.status": "affirming"}},
        "cnf": {"jwk": public_jwk(KEY)},
        "umec": {
            "tenant": None,
            "standing": "trusted",
            "generation": 1,
            "evidence_sha256": "",
            "policy_sha256": "",
            "reference_sha256": "",
            "reference_version": 1,
        },
    }
    token = sign_jwt({**good, **changes}, KEY, typ=ATTESTATION_TYPE)
    with contextlib.suppress(AttestationInvalid):
        assert verify_ear(token, KEYS, verifier=f"{ISSUER}/attest/v1", audience=ISSUER, now=NOW).node


@given(st.text(max_size=200))
def test_certificate_requests(text):
    for pem in (text, f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(CsrInvalid):
            read_csr(pem)
