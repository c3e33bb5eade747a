"""Tokens of ours in another library, and its tokens in ours: what is signed is ES256 as RFC 7518 has it."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey

from umec_core.jose import JwkInvalid, JwtSignature, KeySet, base64url_encode, sign_jwt, verify_jwt

KEY = generate_private_key(SECP256R1())
KEYS = KeySet([KEY.public_key()])
OTHERS = ECKey.import_key(KEY)
CLAIMS = st.dictionaries(st.text(), st.one_of(st.text(), st.integers(-(2**53), 2**53), st.booleans(), st.none()))


@given(CLAIMS)
def test_the_other_library_reads_what_we_sign(claims):
    read = jws.deserialize_compact(sign_jwt(claims, KEY, typ="JWT"), OTHERS, algorithms=["ES256"])
    assert json.loads(read.payload) == claims


@given(CLAIMS)
def test_we_read_what_the_other_library_signs(claims):
    token = jws.serialize_compact({"alg": "ES256", "typ": "JWT"}, json.dumps(claims), OTHERS)
    assert verify_jwt(token, KEYS, typ="JWT") == claims


@pytest.mark.parametrize("length", [1, 63, 65, 72])
def test_a_signature_is_two_numbers_of_32_bytes(length):
    good = sign_jwt({}, KEY, typ="JWT")
    signed, _, _ = good.rpartition(".")
    with pytest.raises(JwtSignature) as caught:
        verify_jwt(f"{signed}.{base64url_encode(bytes(length))}", KEYS, typ="JWT")
    assert caught.value.code == "jwt-signature"
    assert verify_jwt(good, KEYS, typ="JWT") == {}


def test_a_key_on_another_curve_signs_nothing():
    with pytest.raises(JwkInvalid) as caught:
        sign_jwt({}, generate_private_key(SECP384R1()), typ="JWT", kid="k")
    assert caught.value.code == "jwk-invalid"
