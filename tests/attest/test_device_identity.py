"""The identity that a device's maker gave it: one defect each, and what its IAK has to certify."""

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID, ObjectIdentifier

from umec_attest.certificates import TrustStore, load_certificate
from umec_attest.device_identity import (
    ShownKey,
    bind_to_ek,
    check_device_identity,
    verify_ak_by_iak,
    verify_idevid_by_iak,
)
from umec_attest.ek_certificate import EkCertificate, EkPolicy, TpmModel
from umec_attest.enrolment import check_ek
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import Certified
from umec_attest.tpm.names import Hierarchy, signer_name
from umec_attest.tpm.public import Attributes, SchemeChoice, Symmetric
from umec_attest.tpm.signature import Scheme

HARDWARE = ObjectIdentifier("1.3.6.1.5.5.7.8.4")
BOX = bytes.fromhex("06032a0304")
TPM_20 = bytes.fromhex("06056781050102")
AIK = x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.3")])
AK_SCHEME = SchemeChoice(Scheme.ECDSA, HashAlgorithm.SHA256)
POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
KEY_ID = bytes.fromhex("001122334455")
SERIAL = 0x0BADCAFE
FLAGS = [flag for flag in Attributes if flag.bit_count() == 1]
HARMLESS = {Attributes.USER_WITH_AUTH, Attributes.ADMIN_WITH_POLICY, Attributes.NO_DA}


def module(serial=b"box-17", kind=BOX):
    content = kind + bytes([4, len(serial)]) + serial
    return bytes([0x30, len(content)]) + content


def named(*values):
    return x509.SubjectAlternativeName([x509.OtherName(HARDWARE, value) for value in values])


SIGNS = {
    "digital_signature": True,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


class Maker:
    """A maker of devices: one root, and certificates for keys in TPMs."""

    def __init__(self, kit):
        self.kit = kit
        self.key = kit.ec_key(name="device maker")
        self.root = self.sign("maker", self.key, (x509.BasicConstraints(ca=True, path_length=None), True))

    def sign(self, subject, key, *extensions, days=(-10, 1000), by=None):
        def name(text):
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("maker"))
            .public_key(key.public_key())
            .serial_number(9)
            .not_valid_before(self.kit.NOW + timedelta(days=days[0]))
            .not_valid_after(self.kit.NOW + timedelta(days=days[1]))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(by or self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def certify(self, key, *, purpose=AIK, names=None, usage=None, **changes):
        extensions = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.KeyUsage(**(SIGNS | (usage or {}))), True),
            (named(module()) if names is None else names, False),
        ]
        extensions += [] if purpose is None else [(purpose, False)]
        return self.sign("device", key, *extensions, **changes)

    @property
    def store(self):
        return TrustStore((load_certificate(self.root, tolerate=False),))


@pytest.fixture
def maker(kit):
    return Maker(kit)


@pytest.fixture
def iak(kit, maker):
    key = kit.ec_key(name="iak")
    return ShownKey(kit.public_of(key, scheme=AK_SCHEME), maker.certify(key), ())


@pytest.fixture
def idevid(kit, maker):
    key = kit.ec_key(name="idevid")
    attributes = kit.ORIGIN | Attributes.SIGN | Attributes.USER_WITH_AUTH
    return ShownKey(kit.public_of(key, attributes=attributes), maker.certify(key, purpose=None), ())


@pytest.fixture
def check(kit, maker, iak):
    def run(iak=iak, idevid=None, store=None, now=kit.NOW):
        return check_device_identity(iak, idevid, store=store or maker.store, now=now)

    return run


def test_good_identities(check, iak, idevid):
    alone, both = check(), check(idevid=idevid)
    assert (alone.serial, alone.idevid, alone.idevid_sha256) == ("box-17", None, None)
    assert (both.iak, both.idevid) == (iak.public, idevid.public)
    assert both.iak_sha256 == alone.iak_sha256 != both.idevid_sha256


@pytest.mark.parametrize("flag", FLAGS)
def test_each_attribute_of_an_iak_and_an_idevid(check, iak, idevid, refused, flag):
    wrong = replace(iak, public=replace(iak.public, attributes=iak.public.attributes ^ flag))
    other = replace(idevid, public=replace(idevid.public, attributes=idevid.public.attributes ^ flag))
    if flag in HARMLESS:
        check(wrong, other)
        return
    with refused("iak-attributes"):
        check(wrong)
    with refused("idevid-attributes"):
        check(idevid=other)


def test_the_certificate_is_about_the_key(check, kit, maker, iak, idevid, refused):
    stranger = maker.certify(kit.ec_key(name="stranger"))
    with refused("device-certificate-mismatch"):
        check(replace(iak, certificate=stranger))
    with refused("device-certificate-mismatch"):
        check(idevid=replace(idevid, certificate=stranger))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"purpose": None}, "device-certificate-invalid"),
        ({"purpose": x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.1")])}, "device-certificate-invalid"),
        ({"usage": {"digital_signature": False}}, "device-certificate-invalid"),
        ({"usage": {"key_cert_sign": True}}, "device-certificate-invalid"),
        ({"usage": {"crl_sign": True}}, "device-certificate-invalid"),
        ({"names": x509.SubjectAlternativeName([x509.DNSName("box")])}, "device-certificate-invalid"),
        ({"names": named(module(), module())}, "device-certificate-invalid"),
        ({"names": named(b"\x05\x00")}, "device-certificate-invalid"),
        ({"names": named(b"\x30\x00")}, "device-certificate-invalid"),
        ({"names": named(module(b""))}, "device-certificate-invalid"),
        ({"names": named(module(kind=bytes.fromhex("04032a0304")))}, "device-certificate-invalid"),
        ({"names": named(bytes.fromhex("300a06032a03040c03626f78"))}, "device-certificate-invalid"),
        ({"days": (-10, -1)}, "device-certificate-expired"),
        ({"days": (1, 10)}, "device-certificate-expired"),
    ],
)
def test_each_defect_of_an_iak_certificate(check, kit, maker, iak, refused, changes, code):
    wrong = maker.certify(kit.ec_key(name="iak"), **changes)
    with refused(code):
        check(replace(iak, certificate=wrong))
    check()


def test_certificates_without_key_usage_or_names(check, kit, maker, iak, refused):
    constraints, signs = x509.BasicConstraints(ca=False, path_length=None), x509.KeyUsage(**SIGNS)
    for extensions in (
        [(constraints, True), (AIK, False), (named(module()), False)],
        [(constraints, True), (AIK, False), (signs, True)],
    ):
        with refused("device-certificate-invalid"):
            check(replace(iak, certificate=maker.sign("device", kit.ec_key(name="iak"), *extensions)))


def test_another_maker_and_bytes_that_are_no_certificate(check, kit, maker, iak, refused):
    with refused("device-certificate-path"):
        check(store=TrustStore(()))
    forged = maker.certify(kit.ec_key(name="iak"), by=kit.ec_key(name="forger"))
    with refused("device-certificate-path"):
        check(replace(iak, certificate=forged))
    with refused("device-certificate-invalid"):
        check(replace(iak, certificate=b"nonsense"))
    with refused("device-certificate-invalid"):
        check(replace(iak, chain=[iak.certificate] * 9))
    check(replace(iak, chain=[iak.certificate] * 8))


def test_iak_and_idevid_are_of_one_device(check, kit, maker, idevid, refused):
    for names in (named(module(b"box-18")), named(module(kind=bytes.fromhex("06032a0305")))):
        other = maker.certify(kit.ec_key(name="idevid"), purpose=None, names=names)
        with refused("device-identity-mismatch"):
            check(idevid=replace(idevid, certificate=other))
    check(idevid=idevid)


# --- the EK ---------------------------------------------------------------------------------------------------------


def ek_certificate(kit, maker, key_id=KEY_ID, serial=SERIAL):
    fields = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), kit.ec_key(name="ek").public_key(), serial, kit.NOW, kit.NOW
    )
    if key_id is not False:
        names = [x509.DirectoryName(x509.Name([]))] if key_id is None else None
        identifier = x509.AuthorityKeyIdentifier(key_id, names, None if names is None else 1)
        fields = fields.add_extension(identifier, critical=False)
    der = fields.sign(maker.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return EkCertificate(load_certificate(der, tolerate=False), TpmModel("id:53544d20", "st33", "id:1"))


def test_a_device_whose_name_is_made_of_its_ek_certificate(check, kit, maker, iak, refused):
    def device(serial):
        certificate = maker.certify(kit.ec_key(name="iak"), names=named(module(serial, TPM_20)))
        return check(replace(iak, certificate=certificate))

    good = f"STM :{KEY_ID.hex()}:{SERIAL:x}".encode()
    shown = ek_certificate(kit, maker)
    for serial in (good, good.upper(), b"STM :1122334455:0badcafe"):
        bind_to_ek(device(serial), shown)
    for serial in (
        b"STM :001122334456:0badcafe",
        b"STM :001122334455:0badcaff",
        b"STM :001122334455",
        b"001122334455:0badcafe",
        b"STM :001122334455:0badcafe:",
        b"STM :0x1122334455:0badcafe",
        b"STM ::",
    ):
        with refused("device-identity-mismatch"):
            bind_to_ek(device(serial), shown)
    for other in (
        ek_certificate(kit, maker, serial=SERIAL + 1),
        ek_certificate(kit, maker, key_id=b"\1"),
        ek_certificate(kit, maker, key_id=None),
        ek_certificate(kit, maker, key_id=False),
    ):
        with refused("device-identity-mismatch"):
            bind_to_ek(device(good), other)
    bind_to_ek(check(), shown)  # a name of another kind says nothing about an EK


def test_the_identity_of_a_device_vouches_for_a_tpm_without_certificate(check, kit, refused):
    public = kit.public_of(
        kit.rsa_key(name="ek"), attributes=Attributes(0x000300B2), policy=POLICY_A, symmetric=Symmetric(6, 128, 0x43)
    )
    arguments = {
        "public": public,
        "certificate": None,
        "chain": (),
        "policy": EkPolicy(TrustStore(())),
        "now": kit.NOW,
    }
    with refused("ek-trust-missing"):
        check_ek(**arguments)
    assert check_ek(**arguments, device=check()).endorsed_by == "device-identity"


# --- what the IAK certifies -----------------------------------------------------------------------------------------


@pytest.fixture
def box(kit):
    """A TPM whose IAK, a primary key of the endorsement hierarchy, says what a test wants."""
    return kit.Adversary(key=kit.ec_key(name="iak"))


@pytest.fixture
def ak(kit):
    return kit.public_of(kit.ec_key(name="ak"), scheme=AK_SCHEME)


def certification(box, subject, parent, nonce, **changes):
    mine = signer_name(box.ak, Hierarchy.ENDORSEMENT)
    attested = Certified(subject.name(), signer_name(subject, parent))
    attest = box.attest(**{"attested": attested, "extra_data": nonce, "qualified_signer": mine} | changes).to_bytes()
    return {"attest": attest, "signature": box.sign(attest), "iak": box.ak, "qualifying": nonce}


def test_the_iak_certifies_the_ak_below_the_ek(box, ak, kit, refused):
    good = certification(box, ak, box.ek, kit.NONCE)
    verify_ak_by_iak(**good, ak=ak, ek=box.ek)
    other = kit.public_of(kit.ec_key(name="other ak"), scheme=AK_SCHEME)
    elsewhere = kit.public_of(kit.ec_key(name="other ek"), attributes=box.ek.attributes)
    for wrong, shown_ak, shown_ek in (
        (good, other, box.ek),
        (good, ak, elsewhere),  # an EK made in software: the TPM says which one the AK is really below
        (certification(box, ak, elsewhere, kit.NONCE), ak, box.ek),
        (certification(box, ak, Hierarchy.ENDORSEMENT, kit.NONCE), ak, box.ek),
        (certification(box, ak, box.ek, kit.NONCE, qualified_signer=signer_name(box.ak, box.ek)), ak, box.ek),
        (certification(box, ak, box.ek, kit.NONCE, qualified_signer=signer_name(box.ak, Hierarchy.OWNER)), ak, box.ek),
    ):
        with refused("certify-name-mismatch"):
            verify_ak_by_iak(**wrong, ak=shown_ak, ek=shown_ek)
    with refused("certify-nonce-mismatch"):
        verify_ak_by_iak(**good | {"qualifying": bytes(32)}, ak=ak, ek=box.ek)
    with refused("signature-invalid"):
        stranger = kit.Adversary(key=kit.ec_key(name="stranger"))
        verify_ak_by_iak(**good | {"signature": stranger.sign(good["attest"])}, ak=ak, ek=box.ek)


def test_the_iak_certifies_the_idevid(box, kit, idevid, refused):
    good = certification(box, idevid.public, Hierarchy.ENDORSEMENT, kit.NONCE)
    verify_idevid_by_iak(**good, idevid=idevid.public)
    for wrong in (
        certification(box, idevid.public, box.ek, kit.NONCE),
        certification(box, box.ak, Hierarchy.ENDORSEMENT, kit.NONCE),
    ):
        with refused("certify-name-mismatch"):
            verify_idevid_by_iak(**wrong, idevid=idevid.public)
