"""JWT texts and keys: what is refused, by its code; what is accepted when only that fault is gone."""

import json
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt as jose_jwt
from joserfc.jwk import OctKey, RSAKey

from umec_core.errors import UmecError
from umec_core.jose import (
    JwkInvalid,
    JwtInvalid,
    KeySet,
    base64url_decode,
    base64url_encode,
    check_times,
    claim_text,
    claim_time,
    private_jwk,
    private_key,
    public_jwk,
    public_key,
    sign_jwt,
    strict_json,
    thumbprint,
    verify_jwt,
)

KEY = generate_private_key(SECP256R1())
KEYS = KeySet([KEY.public_key()])
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
GOOD = sign_jwt({"sub": "a"}, KEY, typ="at+jwt")
LONG = {**public_jwk(KEY), "x": base64url_encode(b"\0" + base64url_decode(public_jwk(KEY)["x"]))}
"""The same number with a byte more (RFC 7518, 6.2.1.2, wants 32)."""


def part(value: object) -> str:
    return base64url_encode(json.dumps(value).encode())


def refused(code: str, token: str, keys: KeySet = KEYS, typ: str = "at+jwt") -> None:
    with pytest.raises(JwtInvalid) as caught:
        verify_jwt(token, keys, typ=typ)
    assert caught.value.code == code


def header(**changes: object) -> str:
    """The good token under another header, signed anew by the right key."""
    return sign_jwt({"sub": "a"}, KEY, typ="at+jwt", extra_header=changes)


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.b.c.d", GOOD + "=", GOOD + " ", "." + GOOD, GOOD.replace(".", "..", 1), GOOD + "é"],
)
def test_text_that_is_no_compact_jws(token):
    refused("jwt-malformed", token)


def test_text_that_is_too_long():
    refused("jwt-malformed", GOOD + "A" * (128 * 1024))


def test_base64_whose_last_bits_are_used_for_a_second_spelling():
    first, second, third = GOOD.split(".")
    twin = third[:-1] + chr(ord(third[-1]) + 1)
    with pytest.raises(JwtInvalid):
        verify_jwt(f"{first}.{second}.{twin}", KEYS, typ="at+jwt")
    with pytest.raises(JwtInvalid) as caught:
        base64url_decode("QUJ")  # the same three bits differently: QUI is canonical
    assert caught.value.code == "jwt-malformed"
    assert base64url_decode("QUI") == b"AB"


@pytest.mark.parametrize("text", ["QUI=", "Q+I/", "QU I", "QUI\n", "Q", "QÜI"])
def test_other_spellings_of_base64(text):
    with pytest.raises(JwtInvalid) as caught:
        base64url_decode(text)
    assert caught.value.code == "jwt-malformed"


@pytest.mark.parametrize(
    "data", [b"[1]", b'"a"', b"null", b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":{"b":1,"b":1}}', b""]
)
def test_what_is_not_one_object_of_json(data):
    with pytest.raises(JwtInvalid) as caught:
        strict_json(data)
    assert caught.value.code == "jwt-malformed"


def test_members_given_twice():
    head = base64url_encode(b'{"alg":"ES256","alg":"none","typ":"at+jwt"}')
    refused("jwt-malformed", f"{head}.{part({})}.{GOOD.split('.')[2]}")


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES384", "es256", None, 7])
def test_other_algorithms(alg):
    head = part({"alg": alg, "typ": "at+jwt"})
    refused("jwt-algorithm", f"{head}.{part({'sub': 'a'})}.{GOOD.split('.')[2]}")


def test_the_public_key_as_an_hmac_secret():
    secret = OctKey.import_key(json.dumps(public_jwk(KEY)).encode())
    token = jose_jwt.encode({"alg": "HS256", "typ": "at+jwt"}, {"sub": "a"}, secret)
    refused("jwt-algorithm", token)


def test_rsa_is_not_needed_and_not_taken():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        token = jose_jwt.encode(
            {"alg": "RS256", "typ": "at+jwt"}, {"sub": "a"}, RSAKey.import_key(generate_rsa(65537, 2048))
        )
    refused("jwt-algorithm", token)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5c", "x5u", "cty", "foo"])
def test_headers_that_change_how_a_signature_is_judged(name):
    value = public_jwk(KEY) if name == "jwk" else ["a"] if name == "x5c" else "https://elsewhere.test/"
    head = {"alg": "ES256", "typ": "at+jwt", name: value}
    refused("jwt-header", f"{part(head)}.{part({'sub': 'a'})}.{GOOD.split('.')[2]}")


@pytest.mark.parametrize(("name", "value"), [("kid", 5), ("kid", None), ("typ", 5), ("typ", ["at+jwt"])])
def test_headers_of_another_shape(name, value):
    head = {"alg": "ES256", "typ": "at+jwt", name: value}
    refused("jwt-header", f"{part(head)}.{part({'sub': 'a'})}.{GOOD.split('.')[2]}")


def test_a_critical_header():
    refused("jwt-header", f"{part({'alg': 'ES256', 'typ': 'at+jwt', 'crit': ['b64'], 'b64': False})}.e30.{'A' * 86}")


def test_another_type_of_token():
    refused("jwt-type", sign_jwt({"sub": "a"}, KEY, typ="JWT"))
    refused("jwt-type", f"{part({'alg': 'ES256'})}.e30.{'A' * 86}")
    assert verify_jwt(sign_jwt({"sub": "a"}, KEY, typ="application/AT+JWT"), KEYS, typ="at+jwt") == {"sub": "a"}


def test_a_key_that_is_not_in_the_set():
    stranger = generate_private_key(SECP256R1())
    refused("jwt-key-unknown", sign_jwt({"sub": "a"}, stranger, typ="at+jwt"))
    two = KeySet([KEY.public_key(), stranger.public_key()])
    assert verify_jwt(sign_jwt({"sub": "a"}, stranger, typ="at+jwt"), two, typ="at+jwt")


def test_a_token_without_kid_needs_a_set_of_one():
    head = part({"alg": "ES256", "typ": "at+jwt"})
    two = KeySet([KEY.public_key(), generate_private_key(SECP256R1()).public_key()])
    refused("jwt-key-unknown", f"{head}.e30.{'A' * 86}", two)


def test_another_signature_and_another_content():
    first, second, third = GOOD.split(".")
    refused("jwt-signature", f"{first}.{part({'sub': 'b'})}.{third}")
    refused("jwt-signature", f"{first}.{second}.{'A' * 86}")
    refused("jwt-signature", f"{first}.{second}.{third[:-4]}")
    raw = base64url_decode(third)  # the same two numbers, the second one with a byte more
    refused("jwt-signature", f"{first}.{second}.{base64url_encode(raw[:32] + bytes(1) + raw[32:])}")
    assert verify_jwt(GOOD, KEYS, typ="at+jwt") == {"sub": "a"}


def test_a_header_of_any_length_is_not_read():
    def token(spaces: int) -> str:
        head = base64url_encode(json.dumps({"alg": "ES256", "typ": "at+jwt"}).encode() + b" " * spaces)
        text = f"{head}.{part({'sub': 'a'})}"
        r, s = decode_dss_signature(KEY.sign(text.encode(), ECDSA(SHA256())))
        return f"{text}.{base64url_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    assert verify_jwt(token(10), KEYS, typ="at+jwt") == {"sub": "a"}
    refused("jwt-malformed", token(2048))


def test_an_empty_set_verifies_nothing():
    with pytest.raises(JwkInvalid):
        KeySet([])
    with pytest.raises(JwkInvalid):
        KeySet.from_jwks({"keys": []})


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {**public_jwk(KEY), "crv": "P-384"},
        {**public_jwk(KEY), "kty": "OKP"},
        LONG,
        {**public_jwk(KEY), "x": public_jwk(KEY)["x"] + "="},
        {**public_jwk(KEY), "x": "AA"},
        {**public_jwk(KEY), "y": public_jwk(KEY)["x"]},
        {**public_jwk(KEY), "x": 5},
        {**public_jwk(KEY), "use": "enc"},
        {**public_jwk(KEY), "alg": "ES384"},
        private_jwk(KEY),
    ],
)
def test_keys_that_are_not_registered(jwk):
    for attempt in (lambda: public_key(jwk), lambda: KeySet.from_jwks({"keys": [jwk]})):
        with pytest.raises(JwkInvalid) as caught:
            attempt()
        assert caught.value.code == "jwk-invalid"
    assert public_key({**public_jwk(KEY), "use": "sig", "alg": "ES256", "kid": "k"}) == KEY.public_key()


def test_a_remote_set_leaves_out_kinds_that_we_do_not_know():
    mixed = {"keys": [{"kty": "RSA", "n": "x", "e": "AQAB"}, {**public_jwk(KEY), "kid": "one"}]}
    with pytest.raises(JwkInvalid):
        KeySet.from_jwks(mixed)
    assert "one" in KeySet.from_jwks(mixed, strict=False)
    with pytest.raises(JwkInvalid):
        KeySet.from_jwks({"keys": mixed["keys"][:1]}, strict=False)
    with pytest.raises(JwkInvalid):
        KeySet([generate_private_key(SECP384R1()).public_key()])


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": 5},
        {"keys": {"a": public_jwk(KEY)}},
        {"keys": ["x"]},
        {"keys": [{**public_jwk(KEY), "kid": ""}]},
        {"keys": [{**public_jwk(KEY), "kid": "k" * 513}]},
        {"keys": [{**public_jwk(KEY), "kid": 5}]},
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_sets_of_another_shape(jwks, strict):
    with pytest.raises(JwkInvalid) as caught:
        KeySet.from_jwks(jwks, strict=strict)
    assert caught.value.code == "jwk-invalid"
    keys = KeySet.from_jwks({"keys": [{**public_jwk(KEY), "kid": "k" * 512}]}, strict=strict)
    assert "k" * 512 in keys
    assert thumbprint(KEY) in keys


def test_two_keys_under_one_name():
    other = generate_private_key(SECP256R1())
    with pytest.raises(JwkInvalid):
        KeySet.from_jwks({"keys": [{**public_jwk(KEY), "kid": "k"}, {**public_jwk(other), "kid": "k"}]})


def test_keys_survive_the_round_trip():
    assert private_key(private_jwk(KEY)).private_numbers() == KEY.private_numbers()
    assert thumbprint(KEY) == thumbprint(public_jwk(KEY)) == KeySet([KEY.public_key()]).jwks()["keys"][0]["kid"]
    longer = base64url_encode(b"\0" + base64url_decode(private_jwk(KEY)["d"]))
    for wrong in (public_jwk(KEY), {**private_jwk(KEY), "d": longer}):
        with pytest.raises(JwkInvalid):
            private_key(wrong)
    for wrong in (LONG, {**public_jwk(KEY), "kty": "OKP"}):
        with pytest.raises(JwkInvalid):
            thumbprint(wrong)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iat": ...}, "jwt-claim"),
        ({"exp": ...}, "jwt-claim"),
        ({"iat": True}, "jwt-claim"),
        ({"exp": "1"}, "jwt-claim"),
        ({"exp": 1e300}, "jwt-claim"),
        ({"iat": 11}, "jwt-expired"),
        ({"nbf": 11}, "jwt-expired"),
        ({"exp": 0}, "jwt-expired"),
        ({"exp": 86400 * 365 * 5}, "jwt-expired"),
        ({"iat": -86400, "exp": 60}, "jwt-expired"),
    ],
)
def test_times(changes, code):
    start = int(NOW.timestamp())
    claims = {"iat": 0, "exp": 60} | changes
    moved = {
        name: start + value if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in claims.items()
        if value is not ...
    }
    with pytest.raises(JwtInvalid) as caught:
        check_times(moved, NOW, longest=timedelta(minutes=5))
    assert caught.value.code == code
    check_times({"iat": start + 10, "nbf": start + 10, "exp": start + 60}, NOW, longest=timedelta(minutes=5))


def test_a_time_before_all_times():
    with pytest.raises(JwtInvalid) as caught:
        claim_time({"iat": -1}, "iat")
    assert caught.value.code == "jwt-claim"
    assert claim_time({"iat": 0}, "iat") == 0


@given(st.text() | st.text(alphabet="eyJ.-_=0AZ", max_size=200))
def test_any_text_is_claims_or_one_error(text):
    try:
        verify_jwt(text, KEYS, typ="at+jwt")
    except JwtInvalid:
        return
    raise AssertionError("an accidental text verified")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=12), json_values, max_size=6))
def test_what_is_signed_is_what_is_read(claims):
    assert verify_jwt(sign_jwt(claims, KEY, typ="at+jwt"), KEYS, typ="at+jwt") == claims


@given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "d", "use", "alg", "kid"]), json_values))
def test_any_object_is_a_key_or_one_error(jwk):
    with pytest.raises(UmecError):
        KeySet.from_jwks({"keys": [jwk]})


@given(st.binary(max_size=80))
def test_base64url_round_trip_and_strict_json(data):
    assert base64url_decode(base64url_encode(data)) == data
    try:
        strict_json(data)
    except JwtInvalid:
        return


@given(json_values)
def test_any_claim_is_a_text_or_one_error(value):
    if isinstance(value, str) and value and value.isprintable():
        assert claim_text({"sub": value}, "sub") == value
        return
    with pytest.raises(JwtInvalid) as caught:
        claim_text({"sub": value}, "sub")
    assert caught.value.code == "jwt-claim"
