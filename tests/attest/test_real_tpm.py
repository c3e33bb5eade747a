"""A TPM that is not ours (swtpm) takes our credentials, and our verifier takes what it signs."""

import contextlib
import secrets

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR, TPMA_OBJECT
from tpm2_pytss.types import TPM2B_ENCRYPTED_SECRET, TPM2B_ID_OBJECT, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE

from umec_attest.agent.tpm.endorsement import ek_session
from umec_attest.agent.tpm.signing import KEY_ATTRIBUTES, p256_template
from umec_attest.appraisal import Verdict, appraise
from umec_attest.bootlog import parse_boot_log, verify_boot_log
from umec_attest.certificates import TrustStore, load_certificate
from umec_attest.credential import make_credential
from umec_attest.ek_certificate import EkPolicy
from umec_attest.enrolment import check_ak, check_ek, check_node_key, ek_sha256, verify_certify
from umec_attest.errors import BootLogRefused
from umec_attest.predict import predict
from umec_attest.quote import verify_quote
from umec_attest.testing import firmware
from umec_attest.testing.image import Tamper, load_image, make_image, tampered
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import parse_public
from umec_policies import load_default


@pytest.fixture(scope="module")
def device():
    with SoftwareTpm() as tpm:
        yield tpm


@pytest.fixture(scope="module")
def node(device):
    with SoftwareNode(device) as made:
        yield made


def test_enrolment_with_a_manufactured_tpm(node, kit):
    ek, ak, node_key = (parse_public(data) for data in (node.ek_public, node.ak_public, node.node_key_public))
    root = node.device.authority.root.public_bytes(Encoding.DER)
    endorsed = check_ek(
        public=ek,
        certificate=node.ek_certificate,
        chain=node.ek_chain,
        policy=EkPolicy(TrustStore((load_certificate(root, tolerate=False),)), software_tpms=True),
        now=kit.NOW,
    )
    assert (endorsed.endorsed_by, endorsed.sha256) == ("certificate", node.ek_sha256)
    assert endorsed.model.maker == "id:00001014"
    check_ak(ak)
    check_node_key(node_key)
    secret = secrets.token_bytes(32)
    credential = make_credential(ek, ak.name(), secret)
    assert node.activate(credential.blob, credential.encrypted_secret) == secret
    certified = node.tpm.certify(node.node_key, node.ak, secret)
    key = verify_certify(
        attest=certified.attest,
        signature=certified.signature,
        ak=ak,
        ak_parent=ek,
        node_key=node_key,
        qualifying=secret,
    )
    assert key.name == node_key.name()


def test_a_credential_for_another_key_does_not_open(node):
    ek, node_key = parse_public(node.ek_public), parse_public(node.node_key_public)
    credential = make_credential(ek, node_key.name(), bytes(32))
    with pytest.raises(Exception, match=r".+"):
        node.activate(credential.blob, credential.encrypted_secret)


EK_ATTRIBUTES = (
    TPMA_OBJECT.FIXEDTPM
    | TPMA_OBJECT.FIXEDPARENT
    | TPMA_OBJECT.SENSITIVEDATAORIGIN
    | TPMA_OBJECT.ADMINWITHPOLICY
    | TPMA_OBJECT.RESTRICTED
    | TPMA_OBJECT.DECRYPT
)
POLICY_A = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
POLICY_B = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0"
POLICY_B_384 = "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12"
EK_TEMPLATES = {
    "L-1": ("rsa2048:aes128cfb", "sha256", POLICY_A, False),
    "L-2": ("ecc256:aes128cfb", "sha256", POLICY_A, False),
    "H-1": ("rsa2048:aes128cfb", "sha256", POLICY_B, True),
    "H-2": ("ecc256:aes128cfb", "sha256", POLICY_B, True),
    "H-3": ("ecc384:aes256cfb", "sha384", POLICY_B_384, True),
}
"""EK Credential Profile, B.3 and B.4; those of the high range open with the (empty) password, too."""


@pytest.mark.parametrize("name", EK_TEMPLATES)
def test_a_credential_for_each_template_of_endorsement_keys(device, kit, name):
    """RSA-2048, P-256 and P-384: a real TPM makes the key and opens what was sealed to it and to another key's Name."""
    shape, name_algorithm, policy, with_password = EK_TEMPLATES[name]
    attributes = EK_ATTRIBUTES | (TPMA_OBJECT.USERWITHAUTH if with_password else TPMA_OBJECT(0))
    template = TPM2B_PUBLIC.parse(
        shape, objectAttributes=attributes, nameAlg=name_algorithm, authPolicy=bytes.fromhex(policy)
    )
    with contextlib.ExitStack() as stack:
        esys = stack.enter_context(ESAPI(device.tcti))

        def primary(shape, hierarchy):
            handle, public, _, _, _ = esys.create_primary(TPM2B_SENSITIVE_CREATE(), shape, hierarchy)
            stack.callback(esys.flush_context, handle)
            return handle, public

        ek_handle, public = primary(template, ESYS_TR.ENDORSEMENT)
        other, other_public = primary(TPM2B_PUBLIC(publicArea=p256_template(KEY_ATTRIBUTES)), ESYS_TR.OWNER)
        ek = parse_public(bytes(public.publicArea.marshal()))
        check_ek(
            public=ek,
            certificate=None,
            chain=(),
            policy=EkPolicy(TrustStore(())),
            now=kit.NOW,
            allow_list=frozenset({ek_sha256(ek)}),
        )
        secret = secrets.token_bytes(32)
        credential = make_credential(ek, bytes(other_public.get_name()), secret)
        opened = esys.activate_credential(
            other,
            ek_handle,
            TPM2B_ID_OBJECT(credential.blob),
            TPM2B_ENCRYPTED_SECRET(credential.encrypted_secret),
            session1=ESYS_TR.PASSWORD,
            session2=ESYS_TR.PASSWORD if with_password else stack.enter_context(ek_session(esys)),
        )
        assert bytes(opened) == secret


def round_of(node, kit, log):
    """One round: quote, replay; returns the quote and the log or why it was refused."""
    quoted = node.quote(kit.NONCE, kit.PCRS)
    quote = verify_quote(
        attest=quoted.quote.attest,
        signature=quoted.quote.signature,
        ak=parse_public(node.ak_public),
        ak_parent=parse_public(node.ek_public),
        nonce=kit.NONCE,
        selection=PcrSelection.from_mapping({"sha256": kit.PCRS}),
        pcrs={kit.SHA256: dict(quoted.pcrs)},
    )
    try:
        return quote, verify_boot_log(parse_boot_log(log), quote)
    except BootLogRefused as error:
        return quote, error


def test_the_predicted_boot_is_affirmed_and_each_changed_stage_is_not(device, node, kit, tmp_path):
    image = make_image(tmp_path)
    reference = kit.make_reference(predict(image).pcrs)
    policies = load_default("appraisal")

    def boot(tamper=None):
        device.power_cycle()
        quote, log = round_of(node, kit, firmware.boot(device, image, tamper=tamper))
        return appraise(
            node="lamp", quote=quote, log=log, reference=reference, policies=policies, previous=None, now=kit.NOW
        )

    good = boot()
    assert good.verdict is Verdict.AFFIRMING, good.findings
    assert good.trust_vector["executables"] == 3
    for tamper, pcrs in (
        (Tamper.CMDLINE, {"4", "11"}),
        (Tamper.KERNEL, {"4", "11"}),
        (Tamper.INITRD, {"4", "11"}),
        (Tamper.FIRMWARE, {"0"}),
        (Tamper.SECURE_BOOT, {"7"}),
    ):
        changed = boot(tamper)
        assert changed.verdict is Verdict.CONTRAINDICATED
        wrong = {f.detail.split()[1] for f in changed.findings if f.id == "pcr-unexpected"}
        assert wrong == pcrs


@pytest.mark.parametrize("tamper", [None, *Tamper])
def test_prediction_and_firmware_agree_for_every_image(kit, tmp_path, tamper):
    """Two implementations that share nothing: what the one measures is what the other predicts."""
    image = make_image(tmp_path, secure_boot=tamper is not Tamper.KERNEL, kernel=b"k" * 5000, cmdline="x" * 513)
    contents = load_image(image)
    if tamper is not None:
        contents = tampered(contents, tamper)
        (image / "uki.efi").write_bytes(contents.uki)
        (image / "firmware.bin").write_bytes(contents.firmware)
        for name, value in contents.variables.items():
            (image / "efivars" / name).write_bytes(value)
    values = dict.fromkeys(kit.PCRS, bytes(32))
    for measured in firmware.measurements(contents):
        values[measured.pcr] = kit.SHA256.digest(values[measured.pcr] + measured.digest)
    assert predict(image).pcrs == values
