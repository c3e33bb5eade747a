"""Endorsement keys of every kind that a vendor certifies: the agent finds the one with a certificate, and uses it."""

import hashlib
import os
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPMA_NV
from tpm2_pytss.types import TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

from umec_attest.agent.tpm.endorsement import template_of
from umec_attest.certificates import TrustStore, load_certificate
from umec_attest.credential import make_credential
from umec_attest.ek_certificate import EkPolicy
from umec_attest.enrolment import check_ak, check_ek, check_node_key, verify_certify
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_attest.tpm.public import parse_public
from umec_core.clock import system_clock

CERTIFICATES = {"L-1": 0x01C00002, "L-2": 0x01C0000A, "H-1": 0x01C00012, "H-2": 0x01C00014, "H-3": 0x01C00016}


def enrols(node: SoftwareNode, certificate: bytes | None) -> None:
    """Go through what an enrolment asks of a TPM; without a certificate, its EK is on the allow-list."""
    root = load_certificate(node.device.authority.root.public_bytes(Encoding.DER), tolerate=False)
    ek, ak, node_key = (parse_public(data) for data in (node.ek_public, node.ak_public, node.node_key_public))
    endorsed = check_ek(
        public=ek,
        certificate=certificate,
        chain=node.ek_chain,
        policy=EkPolicy(TrustStore((root,)), software_tpms=True),
        now=system_clock(),
        allow_list=frozenset({node.ek_sha256}),
    )
    assert endorsed.endorsed_by == ("allow-list" if certificate is None else "certificate")
    check_ak(ak)
    check_node_key(node_key)
    secret = os.urandom(32)
    credential = make_credential(ek, ak.name(), secret)
    assert node.activate(credential.blob, credential.encrypted_secret) == secret
    certified = node.certify(secret)
    verify_certify(
        attest=certified.attest,
        signature=certified.signature,
        ak=ak,
        ak_parent=ek,
        node_key=node_key,
        qualifying=hashlib.sha256(secret).digest(),
    )


def take_away(tpm: SoftwareTpm, *names: str) -> None:
    """Undefine certificates that its maker put into a TPM: it has one of L-1 and one of H-3."""
    with ESAPI(tpm.tcti) as esys:
        for name in names:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(CERTIFICATES[name]), auth_handle=ESYS_TR.PLATFORM)


def test_a_tpm_with_a_certificate_on_p384_alone() -> None:
    with SoftwareTpm() as tpm:
        with SoftwareNode(tpm) as node:
            first = node.ek_sha256
        take_away(tpm, "L-1")
        with SoftwareNode(tpm) as node:
            assert node.ek_certificate is not None
            key = x509.load_der_x509_certificate(node.ek_certificate).public_key()
            assert isinstance(key, EllipticCurvePublicKey)
            assert isinstance(key.curve, SECP384R1)
            spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            assert node.ek_sha256 == hashlib.sha256(spki).hexdigest() != first
            enrols(node, node.ek_certificate)
            tpm.power_cycle()
            assert node.quote(bytes(32)).pcrs


@pytest.fixture(scope="module")
def bare() -> Iterator[SoftwareTpm]:
    """A TPM without certificates."""
    with SoftwareTpm() as tpm:
        take_away(tpm, "L-1", "H-3")
        yield tpm


@pytest.mark.parametrize("name", CERTIFICATES)
def test_the_key_is_that_of_the_certificate(bare: SoftwareTpm, name: str) -> None:
    """A certificate of any template, here one that says nothing, decides which key is made, and how it is opened."""
    nothing = b"\x30\x82\x00\x00"
    kept = TPMS_NV_PUBLIC(
        nvIndex=CERTIFICATES[name],
        nameAlg=0x0B,
        attributes=TPMA_NV.OWNERREAD | TPMA_NV.OWNERWRITE | TPMA_NV.AUTHREAD,
        dataSize=len(nothing),
    )
    with ESAPI(bare.tcti) as esys:
        index = esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=kept))
        esys.nv_write(index, nothing, auth_handle=ESYS_TR.OWNER)
        assert template_of(esys).name == name
    try:
        with SoftwareNode(bare) as node:
            assert node.ek_certificate == nothing
            enrols(node, None)
    finally:
        with ESAPI(bare.tcti) as esys:
            esys.nv_undefine_space(esys.tr_from_tpmpublic(CERTIFICATES[name]))


def test_without_a_certificate_it_is_the_default_one(bare: SoftwareTpm) -> None:
    with SoftwareNode(bare) as node:
        assert node.ek_certificate is None
        assert len(node.ek_public) == 314  # RSA-2048
        enrols(node, None)
