"""EK certificate paths, one defect each; the path without the defect is good."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.certificates import TrustStore, load_certificate
from umec_attest.ek_certificate import EkPolicy, verify_ek_certificate
from umec_attest.enrolment import check_ek, ek_sha256
from umec_attest.errors import EnrolmentRefused
from umec_attest.testing.authority import key_usage
from umec_attest.tpm.public import Attributes, Symmetric

EK = Attributes(0x000300B2)
POLICY_A = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
EK_PURPOSE = ObjectIdentifier("2.23.133.8.1")


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def spki(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def tpm_name(maker="id:53544D20", model="ST33", version="id:00490004", *more):
    """The directory name of a TPM: maker, model, version, each left out if None."""
    pairs = [("2.23.133.2.1", maker), ("2.23.133.2.2", model), ("2.23.133.2.3", version), *more]
    attributes = [x509.NameAttribute(ObjectIdentifier(kind), text) for kind, text in pairs if text is not None]
    return x509.Name([x509.RelativeDistinguishedName(attributes)] if attributes else [])


def encoded(certificate):
    return certificate.public_bytes(serialization.Encoding.DER)


def trusting(*roots, between=(), **changes):
    """A policy that believes these roots."""
    anchors, others = (
        tuple(load_certificate(encoded(one), tolerate=False) for one in many) for many in (roots, between)
    )
    return EkPolicy(TrustStore(anchors, others), **changes)


class Pki:
    """A vendor: root, intermediate, EK certificate; each part can be given a defect."""

    def __init__(self, kit):
        self.kit = kit
        self.keys = {role: kit.ec_key(name=role) for role in ("root", "intermediate")} | {"ek": kit.rsa_key(name="ek")}

    def make(self, subject, issuer, extensions, **changes):
        days = {"start": -10, "end": 1000} | changes
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(changes.get("issuer_name", issuer)))
            .public_key(self.keys[subject].public_key())
            .serial_number(7)
            .not_valid_before(self.kit.NOW + timedelta(days=days["start"]))
            .not_valid_after(self.kit.NOW + timedelta(days=days["end"]))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        key = changes.get("signing_key", self.keys[issuer])
        return builder.sign(key, changes.get("hash", hashes.SHA256()))

    def authority(self, subject, issuer, path_length, *, more=(), **changes):
        extensions = [
            (changes.pop("constraints", x509.BasicConstraints(ca=True, path_length=path_length)), True),
            (changes.pop("usage", key_usage(key_cert_sign=True, crl_sign=True)), True),
            *more,
        ]
        return self.make(subject, issuer, [pair for pair in extensions if pair[0] is not None], **changes)

    def root(self, **changes):
        return self.authority("root", "root", changes.pop("path_length", 1), **changes)

    def intermediate(self, **changes):
        return self.authority("intermediate", "root", changes.pop("path_length", 0), **changes)

    def ek(self, *, more=(), **changes):
        names = changes.pop("names", [x509.DirectoryName(tpm_name())])
        san = x509.SubjectAlternativeName(names) if names else None
        extensions = [
            (changes.pop("constraints", x509.BasicConstraints(ca=False, path_length=None)), True),
            (changes.pop("usage", key_usage(key_encipherment=True)), True),
            (changes.pop("purpose", x509.ExtendedKeyUsage([EK_PURPOSE])), False),
            (san, True),
            *more,
        ]
        issuer = changes.pop("issuer", "intermediate")
        return self.make("ek", issuer, [pair for pair in extensions if pair[0] is not None], **changes)

    def verify(self, *, ek=None, chain=None, roots=None, between=(), policy=None, **changes):
        believed = trusting(*([self.root()] if roots is None else roots), between=between, **(policy or {}))
        arguments = {"spki": spki(self.keys["ek"]), "now": self.kit.NOW, "policy": believed} | changes
        leaf = self.ek() if ek is None else ek
        given = [self.intermediate()] if chain is None else chain
        return verify_ek_certificate(encoded(leaf), [encoded(one) for one in given], **arguments)


@pytest.fixture
def pki(kit):
    return Pki(kit)


def test_good_paths(pki):
    pki.verify()
    pki.verify(ek=pki.ek(issuer="root"), chain=[])
    pki.verify(chain=[pki.root(), pki.intermediate()])
    pki.verify(roots=[pki.intermediate()], chain=[])  # an intermediate that was configured is a root for us


def test_another_key(pki, kit, refused):
    with refused("ek-certificate-mismatch"):
        pki.verify(spki=spki(kit.rsa_key(name="another")))


def test_no_root_or_another_root(pki, kit, refused):
    with refused("ek-certificate-path"):
        pki.verify(roots=[])
    with refused("ek-certificate-path"):
        pki.verify(chain=[])
    other = Pki(kit)
    other.keys = pki.keys | {"root": kit.ec_key(name="another root")}
    with refused("ek-certificate-path"):
        pki.verify(roots=[other.root()])


def test_forged_signatures(pki, kit, refused):
    forger = kit.ec_key(name="forger")
    with refused("ek-certificate-path"):
        pki.verify(ek=pki.ek(signing_key=forger))
    with refused("ek-certificate-path"):
        pki.verify(chain=[pki.intermediate(signing_key=forger)])


@pytest.mark.parametrize("days", [{"start": 1}, {"start": -100, "end": -1}])
def test_dates(pki, refused, days):
    for broken in ({"ek": pki.ek(**days)}, {"chain": [pki.intermediate(**days)]}, {"roots": [pki.root(**days)]}):
        with refused("ek-certificate-expired"):
            pki.verify(**broken)


def test_issuers_that_are_no_authority(pki, refused):
    not_ca = x509.BasicConstraints(ca=False, path_length=None)
    for broken in (
        {"chain": [pki.intermediate(constraints=not_ca)]},
        {"chain": [pki.intermediate(constraints=None)]},
        {"chain": [pki.intermediate(usage=key_usage(digital_signature=True))]},
        {"roots": [pki.root(constraints=not_ca)]},
    ):
        with refused("ek-certificate-path"):
            pki.verify(**broken)


def test_path_length(pki, refused):
    with refused("ek-certificate-path"):
        pki.verify(roots=[pki.root(path_length=0)])
    pki.verify(ek=pki.ek(issuer="root"), chain=[], roots=[pki.root(path_length=0)])


def test_what_is_no_ek_certificate(pki, refused):
    other_purpose = x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.3")])
    for broken in (
        {"purpose": None},
        {"purpose": other_purpose},
        {"constraints": None},
        {"constraints": x509.BasicConstraints(ca=True, path_length=None)},
    ):
        with refused("ek-certificate-invalid"):
            pki.verify(ek=pki.ek(**broken))
    both = x509.ExtendedKeyUsage([*other_purpose, EK_PURPOSE])
    pki.verify(ek=pki.ek(purpose=both))


@pytest.mark.parametrize(
    ("curve", "good"), [(False, {"key_encipherment": True}), (True, {"key_agreement": True})], ids=["rsa", "ecc"]
)
def test_key_usage_goes_by_the_type_of_the_key(pki, kit, refused, curve, good):
    if curve:
        pki.keys["ek"] = kit.ec_key(name="ek")
    pki.verify(ek=pki.ek(usage=key_usage(**good)))
    pki.verify(ek=pki.ek(usage=key_usage(**good, data_encipherment=True)))
    other = {"key_encipherment": True} if curve else {"key_agreement": True}
    for wrong in (
        None,
        key_usage(),
        key_usage(**other),
        *(
            key_usage(**good, **{flag: True})
            for flag in ("digital_signature", "content_commitment", "key_cert_sign", "crl_sign")
        ),
    ):
        with refused("ek-certificate-invalid"):
            pki.verify(ek=pki.ek(usage=wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        tpm_name(maker=None),
        tpm_name(model=None),
        tpm_name(version=None),
        tpm_name("id:53544D20", "ST33", "id:1", ("2.23.133.2.1", "id:49465800")),
        tpm_name(maker="STM"),
        tpm_name(maker="id:53544D2"),
        tpm_name(maker="id:53544D200"),
        tpm_name(maker="id:5354 D20"),
        tpm_name(None, None, None),
    ],
)
def test_a_certificate_that_does_not_name_its_tpm(pki, refused, wrong):
    with refused("ek-certificate-invalid"):
        pki.verify(ek=pki.ek(names=[x509.DirectoryName(wrong)]))
    with refused("ek-certificate-invalid"):
        pki.verify(ek=pki.ek(names=[x509.DNSName("tpm.example")]))
    with refused("ek-certificate-invalid"):
        pki.verify(ek=pki.ek(names=None))
    mixed = [x509.DNSName("tpm.example"), x509.DirectoryName(tpm_name())]
    found = pki.verify(ek=pki.ek(names=mixed)).model
    assert (found.maker, found.model, found.version) == ("id:53544d20", "st33", "id:00490004")


@pytest.mark.parametrize(
    "maker", ["id:00001014", "id:49424D00", "id:474F4F47", "id:564D5700", "id:414D5A4E", "id:4D534654"]
)
def test_makers_of_software_tpms_are_for_tests_only(pki, refused, maker):
    shown = pki.ek(names=[x509.DirectoryName(tpm_name(maker=maker))])
    with refused("ek-maker-refused"):
        pki.verify(ek=shown)
    assert pki.verify(ek=shown, policy={"software_tpms": True}).model.maker == maker.lower()


def test_a_certificate_that_vouches_for_itself(pki, refused):
    """Neither as it is, nor where somebody put it among the roots."""
    signed_by_itself = pki.ek(issuer_name="ek", signing_key=pki.keys["ek"])
    for roots in ([pki.root()], [pki.root(), signed_by_itself]):
        with refused("ek-certificate-path"):
            pki.verify(ek=signed_by_itself, roots=roots)


def test_signatures_that_are_not_sha_2(pki, refused):
    for broken in (
        {"ek": pki.ek(hash=hashes.SHA224())},
        {"chain": [pki.intermediate(signing_key=ed25519.Ed25519PrivateKey.generate(), hash=None)]},
    ):
        with refused("ek-certificate-path"):
            pki.verify(**broken)
    pki.verify(ek=pki.ek(hash=hashes.SHA384()))


def test_a_shown_certificate_is_checked_even_of_an_allowed_key(pki, kit, refused):
    public = kit.public_of(pki.keys["ek"], attributes=EK, policy=POLICY_A, symmetric=Symmetric(6, 128, 0x43))
    arguments = {
        "public": public,
        "certificate": pki.ek().public_bytes(serialization.Encoding.DER),
        "chain": [pki.intermediate().public_bytes(serialization.Encoding.DER)],
        "now": kit.NOW,
        "allow_list": frozenset({ek_sha256(public)}),
    }
    with refused("ek-certificate-path"):
        check_ek(policy=trusting(), **arguments)
    assert check_ek(policy=trusting(pki.root()), **arguments).endorsed_by == "certificate"


def test_critical_extensions_that_nobody_understands(pki, refused):
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    for broken in (
        {"ek": pki.ek(more=[(unknown, True)])},
        {"chain": [pki.intermediate(more=[(unknown, True)])]},
    ):
        with refused("ek-certificate-invalid"):
            pki.verify(**broken)
    pki.verify(ek=pki.ek(more=[(unknown, False)]))


def test_bad_der_and_endless_chains(pki, refused):
    der = pki.ek().public_bytes(serialization.Encoding.DER)
    arguments = {"spki": spki(pki.keys["ek"]), "policy": trusting(pki.root()), "now": pki.kit.NOW}
    for wrong in (b"", der[:-1], der + b"\0", b"\x30\x82\xff\xff", bytes(9000)):
        with refused("ek-certificate-malformed"):
            verify_ek_certificate(wrong, [], **arguments)
    with refused("ek-certificate-malformed"):
        verify_ek_certificate(der, [b"nonsense"], **arguments)
    with refused("ek-certificate-invalid"):
        verify_ek_certificate(der, [der] * 9, **arguments)
    with refused("ek-certificate-path"):
        pki.verify(chain=[pki.ek()] * 8)
    ours = ObjectIdentifier("1.3.6.1.4.1.99999.1")
    with refused("ek-certificate-malformed"):
        pki.verify(ek=pki.ek(more=[(x509.UnrecognizedExtension(ours, bytes(9000)), False)]))
    pki.verify(ek=pki.ek(more=[(x509.UnrecognizedExtension(ours, bytes(900)), False)]))


@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(kit, data):
    with pytest.raises(EnrolmentRefused):
        verify_ek_certificate(data, [], spki=b"", policy=trusting(), now=kit.NOW)
