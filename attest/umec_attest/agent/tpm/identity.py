"""Keys that the maker of the device keeps in its TPM: IAK and IDevID, persistent at handles of the maker's choice."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tpm2_pytss import ESAPI
from tpm2_pytss.constants import ESYS_TR
from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC

from umec_attest.agent.tpm.endorsement import ek_session, endorsement_key
from umec_attest.agent.tpm.objects import Attested, WrappedKey, public_area
from umec_attest.agent.tpm.signing import null_scheme

__all__ = ["certify_by", "read_persistent"]


def read_persistent(esys: ESAPI, handle: int) -> bytes:
    """Return the TPMT_PUBLIC of the key at a persistent handle."""
    with _present(esys, handle) as key:
        public, _, _ = esys.read_public(key)
    return bytes(public.publicArea.marshal())


def certify_by(esys: ESAPI, signer: int, subject: WrappedKey | int, qualifying: bytes) -> Attested:
    """Let the key at the handle `signer` state that `subject` is in this TPM; `qualifying` comes back in extraData."""
    with ExitStack() as present:
        key = present.enter_context(_present(esys, signer))
        certified = key if subject == signer else present.enter_context(_present(esys, subject))
        attest, signature = esys.certify(certified, key, qualifying, null_scheme())
    return Attested(bytes(attest), bytes(signature.marshal()))


@contextmanager
def _present(esys: ESAPI, key: WrappedKey | int) -> Iterator[ESYS_TR]:
    if isinstance(key, int):
        handle = esys.tr_from_tpmpublic(key)
        try:
            yield handle
        finally:
            esys.tr_close(handle)  # of the library: the key stays in the TPM
        return
    with endorsement_key(esys) as ek, ek_session(esys) as session:
        public = TPM2B_PUBLIC(publicArea=public_area(key.public))
        handle = esys.load(ek, TPM2B_PRIVATE(key.private), public, session1=session)
    try:
        yield handle
    finally:
        esys.flush_context(handle)
