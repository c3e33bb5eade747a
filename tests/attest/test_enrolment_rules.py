"""Keys that may not enrol: every attribute wrong in turn, weak and foreign keys, forged certifications."""

import struct
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from umec_attest import enrolment
from umec_attest.certificates import TrustStore
from umec_attest.credential import make_credential
from umec_attest.ek_certificate import EkPolicy
from umec_attest.enrolment import check_ak, check_ek, check_node_key, ek_sha256, verify_certify
from umec_attest.tpm import weakness
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.public import Attributes, SchemeChoice, Symmetric
from umec_attest.tpm.signature import Scheme

SHA256, SHA384, SHA1 = HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA1
AES_128 = Symmetric(6, 128, 0x43)
POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK = (
    Attributes.FIXED_TPM
    | Attributes.FIXED_PARENT
    | Attributes.SENSITIVE_DATA_ORIGIN
    | Attributes.ADMIN_WITH_POLICY
    | Attributes.RESTRICTED
    | Attributes.DECRYPT
)
ECDSA = SchemeChoice(Scheme.ECDSA, SHA256)


@pytest.fixture
def ek(kit):
    return kit.public_of(kit.rsa_key(name="ek"), attributes=EK, policy=POLICY_A, symmetric=AES_128)


def allowed(public, now, **changes):
    arguments = {
        "certificate": None,
        "chain": (),
        "policy": EkPolicy(TrustStore(())),
        "now": now,
        "allow_list": frozenset({ek_sha256(public)}),
    }
    return check_ek(public=public, **(arguments | changes))


# --- endorsement keys -----------------------------------------------------------------------------------------------


def test_an_allow_listed_ek(ek, kit, refused):
    assert allowed(ek, kit.NOW).endorsed_by == "allow-list"
    with refused("ek-trust-missing"):
        allowed(ek, kit.NOW, allow_list=frozenset())
    with refused("ek-trust-missing"):
        allowed(ek, kit.NOW, allow_list=frozenset({"00" * 32}))


def test_the_templates(kit, refused):
    policy_b = enrolment._POLICY_B_SHA256
    for public in (
        kit.public_of(kit.ec_key(), attributes=EK, policy=POLICY_A, symmetric=AES_128),
        kit.public_of(kit.rsa_key(), attributes=EK | Attributes.USER_WITH_AUTH, policy=policy_b, symmetric=AES_128),
        kit.public_of(
            kit.ec_key("secp384r1"),
            attributes=EK | Attributes.USER_WITH_AUTH,
            policy=enrolment._POLICY_B_SHA384,
            symmetric=Symmetric(6, 256, 0x43),
            name_algorithm=SHA384,
        ),
    ):
        assert allowed(public, kit.NOW)
    with refused("ek-profile"):
        allowed(kit.public_of(kit.ec_key("secp384r1"), attributes=EK, policy=POLICY_A, symmetric=AES_128), kit.NOW)


@pytest.mark.parametrize("attribute", [attribute for attribute in Attributes if attribute.bit_count() == 1])
def test_each_attribute_of_an_ek(ek, kit, refused, attribute):
    with refused("ek-profile"):
        allowed(replace(ek, attributes=ek.attributes ^ attribute), kit.NOW)


def test_other_deviations_from_the_template(ek, kit, refused):
    parameters = ek.parameters
    for wrong in (
        replace(ek, auth_policy=bytes(32)),
        replace(ek, name_algorithm=SHA384),
        replace(ek, parameters=replace(parameters, symmetric=None)),
        replace(ek, parameters=replace(parameters, symmetric=Symmetric(6, 256, 0x43))),
        replace(ek, parameters=replace(parameters, scheme=SchemeChoice(0x15, None))),
        replace(ek, parameters=replace(parameters, exponent=65537)),
    ):
        with refused("ek-profile"):
            allowed(wrong, kit.NOW)


def test_small_keys_are_outside_the_profile(kit, refused):
    with refused("ek-profile"):
        allowed(kit.public_of(kit.rsa_key(1024), attributes=EK, policy=POLICY_A, symmetric=AES_128), kit.NOW)


def test_roca(ek, kit, refused):
    """A modulus that is a power of 65537 modulo each of the primes; 1 is such a power, so 1 modulo their product."""
    product = 1
    for prime in weakness._SUBGROUPS:
        product *= prime
    good = int.from_bytes(ek.parameters.modulus, "big")
    modulus = good - good % product + 1
    while not (modulus & 1 and modulus.bit_length() == 2048):
        modulus += product
    rsa.RSAPublicNumbers(65537, modulus).public_key()
    parameters = replace(ek.parameters, modulus=modulus.to_bytes(256, "big"))
    with refused("key-weak"):
        allowed(replace(ek, parameters=parameters), kit.NOW)


def test_credentials_need_a_storage_key_and_a_short_secret(ek, kit, refused):
    for wrong, secret in (
        (kit.public_of(kit.rsa_key()), bytes(32)),
        (ek, b""),
        (ek, bytes(33)),
        (replace(ek, name_algorithm=SHA1), bytes(20)),
        (replace(ek, parameters=replace(ek.parameters, symmetric=Symmetric(6, 128, 0x44))), bytes(32)),
        (replace(ek, parameters=replace(ek.parameters, symmetric=Symmetric(6, 192, 0x43))), bytes(32)),
        (replace(ek, parameters=replace(ek.parameters, symmetric=Symmetric(0x13, 128, 0x43))), bytes(32)),
    ):
        with refused("ek-profile"):
            make_credential(wrong, bytes(34), secret)
    credential = make_credential(ek, bytes(34), bytes(32))
    assert len(credential.encrypted_secret) == 256
    assert struct.unpack(">H", credential.blob[:2]) == (32,)
    assert make_credential(ek, bytes(34), bytes(32)) != credential


# --- attestation keys -----------------------------------------------------------------------------------------------


@pytest.fixture
def ak(kit):
    return kit.public_of(kit.ec_key(), scheme=ECDSA)


HARMLESS = {Attributes.USER_WITH_AUTH, Attributes.ADMIN_WITH_POLICY, Attributes.NO_DA}
FLAGS = [attribute for attribute in Attributes if attribute.bit_count() == 1]


@pytest.mark.parametrize("attribute", FLAGS)
def test_each_attribute_of_an_ak(ak, refused, attribute):
    wrong = replace(ak, attributes=ak.attributes ^ attribute)
    if attribute in HARMLESS:
        check_ak(wrong)
        return
    with refused("ak-attributes"):
        check_ak(wrong)


def test_other_faults_of_an_ak(ak, kit, refused):
    check_ak(ak)
    check_ak(kit.public_of(kit.rsa_key(), scheme=SchemeChoice(Scheme.RSAPSS, SHA384)))
    for wrong in (
        replace(ak, name_algorithm=SHA1),
        replace(ak, parameters=replace(ak.parameters, scheme=None)),
        replace(ak, parameters=replace(ak.parameters, scheme=SchemeChoice(Scheme.ECDSA, SHA1))),
        replace(ak, parameters=replace(ak.parameters, scheme=SchemeChoice(0x1A, SHA256, 1))),
        replace(ak, parameters=replace(ak.parameters, symmetric=AES_128)),
    ):
        with refused("ak-attributes"):
            check_ak(wrong)
    with refused("key-weak"):
        check_ak(kit.public_of(kit.rsa_key(1024), scheme=SchemeChoice(Scheme.RSASSA, SHA256)))
    with refused("key-weak"):
        check_ak(kit.public_of(kit.ec_key("secp521r1"), scheme=ECDSA))


# --- node keys ------------------------------------------------------------------------------------------------------


@pytest.fixture
def node_key(kit):
    return kit.public_of(kit.ec_key(name="node"), attributes=kit.ORIGIN | Attributes.SIGN | Attributes.USER_WITH_AUTH)


@pytest.mark.parametrize("attribute", FLAGS)
def test_each_attribute_of_a_node_key(node_key, refused, attribute):
    wrong = replace(node_key, attributes=node_key.attributes ^ attribute)
    if attribute in HARMLESS:
        check_node_key(wrong)
        return
    with refused("node-key-attributes"):
        check_node_key(wrong)


def test_other_faults_of_a_node_key(node_key, kit, refused):
    check_node_key(node_key)
    check_node_key(replace(node_key, parameters=replace(node_key.parameters, scheme=ECDSA)))
    attributes = node_key.attributes
    for wrong in (
        kit.public_of(kit.rsa_key(), attributes=attributes),
        kit.public_of(kit.ec_key("secp384r1"), attributes=attributes),
        replace(node_key, parameters=replace(node_key.parameters, scheme=SchemeChoice(Scheme.ECDSA, SHA384))),
        replace(node_key, parameters=replace(node_key.parameters, scheme=SchemeChoice(0x19, SHA256))),
        replace(node_key, name_algorithm=SHA1),
    ):
        with refused("node-key-attributes"):
            check_node_key(wrong)
    with refused("key-weak"):
        check_node_key(replace(node_key, parameters=replace(node_key.parameters, y=bytes(32))))


# --- certification --------------------------------------------------------------------------------------------------


@pytest.fixture
def certify(tpm, node_key, kit):
    def run(attest=None, signature=None, **changes):
        message = tpm.certify(node_key, kit.NONCE) if attest is None else attest
        arguments = {
            "attest": message,
            "signature": tpm.sign(message) if signature is None else signature,
            "ak": tpm.ak,
            "ak_parent": tpm.ek,
            "node_key": node_key,
            "qualifying": kit.NONCE,
        }
        return verify_certify(**(arguments | changes))

    return run


def test_a_good_certification(certify, node_key):
    assert certify().name == node_key.name()


def test_forged_certifications(certify, tpm, node_key, kit, refused):
    other = kit.public_of(kit.ec_key(name="other"), attributes=node_key.attributes)
    stranger = kit.Adversary(key=kit.ec_key(name="stranger"))
    good = tpm.certify(node_key, kit.NONCE)
    with refused("certify-type-mismatch"):
        certify(tpm.attest().to_bytes())
    with refused("certify-nonce-mismatch"):
        certify(tpm.certify(node_key, bytes(32)))
    with refused("certify-nonce-mismatch"):
        certify(tpm.certify(node_key, b""), qualifying=b"")
    with refused("certify-name-mismatch"):
        certify(tpm.certify(other, kit.NONCE))
    with refused("certify-name-mismatch"):
        certify(node_key=other)
    with refused("certify-name-mismatch"):
        certify(ak_parent=kit.Hierarchy.OWNER)
    with refused("certify-name-mismatch"):
        certify(tpm.certify(node_key, kit.NONCE, qualified_signer=b""))
    with refused("signature-invalid"):
        certify(good, stranger.sign(good))
    imported = replace(node_key, attributes=node_key.attributes & ~Attributes.FIXED_TPM)
    with refused("node-key-attributes"):
        certify(tpm.certify(imported, kit.NONCE), node_key=imported)
