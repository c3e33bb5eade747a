"""CoRIMs of Veraison: every bad one is refused; the good ones are read, or refused for their profile."""

import pytest

from umec_attest.corim import read_corim
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.errors import UmecError

pytestmark = pytest.mark.vectors

PARSEC = {
    "bad-class-id": "corim-invalid",  # an OID instead of a UUID
    "bad-instance": "corim-invalid",  # a UUID instead of a UEID
    "bad-multiple-keys": "corim-invalid",
    "bad-no-class": "corim-invalid",
    "bad-no-class-id": "corim-invalid",
    "bad-no-digests": "corim-unsupported",  # a serial number instead
    "bad-no-instance": "corim-invalid",
    "bad-no-pcr": "corim-invalid",
    "bad-pcr": "corim-invalid",  # a UUID instead of a number
}


def code(data):
    with pytest.raises(UmecError) as refused:
        read_corim(data)
    return refused.value.code


@pytest.fixture
def corims(vectors):
    """Name -> bytes of the CoRIMs of a scheme."""

    def run(scheme, prefix):
        folder = vectors / "attest/veraison" / scheme / "corim"
        return {path.stem.removeprefix(prefix): path.read_bytes() for path in folder.glob("*.cbor")}

    return run


def test_parsec(corims):
    found = corims("parsec-tpm", "corim-parsec-tpm-")
    good = read_corim(found.pop("valid"))
    assert {name: code(data) for name, data in found.items()} == PARSEC
    assert {algorithm: set(bank) for algorithm, bank in good.values.items()} == {
        HashAlgorithm.SHA256: {0, 1, 2},
        HashAlgorithm.SHA384: {0, 1, 2},
    }
    assert good.values[HashAlgorithm.SHA256][0] == {bytes(32)}
    assert good.left_out == ("attestation keys (nodes enrol theirs): 1",)


def test_enacttrust_gives_one_digest_for_several_pcrs_which_no_reference_set_can_say(corims):
    found = corims("tpm-enacttrust", "corim-enacttrust-")
    assert len(found) == 8
    assert {code(data) for data in found.values()} == {"corim-profile-unsupported"}
