"""Certificates of real TPMs, of vendors, and of a device: which of them are believed, and why the others are not."""

import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from umec_attest.certificates import load_certificate, sort_bundle, verify_path
from umec_attest.certificates.certificate import CertificateMalformed
from umec_attest.device_identity import _IAK_PROFILE, _IDEVID_PROFILE, _hardware
from umec_attest.ek_certificate import EkPolicy, verify_ek_certificate
from umec_attest.errors import AttestError
from umec_attest.service.trust import TrustFileInvalid, load_bundle

pytestmark = [
    pytest.mark.vectors,
    pytest.mark.filterwarnings("ignore:Attribute's length must be"),  # of Google's authorities, when printed
]

NOW = datetime(2026, 11, 22, tzinfo=UTC)
MALFORMED = {"NTC1", "NTC2", "NUVO_0100", "NUVO_1110", "NUVO_1111", "NUVO_2110", "NUVO_2111"}
"""Nuvoton's: the attributes of their names are not in order."""
ROOTS = {
    "GS_TPM_RT",
    "INF_ECC_010RT",
    "INF_RSA_010RT",
    "INTEL_RT",
    *MALFORMED,
}
"""What names itself as issuer; all others in the collection are intermediates, some of roots that are not in it."""


@pytest.fixture(scope="session")
def attest(vectors):
    return vectors / "attest"


def der_of(path):
    data = path.read_bytes()
    if b"-----BEGIN" not in data:
        return data
    return base64.b64decode(b"".join(data.split(b"-----")[2].split()))


def spki_of(der):
    return load_certificate(der, tolerate=True).spki


@pytest.fixture(scope="session")
def vendors(attest, tmp_path_factory):
    """All vendor certificates in a bundle; those of ST that no root here signed are anchors by an operator's word."""
    folder = tmp_path_factory.mktemp("vendors")
    (folder / "anchors").mkdir()
    for path in (attest / "keylime/tpm_cert_store").glob("*.pem"):
        (folder / ("anchors" if path.stem == "STM_ECC_01RT" else ".") / path.name).write_bytes(path.read_bytes())
    for path in (attest / "go-tpm-tools/ca-certs").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_every_vendor_certificate_loads_or_is_known_to_be_malformed(attest):
    store = sorted((attest / "keylime/tpm_cert_store").glob("*.pem"))
    assert len(store) == 51
    for path in store:
        der = der_of(path)
        assert load_certificate(der, tolerate=True).der == der
        if path.stem in MALFORMED:
            with pytest.raises(CertificateMalformed):
                load_certificate(der, tolerate=False)
        else:
            assert load_certificate(der, tolerate=False) == load_certificate(der, tolerate=True)


def test_a_bundle_of_all_vendors_is_sorted(attest, vendors):
    with pytest.raises(TrustFileInvalid) as refused:
        load_bundle(vendors)
    assert "tolerate" in refused.value.advice
    loaded = load_bundle(vendors, tolerate=True)
    ders = {path.stem: der_of(path) for path in (attest / "keylime/tpm_cert_store").glob("*.pem")}
    anchors = {certificate.der for certificate in loaded.anchors}
    assert {name for name, der in ders.items() if der in anchors} == ROOTS | {"STM_ECC_01RT"}


def test_every_path_between_vendors_verifies(vendors):
    """Each intermediate is signed by its issuer where that is in the bundle and signs with SHA-2."""
    store = load_bundle(vendors, tolerate=True)
    everybody = (*store.anchors, *store.intermediates)
    orphans, weak, good = set(), set(), 0
    for certificate in store.intermediates:
        issuers = [one for one in everybody if one.subject == certificate.issuer]
        if not issuers:
            orphans.add(str(certificate.issuer))
        elif certificate.fields.signature_hash_algorithm.name == "sha1":
            weak.add(str(certificate.issuer))
        else:
            certificate.verify_signed_by(issuers[0])
            good += 1
    assert good >= 20
    assert len(weak) == 1  # Infineon's of TPM 1.2
    assert len(orphans) == 3  # roots of Aliyun, Nationz and VeriSign


GOOD = {
    "keylime/certs/st_ecdsa_sha256_der.der": ("id:53544d20", "st33htphahb4"),
    "keylime/certs/st_sha256_with_rsa_der.der": ("id:53544d20", "st33htphahb4"),
    "keylime/certs/test_certificate_wrapper_malformed.der": ("id:4e544300", "npct75x"),
    "go-tpm-tools/ek_ak_certs/uca_tpm_rsa_enc_cert.pem": ("id:474f4f47", "vtpm"),
    "go-tpm-tools/ek_ak_certs/uca_tpm_ecc_enc_cert.pem": ("id:474f4f47", "vtpm"),
}


@pytest.mark.parametrize("name", GOOD)
def test_ek_certificates_of_real_tpms_are_believed(attest, vendors, name):
    der = der_of(attest / name)
    policy = EkPolicy(load_bundle(vendors, tolerate=True), tolerate_malformed=True, software_tpms=True)
    found = verify_ek_certificate(der, [], spki=spki_of(der), policy=policy, now=NOW)
    assert (found.model.maker, found.model.model) == GOOD[name]
    tampered = der[:300] + bytes([der[300] ^ 1]) + der[301:]
    with pytest.raises(AttestError):
        verify_ek_certificate(tampered, [], spki=spki_of(der), policy=policy, now=NOW)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("keylime/certs/st_sha256_with_rsa_der.der", "ek-certificate-malformed"),
        ("keylime/certs/test_certificate_wrapper_malformed.der", "ek-certificate-malformed"),
        ("keylime/certs/nuvoton_ecdsa_sha256_der.der", "ek-certificate-malformed"),
    ],
)
def test_malformed_ones_are_refused_unless_the_policy_tolerates_them(attest, vendors, name, code):
    der = der_of(attest / name)
    policy = EkPolicy(load_bundle(vendors, tolerate=True))
    with pytest.raises(AttestError) as refused:
        verify_ek_certificate(der, [], spki=spki_of(der), policy=policy, now=NOW)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("go-tpm-tools/ek_ak_certs/uca_tpm_rsa_sign_cert.pem", "ek-certificate-invalid"),  # an AK's: it signs
        ("go-tpm-tools/ek_ak_certs/uca_tpm_ecc_sign_cert.pem", "ek-certificate-invalid"),
        ("go-tpm-tools/ek_ak_certs/pca_tpm_rsa_enc_cert.pem", "ek-certificate-invalid"),  # for no purpose, of no maker
        ("go-tpm-tools/ek_ak_certs/pca_tpm_ecc_enc_cert.pem", "ek-certificate-invalid"),
        ("keylime/certs/nuvoton_ecdsa_sha256_der.der", "ek-certificate-invalid"),  # the root itself
        ("keylime/certs/iak_der.der", "ek-certificate-expired"),
        ("keylime/certs/idevid_der.der", "ek-certificate-expired"),
    ],
)
def test_what_is_no_ek_certificate_is_refused(attest, vendors, name, code):
    der = der_of(attest / name)
    policy = EkPolicy(load_bundle(vendors, tolerate=True), tolerate_malformed=True, software_tpms=True)
    with pytest.raises(AttestError) as refused:
        verify_ek_certificate(der, [], spki=spki_of(der), policy=policy, now=NOW)
    assert refused.value.code == code


def test_a_virtual_tpm_is_believed_where_the_policy_says_so(attest, vendors):
    der = der_of(attest / "go-tpm-tools/ek_ak_certs/uca_tpm_rsa_enc_cert.pem")
    with pytest.raises(AttestError) as refused:
        verify_ek_certificate(der, [], spki=spki_of(der), policy=EkPolicy(load_bundle(vendors, tolerate=True)), now=NOW)
    assert refused.value.code == "ek-maker-refused"


@pytest.mark.parametrize("name", ["iak_der", "idevid_der"])
def test_a_device_identity_of_a_real_server(attest, vendors, name):
    """Its path verifies against its own authority and no vendor's; it names the EK certificate of an ST TPM."""
    leaf = load_certificate((attest / f"keylime/certs/{name}.der").read_bytes(), tolerate=False)
    pem = (attest / "keylime/test-data/files/idevid-test-ca/iak_idevid_chain.pem").read_bytes()
    chain = [
        load_certificate(one.public_bytes(Encoding.DER), tolerate=False) for one in x509.load_pem_x509_certificates(pem)
    ]
    then = datetime(2025, 1, 1, tzinfo=UTC)
    path = verify_path(leaf, [], sort_bundle(chain), profile=_IDEVID_PROFILE, now=then)
    assert [str(one.subject).split(", ")[-1] for one in path[1:]] == ["isaac hpe intermediate ca", "isaac hpe root ca"]
    assert _hardware(leaf).serial.startswith(b"STM :1ADB994AB58BE57A0CC9B900E7851E1A43C08660:")
    for arguments, profile, code in (
        (load_bundle(vendors, tolerate=True), _IDEVID_PROFILE, "device-certificate-path"),
        (sort_bundle(chain), _IAK_PROFILE, "device-certificate-invalid"),  # a web server's, by its extended key usage
    ):
        with pytest.raises(AttestError) as refused:
            verify_path(leaf, [], arguments, profile=profile, now=then)
        assert refused.value.code == code
