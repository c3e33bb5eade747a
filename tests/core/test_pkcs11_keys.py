"""Keys in a token, with SoftHSM: named by a URI, opened with a PIN, signing like keys of a file."""

import contextlib
import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from pkcs11 import Attribute, KeyType
from pkcs11.util.ec import encode_named_curve_parameters

from umec_core import dsse
from umec_core.keys import KeyFileExposed
from umec_core.pkcs11 import (
    Pkcs11Error,
    Pkcs11KeyMissing,
    Pkcs11KeyUnfit,
    Pkcs11PinRefused,
    Pkcs11SignatureInvalid,
    Pkcs11Unavailable,
    Pkcs11UriInvalid,
    TokenEcKey,
    TokenRsaKey,
    TokenUri,
    open_key,
    parse_uri,
)

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "5678"
URI = f"pkcs11:token=city;object=signer?module-path={MODULE}"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a token: `signer` (P-256), `twin` twice, `high` (P-384), `db` (RSA), `older` (DSA)."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(settings))
        line = ["softhsm2-util", "--init-token", "--free", "--label", "city", "--so-pin", "1234", "--pin", PIN]
        subprocess.run(line, check=True, capture_output=True)
        (opened,) = (each for each in pkcs11.lib(str(MODULE)).get_tokens() if each.label == "city")
        with opened.open(rw=True, user_pin=PIN) as session:
            for name, curve in (
                ("signer", "secp256r1"),
                ("twin", "secp256r1"),
                ("twin", "secp256r1"),
                ("high", "secp384r1"),
            ):
                parameters = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
                shape = session.create_domain_parameters(KeyType.EC, parameters, local=True)
                shape.generate_keypair(store=True, label=name, id=None if name == "twin" else name.encode())
            session.generate_domain_parameters(KeyType.DSA, 1024).generate_keypair(store=True, label="older")
            session.generate_keypair(KeyType.RSA, 2048, store=True, label="db", id=b"\1")
        yield folder
    shutil.rmtree(folder)


@pytest.fixture
def pin(tmp_path: Path) -> Path:
    path = tmp_path / "pin"
    path.write_text(f"{PIN}\n")
    path.chmod(0o600)
    return path


@pytest.mark.usefixtures("token")
def test_a_key_in_a_token_signs_what_verifies_like_any_other(pin: Path) -> None:
    with open_key(f"{URI}&pin-source=file:{pin}", {}) as key:
        assert isinstance(key, TokenEcKey)
        assert isinstance(key.curve, ec.SECP256R1)
        envelope = dsse.sign(b"what is said", dsse.IN_TOTO, key)
        public = key.public_key()
        assert copy.deepcopy(key) is copy.copy(key) is key
    assert dsse.verify(envelope, keys=[public], payload_type=dsse.IN_TOTO) == b"what is said"
    with open_key(f"pkcs11:token=city;id=%01;type=private?module-path={MODULE}", {"UMEC_PKCS11_PIN": PIN}) as key:
        assert isinstance(key, TokenRsaKey)
        assert key.key_size == 2048
        signature = key.sign(b"what is said", padding.PKCS1v15(), SHA256())
        key.public_key().verify(signature, b"what is said", padding.PKCS1v15(), SHA256())


@pytest.mark.usefixtures("token")
def test_a_module_may_be_said_by_the_environment(pin: Path) -> None:
    said = {"UMEC_PKCS11_MODULE": str(MODULE), "UMEC_PKCS11_PIN": "of another token"}
    with open_key(f"pkcs11:token=city;object=high?pin-source={quote(str(pin))}", said) as key:
        assert isinstance(key, TokenEcKey)
        assert key.key_size == 384


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize(
    ("uri", "environment", "error"),
    [
        (URI, {"UMEC_PKCS11_PIN": "8765"}, Pkcs11PinRefused),
        (f"{URI}&pin-source=/nothing/is/here", {"UMEC_PKCS11_PIN": PIN}, Pkcs11PinRefused),
        (URI.replace("city", "village"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11Unavailable),
        (URI.replace("token=city", "serial=00"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11Unavailable),
        (URI.replace(str(MODULE), "/nothing/is/here"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11Unavailable),
        (URI.replace(str(MODULE), "/etc/hostname"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11Unavailable),
        (URI.replace("signer", "older"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11KeyUnfit),
        (URI.replace("signer", "nobody"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11KeyMissing),
        (URI.replace("signer", "twin"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11KeyMissing),
        (URI.replace("object=signer", "object=signer;id=%02"), {"UMEC_PKCS11_PIN": PIN}, Pkcs11KeyMissing),
    ],
)
def test_what_is_not_there_or_not_opened_signs_nothing(
    uri: str, environment: dict[str, str], error: type[Pkcs11Error]
) -> None:
    with pytest.raises(error) as refused, open_key(uri, environment):
        pass
    assert refused.value.code == error.code
    assert not any(secret in refused.value.detail for secret in (PIN, "8765"))
    with open_key(URI, {"UMEC_PKCS11_PIN": PIN}):
        pass


@pytest.mark.usefixtures("token")
def test_a_pin_that_others_may_read_is_refused(pin: Path) -> None:
    pin.chmod(0o644)
    with pytest.raises(KeyFileExposed) as refused, open_key(f"{URI}&pin-source={pin}", {}):
        pass
    assert refused.value.code == "key-file-exposed"
    pin.chmod(0o600)
    with open_key(f"{URI}&pin-source={pin}", {}):
        pass


@pytest.mark.usefixtures("token")
@pytest.mark.parametrize("pin", ["", "5" * 300])
def test_what_can_be_no_pin_is_not_tried(pin: str) -> None:
    with pytest.raises(Pkcs11PinRefused, match="there is no PIN") as refused, open_key(URI, {"UMEC_PKCS11_PIN": pin}):
        pass
    assert refused.value.code == "pkcs11-pin-refused"
    with open_key(URI, {"UMEC_PKCS11_PIN": PIN}):
        pass


def test_a_token_without_a_module_is_told() -> None:
    with pytest.raises(Pkcs11Unavailable, match="nobody said which") as refused:
        open_key(URI.partition("?")[0], {"UMEC_PKCS11_PIN": PIN}).__enter__()
    assert refused.value.code == "pkcs11-unavailable"


class OtherAlgorithm(ec.EllipticCurveSignatureAlgorithm):
    algorithm = SHA256()


RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def test_a_signature_by_another_key_than_the_public_one_is_given_to_nobody() -> None:
    def sign(data: bytes) -> bytes:
        return OTHER_RSA.sign(data, padding.PKCS1v15(), SHA256())

    with pytest.raises(Pkcs11SignatureInvalid) as refused:
        TokenRsaKey(RSA.public_key(), sign).sign(b"x", padding.PKCS1v15(), SHA256())
    assert refused.value.code == "pkcs11-signature-invalid"
    assert TokenRsaKey(OTHER_RSA.public_key(), sign).sign(b"x", padding.PKCS1v15(), SHA256())
    for made in (b"", bytes(64), b"\1" * 64):
        with pytest.raises(Pkcs11SignatureInvalid):
            TokenEcKey(EC.public_key(), lambda _, made=made: made).sign(b"x", ec.ECDSA(SHA256()))


def test_a_key_in_a_token_does_nothing_but_sign() -> None:
    keys = TokenRsaKey(RSA.public_key(), bytes), TokenEcKey(EC.public_key(), bytes)
    attempts = [
        *(key.private_numbers for key in keys),
        *(lambda key=key: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys),
        lambda: keys[0].decrypt(b"x", padding.PKCS1v15()),
        lambda: keys[1].exchange(ec.ECDH(), EC.public_key()),
        lambda: keys[0].sign(b"x", padding.PKCS1v15(), SHA384()),
        lambda: keys[0].sign(b"x", padding.PSS(padding.MGF1(SHA256()), 32), SHA256()),
        lambda: keys[1].sign(b"x", ec.ECDSA(SHA384())),
        lambda: keys[1].sign(b"x", OtherAlgorithm()),
    ]
    for attempt in attempts:
        with pytest.raises(Pkcs11KeyUnfit) as refused:
            attempt()
        assert refused.value.code == "pkcs11-key-unfit"


def test_a_uri_is_read_as_it_is_written() -> None:
    text = "pkcs11:token=the%20city;serial=0a;object=sign%3Ber;id=%00%ff;type=private?module-path=/lib/x.so&pin-source=file:///etc/pin"
    assert parse_uri(text) == TokenUri("the city", "0a", "sign;er", b"\0\xff", Path("/lib/x.so"), Path("/etc/pin"))
    assert parse_uri("PKCS11:serial=1;id=a") == parse_uri("pkcs11:serial=1;id=a")
    assert parse_uri("pkcs11:serial=1;id=a") == TokenUri(None, "1", None, b"a", None, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "token=city;object=signer",
        "pkcs12:token=city;object=signer",
        "pkcs11:",
        "pkcs11:token=city",
        "pkcs11:object=signer",
        "pkcs11:token=city;object=signer;token=city",
        "pkcs11:token=city;object=signer;slot-id=1",
        "pkcs11:token=city;object=",
        "pkcs11:token=city;object=a b",
        "pkcs11:token=city;object=%zz",
        "pkcs11:token=city;object=%ff",
        "pkcs11:token=city;object=%0a",
        "pkcs11:token=city;object=signer;type=cert",
        "pkcs11:token=city;object=signer?pin-value=5678",
        "pkcs11:token=city;object=signer;pin-value=5678",
        "pkcs11:token=city;object=signer?module-path=x.so",
        "pkcs11:token=city;object=signer?pin-source=pin",
        "pkcs11:token=city;object=signer?module-name=x",
        "pkcs11:token=city;object=" + "x" * 2048,
    ],
)
def test_what_names_no_private_key_is_refused(text: str) -> None:
    with pytest.raises(Pkcs11UriInvalid) as refused:
        parse_uri(text)
    assert refused.value.code == "pkcs11-uri-invalid"
    assert "5678" not in refused.value.detail
    assert parse_uri("pkcs11:token=city;object=signer")


def test_a_pin_in_a_uri_is_told_from_a_misspelt_word() -> None:
    with pytest.raises(Pkcs11UriInvalid, match="a PIN does not belong") as refused:
        parse_uri("pkcs11:token=city;object=signer?pin-value=5678")
    assert "5678" not in refused.value.detail


@given(text=st.text(max_size=80).map(lambda text: f"pkcs11:{text}"))
def test_any_text_is_a_uri_or_refused(text: str) -> None:
    with contextlib.suppress(Pkcs11UriInvalid):
        assert isinstance(parse_uri(text), TokenUri)


@given(label=st.text(min_size=1, max_size=20).filter(str.isprintable), identifier=st.binary(min_size=1, max_size=20))
def test_what_is_escaped_is_read(label: str, identifier: bytes) -> None:
    uri = parse_uri(f"pkcs11:token={quote(label, safe='')};id={quote(identifier, safe='')}")
    assert (uri.token, uri.id) == (label, identifier)
