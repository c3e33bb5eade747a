"""A TPM 2.0 and what it is asked to do."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

from tpm2_pytss import ESAPI, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPMA_OBJECT
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPML_PCR_SELECTION,
    TPMS_CONTEXT,
    TPMT_PUBLIC,
)

from umec_attest.agent.errors import TpmRefused, TpmUnavailable
from umec_attest.agent.tpm.certificates import read_certificate, read_chain
from umec_attest.agent.tpm.endorsement import ek_session, endorsement_key
from umec_attest.agent.tpm.objects import Attested, EndorsementKey, PcrQuote, Remembered, WrappedKey, public_area
from umec_attest.agent.tpm.pcrs import read_pcrs, selection
from umec_attest.agent.tpm.signing import (
    KEY_ATTRIBUTES,
    bound_template,
    jose,
    no_ticket,
    null_scheme,
    p256_template,
)

__all__ = ["Tpm"]

T = TypeVar("T")

QUOTE_TRIES: Final = 5
"""Somebody (systemd, a user) may extend a PCR between reading and quoting; five times in a row nobody does."""

RC_LAYER_TCTI: Final = 0x000A0000
"""tss2_common.h: the error came from the transport and not from the TPM."""
RC_LAYER_MASK: Final = 0x00FF0000
RC_INITIALIZE: Final = 0x100
"""TPM_RC_INITIALIZE: the TPM was switched on, and nobody has sent TPM2_Startup yet."""
RC_WARNING: Final = 0x900
RC_KIND: Final = 0xFFFFFD80
"""Part 2, 6.6.3: of format 0, the TPM's own, and a warning: nothing was done, and trying again may help (busy, out of
memory, TPM_RC_NV_RATE, in lockout). A code of format 1 has the number of a session where a warning has that."""


class Tpm:
    """A TPM reached through a TCTI such as `device:/dev/tpmrm0`; a context manager.

    It survives that the TPM or its transport restarts: every operation connects anew when it must. Several
    threads may share it; one at a time is served. Errors: TpmUnavailable, TpmRefused.
    """

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self._connection: ESAPI | None = None
        self._parked: dict[bytes, TPMS_CONTEXT] = {}
        self._remembered = Remembered()
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the TPM; nothing of ours stays in it."""
        with self._lock:
            self._parked.clear()
            self._remembered = Remembered()
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def forget(self, *keys: WrappedKey) -> None:
        """Keep nothing of keys that will not be used any more."""
        with self._lock:
            for key in keys:
                self._parked.pop(key.public, None)

    def endorsement_key(self) -> EndorsementKey:
        """Return the EK, with its certificate and what the TPM has of the chain above it."""

        def read(esys: ESAPI) -> EndorsementKey:
            with endorsement_key(esys) as handle:
                public, _, _ = esys.read_public(handle)
            return EndorsementKey(
                bytes(public.publicArea.marshal()),
                bytes(public.to_der()),
                read_certificate(esys),
                read_chain(esys),
            )

        return self._do(read)

    def create_attestation_key(self) -> WrappedKey:
        """Make an AK: P-256, restricted to what the TPM itself made."""
        return self._create(p256_template(KEY_ATTRIBUTES | TPMA_OBJECT.RESTRICTED))

    def create_node_key(self, policy: bytes = b"") -> WrappedKey:
        """Make a node key: P-256, signs any digest, stays in this TPM; with a policy, it signs by that alone."""
        return self._create(bound_template(policy) if policy else p256_template(KEY_ATTRIBUTES))

    def activate_credential(self, ak: WrappedKey, blob: bytes, encrypted_secret: bytes) -> bytes:
        """Open what the verifier sealed to this EK and this AK's name (contents of TPM2_MakeCredential's outputs)."""

        def activate(esys: ESAPI) -> bytes:
            with self._loaded(esys, ak) as ak_handle, endorsement_key(esys) as ek, ek_session(esys) as session:
                secret = esys.activate_credential(
                    ak_handle,
                    ek,
                    TPM2B_ID_OBJECT(blob),
                    TPM2B_ENCRYPTED_SECRET(encrypted_secret),
                    session1=ESYS_TR.PASSWORD,
                    session2=session,
                )
            return bytes(secret)

        return self._do(activate)

    def certify(self, key: WrappedKey, ak: WrappedKey, qualifying: bytes) -> Attested:
        """Let the AK state that `key` is in this TPM; `qualifying` (at most 64 bytes) comes back in extraData."""

        def certify(esys: ESAPI) -> Attested:
            with self._loaded(esys, ak) as ak_handle, self._loaded(esys, key) as handle:
                attest, signature = esys.certify(handle, ak_handle, qualifying, null_scheme())
            return Attested(bytes(attest), bytes(signature.marshal()))

        return self._do(certify)

    def quote(self, ak: WrappedKey, nonce: bytes, pcrs: Sequence[int]) -> PcrQuote:
        """Quote PCRs of the SHA-256 bank; the values returned are those that the quote covers."""
        asked = selection(pcrs)

        def quote(esys: ESAPI) -> PcrQuote:
            with self._loaded(esys, ak) as handle:
                for _ in range(QUOTE_TRIES):
                    values = read_pcrs(esys, pcrs)
                    attest, signature = esys.quote(handle, TPML_PCR_SELECTION.parse(asked), nonce)
                    made = Attested(bytes(attest), bytes(signature.marshal()))
                    digest = hashlib.sha256(b"".join(values[index] for index in sorted(values))).digest()
                    if made.attest.endswith(digest):  # TPMS_QUOTE_INFO ends with pcrDigest
                        return PcrQuote(made, values)
            raise TpmUnavailable("the PCRs change faster than they can be quoted")

        return self._do(quote)

    def read_pcrs(self, pcrs: Sequence[int]) -> Mapping[int, bytes]:
        """Return the values of PCRs of the SHA-256 bank."""
        selection(pcrs)
        return self._do(lambda esys: read_pcrs(esys, pcrs))

    def sign(self, key: WrappedKey, digest: bytes) -> bytes:
        """Sign a SHA-256 digest; returns r||s, 32 bytes each, as JOSE wants it (RFC 7518 3.4)."""

        def sign(esys: ESAPI) -> bytes:
            with self._loaded(esys, key) as handle:
                signature = esys.sign(handle, digest, null_scheme(), no_ticket())
            return jose(bytes(signature.marshal()))

        return self._do(sign)

    def use(self, key: WrappedKey, work: Callable[[ESAPI, ESYS_TR, Remembered], T]) -> T:
        """Do what a loaded key is needed for; what is remembered lasts as long as the connection."""

        def use(esys: ESAPI) -> T:
            with self._loaded(esys, key) as handle:
                return work(esys, handle, self._remembered)

        return self._do(use)

    def do(self, work: Callable[[ESAPI], T]) -> T:
        """Do what is too rare to be a method here, such as unsealing (`umec_attest.agent.tpm.sealing`)."""
        return self._do(work)

    def _create(self, template: TPMT_PUBLIC) -> WrappedKey:
        area = TPM2B_PUBLIC(publicArea=template)

        def create(esys: ESAPI) -> WrappedKey:
            with endorsement_key(esys) as ek, ek_session(esys) as session:
                private, public, _, _, _ = esys.create(ek, TPM2B_SENSITIVE_CREATE(), area, session1=session)
            return WrappedKey(bytes(public.publicArea.marshal()), bytes(private))

        return self._do(create)

    @contextmanager
    def _loaded(self, esys: ESAPI, key: WrappedKey) -> Iterator[ESYS_TR]:
        handle = self._unpark(esys, key)
        if handle is None:
            with endorsement_key(esys) as ek, ek_session(esys) as session:
                handle = esys.load(
                    ek, TPM2B_PRIVATE(key.private), TPM2B_PUBLIC(publicArea=public_area(key.public)), session1=session
                )
            self._parked[key.public] = esys.context_save(handle)
        try:
            yield handle
        finally:
            esys.flush_context(handle)

    def _unpark(self, esys: ESAPI, key: WrappedKey) -> ESYS_TR | None:
        parked = self._parked.get(key.public)
        if parked is None:
            return None
        try:
            return esys.context_load(parked)
        except TSS2_Exception as error:
            if _is_transport(error):
                raise
            del self._parked[key.public]  # the TPM restarted: what was parked before means nothing to it
            return None

    def _do(self, work: Callable[[ESAPI], T]) -> T:
        """Do one piece of work; connect if need be, and once more if the connection turns out to be an old one."""
        with self._lock:
            fresh = self._connection is None
            try:
                return work(self._connected())
            except TSS2_Exception as error:
                self.close()
                if not fresh and _is_transport(error):
                    return self._do(work)
                raise _translated(error, self._tcti) from error

    def _connected(self) -> ESAPI:
        if self._connection is None:
            try:
                self._connection = ESAPI(self._tcti)
            except (TSS2_Exception, RuntimeError, ValueError) as error:
                raise TpmUnavailable(
                    f"no TPM at {self._tcti!r}: {error}", advice="check --tcti and its rights"
                ) from error
        return self._connection


def _is_transport(error: TSS2_Exception) -> bool:
    return bool(error.rc & RC_LAYER_MASK == RC_LAYER_TCTI)


def _translated(error: TSS2_Exception, tcti: str) -> TpmUnavailable | TpmRefused:
    if _is_transport(error) or error.rc == RC_INITIALIZE or error.rc & RC_KIND == RC_WARNING:
        return TpmUnavailable(f"the TPM at {tcti!r} does not answer: {error}")
    return TpmRefused(f"the TPM refused: {error}")
