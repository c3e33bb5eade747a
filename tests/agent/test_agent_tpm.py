"""The agent's TPM operations, against a software TPM that really signs; its answers checked by other code than ours."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_CAP
from tpm2_pytss.types import TPM2B_PUBLIC, TPMS_ATTEST, TPMT_PUBLIC, TPMT_SIGNATURE
from tpm2_pytss.utils import make_credential

from umec_attest.agent.errors import TpmRefused, TpmUnavailable
from umec_attest.agent.tpm import Tpm, WrappedKey
from umec_attest.testing.node import DEFAULT_PCRS, SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_core.errors import UmecError

DIGEST = hashlib.sha256(b"something").digest()


@pytest.fixture(scope="module")
def shared_tpm() -> Iterator[SoftwareTpm]:
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture
def software_node(shared_tpm: SoftwareTpm) -> Iterator[SoftwareNode]:
    with SoftwareNode(shared_tpm) as node:
        yield node


@pytest.fixture
def other_node(software_tpm: SoftwareTpm) -> Iterator[SoftwareNode]:
    with SoftwareNode(software_tpm) as node:
        yield node


def public(wire: bytes) -> TPM2B_PUBLIC:
    return TPM2B_PUBLIC(publicArea=TPMT_PUBLIC.unmarshal(wire)[0])


def check_jose(key: WrappedKey, digest: bytes, signature: bytes) -> None:
    der = utils.encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    load_der_public_key(key.spki).verify(der, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def check_tpmt(key: WrappedKey, message: bytes, signature: bytes) -> None:
    parsed, read = TPMT_SIGNATURE.unmarshal(signature)
    assert read == len(signature)
    load_der_public_key(key.spki).verify(bytes(parsed), message, ec.ECDSA(hashes.SHA256()))


def sealed(node: SoftwareNode, secret: bytes, *, ak: bytes | None = None) -> tuple[bytes, bytes]:
    blob, encrypted = make_credential(public(node.ek_public), secret, public(ak or node.ak_public).get_name())
    return bytes(blob), bytes(encrypted)


def test_no_tpm_is_unavailable(tmp_path: Path) -> None:
    with Tpm(f"swtpm:path={tmp_path}/none") as tpm, pytest.raises(TpmUnavailable) as refused:
        tpm.endorsement_key()
    assert refused.value.code == "tpm-unavailable"


def test_unknown_tcti_is_unavailable() -> None:
    with Tpm("carrier-pigeon:coop=3") as tpm, pytest.raises(TpmUnavailable) as refused:
        tpm.endorsement_key()
    assert refused.value.code == "tpm-unavailable"


@pytest.mark.parametrize("pcrs", [[], [0, 0], [24], [-1]])
def test_a_selection_that_is_none_is_refused(software_node: SoftwareNode, pcrs: list[int]) -> None:
    with pytest.raises(TpmRefused) as refused:
        software_node.quote(bytes(32), pcrs)
    assert refused.value.code == "tpm-refused"


def test_credential_for_another_ak_is_refused(software_node: SoftwareNode) -> None:
    other = software_node.tpm.create_attestation_key()
    with pytest.raises(TpmRefused) as refused:
        software_node.activate(*sealed(software_node, b"s" * 32, ak=other.public))
    assert refused.value.code == "tpm-refused"
    assert software_node.activate(*sealed(software_node, b"s" * 32)) == b"s" * 32


def test_key_of_another_tpm_is_refused(software_node: SoftwareNode) -> None:
    with SoftwareTpm(authority=software_node.device.authority) as device, Tpm(device.tcti) as other:
        with pytest.raises(TpmRefused) as refused:
            other.sign(software_node.node_key, DIGEST)
        assert refused.value.code == "tpm-refused"
        check_jose(own := other.create_node_key(), DIGEST, other.sign(own, DIGEST))


def test_the_restricted_key_signs_no_digest(software_node: SoftwareNode) -> None:
    with pytest.raises(TpmRefused) as refused:
        software_node.tpm.sign(software_node.ak, DIGEST)
    assert refused.value.code == "tpm-refused"
    check_jose(software_node.node_key, DIGEST, software_node.sign(DIGEST))


def test_a_changed_wrapped_key_is_refused(software_node: SoftwareNode) -> None:
    node_key = software_node.node_key
    changed = WrappedKey(node_key.public, node_key.private[:-1] + bytes([node_key.private[-1] ^ 1]))
    with Tpm(software_node.device.tcti) as tpm:
        with pytest.raises(TpmRefused) as refused:
            tpm.sign(changed, DIGEST)
        assert refused.value.code == "tpm-refused"
        check_jose(node_key, DIGEST, tpm.sign(node_key, DIGEST))


def test_quote_covers_nonce_and_values(software_node: SoftwareNode) -> None:
    nonce = os.urandom(32)
    made = software_node.quote(nonce)
    check_tpmt(software_node.ak, made.quote.attest, made.quote.signature)
    with pytest.raises(InvalidSignature):
        check_tpmt(software_node.node_key, made.quote.attest, made.quote.signature)
    attest, read = TPMS_ATTEST.unmarshal(made.quote.attest)
    assert read == len(made.quote.attest)
    assert bytes(attest.extraData) == nonce
    values = b"".join(made.pcrs[index] for index in DEFAULT_PCRS)
    assert bytes(attest.attested.quote.pcrDigest) == hashlib.sha256(values).digest()
    mask = sum(1 << index for index in DEFAULT_PCRS).to_bytes(3, "little")
    assert attest.attested.quote.pcrSelect.marshal() == bytes.fromhex("00000001000b03") + mask


def test_certify_names_the_node_key(software_node: SoftwareNode) -> None:
    made = software_node.certify(b"secret")
    check_tpmt(software_node.ak, made.attest, made.signature)
    attest, _ = TPMS_ATTEST.unmarshal(made.attest)
    assert bytes(attest.attested.certify.name) == bytes(public(software_node.node_key_public).get_name())
    assert bytes(attest.extraData) == hashlib.sha256(b"secret").digest()


def test_ek_certificate_leads_to_the_root(software_node: SoftwareNode) -> None:
    assert software_node.ek_certificate is not None
    certificate = x509.load_der_x509_certificate(software_node.ek_certificate)
    issuer = x509.load_der_x509_certificate(software_node.ek_chain[0])
    ek = load_der_public_key(software_node.ek.spki)
    assert certificate.public_key() == ek
    issuer.public_key().verify(
        certificate.signature,
        certificate.tbs_certificate_bytes,
        padding.PKCS1v15(),
        certificate.signature_hash_algorithm,
    )
    issuer.verify_directly_issued_by(software_node.device.authority.root)
    assert software_node.ek_sha256 == hashlib.sha256(software_node.ek.spki).hexdigest()


def test_an_ek_that_the_vendor_did_not_keep_is_made_anew(other_node: SoftwareNode) -> None:
    with ESAPI(other_node.device.tcti) as esys:
        esys.evict_control(ESYS_TR.OWNER, esys.tr_from_tpmpublic(0x81010001), 0x81010001)
    with Tpm(other_node.device.tcti) as tpm:
        assert tpm.endorsement_key() == other_node.ek
        check_jose(other_node.node_key, DIGEST, tpm.sign(other_node.node_key, DIGEST))


def test_survives_every_kind_of_restart(software_node: SoftwareNode) -> None:
    device = software_node.device
    for restart in (
        device.power_cycle,
        lambda: (device.stop(), device.start()),
        lambda: (device.kill(), device.start()),
    ):
        check_jose(software_node.node_key, DIGEST, software_node.sign(DIGEST))
        restart()
    device.kill()
    with pytest.raises(TpmUnavailable) as refused:
        software_node.sign(DIGEST)
    assert refused.value.code == "tpm-unavailable"
    device.start()
    check_jose(software_node.node_key, DIGEST, software_node.sign(DIGEST))


@pytest.mark.parametrize(
    ("response", "code"),
    [(each, "tpm-unavailable") for each in (0x100, 0x901, 0x907, 0x90A, 0x918, 0x920, 0x921, 0x922, 0x923, 0x97F)]
    + [(each, "tpm-refused") for each in (0x01E, 0x101, 0x128, 0x148, 0x500, 0xD20, 0x98E, 0x99D, 0x9A2, 0x9E2)]
    + [(0x000A0001, "tpm-unavailable"), (0x00070920, "tpm-refused"), (0x00090922, "tpm-refused")],
    ids=lambda value: value if isinstance(value, str) else hex(value),
)
def test_only_a_warning_of_the_tpm_says_that_trying_again_may_help(
    software_node: SoftwareNode, response: int, code: str
) -> None:
    def work(_esys: ESAPI) -> None:
        raise TSS2_Exception(response)

    with Tpm(software_node.device.tcti) as tpm:
        with pytest.raises(UmecError) as refused:
            tpm.do(work)
        assert refused.value.code == code
        check_jose(software_node.node_key, DIGEST, tpm.sign(software_node.node_key, DIGEST))


def test_power_cuts_are_no_attack_on_the_keys(software_node: SoftwareNode) -> None:
    for _ in range(5):
        software_node.sign(DIGEST)
        software_node.quote(bytes(32))
        software_node.device.power_cycle(orderly=False)
    check_jose(software_node.node_key, DIGEST, software_node.sign(DIGEST))
    with ESAPI(software_node.device.tcti) as esys:
        _, capability = esys.get_capability(TPM2_CAP.TPM_PROPERTIES, 0x20E, 1)  # TPM_PT_LOCKOUT_COUNTER
        assert capability.data.tpmProperties.tpmProperty[0].value == 0


def test_nothing_of_ours_stays_in_the_tpm(software_node: SoftwareNode) -> None:
    software_node.activate(*sealed(software_node, b"s" * 32))
    software_node.quote(bytes(32))
    with pytest.raises(TpmRefused):
        software_node.activate(b"", b"")
    with ESAPI(software_node.device.tcti) as esys:
        for first in (0x80000000, 0x02000000, 0x03000000):  # transient objects, loaded sessions, saved sessions
            _, capability = esys.get_capability(TPM2_CAP.HANDLES, first, 8)
            assert capability.data.handles.count == 0


def test_a_stopped_software_tpm_leaves_nothing_behind() -> None:
    with SoftwareTpm() as first, SoftwareTpm() as second:
        pids = [first.pid, second.pid]
        places = [Path(device.tcti.removeprefix("swtpm:path=")).parent for device in (first, second)]
        assert first.authority.root != second.authority.root
        assert all(place.is_dir() for place in places)
    assert not any(place.exists() for place in places)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_named_directory_keeps_the_tpm(tmp_path: Path) -> None:
    keys, roots = [], []
    for _ in range(2):
        with SoftwareTpm(tmp_path / "tpm") as device, Tpm(device.tcti) as tpm:
            keys.append(tpm.endorsement_key())
            roots.append(device.authority.root)
    assert keys[0] == keys[1]
    assert roots[0] == roots[1]
