"""A secret for one TPM, one boot and one minute: a sealed object that TPM2_Import takes below the endorsement key.

The seed is encrypted to the EK, so no other TPM imports the object; and its policy lets nobody unseal it

    1  whose PCRs are not those of the quote that the secret was released for
    2  in another boot than that of the quote (resetCount, and restartCount: also after a suspend or a hibernation)
    3  later than a minute after the quote, by the TPM's own clock

so a recorded answer is worth nothing. It has no password, and no policy under which it could be duplicated again.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from umec_attest.credential import outer_wrap
from umec_attest.errors import SecretSize
from umec_attest.sealed.policies import (
    CLOCK_OFFSET,
    EMPTY,
    RESET_COUNT_OFFSET,
    Comparison,
    policy_counter_timer,
    policy_pcr,
)
from umec_attest.tpm.algorithms import ALG_NULL, HashAlgorithm
from umec_attest.tpm.attest import ClockInfo
from umec_attest.tpm.public import Attributes, Public
from umec_attest.tpm.wire import sized, u16, u32, u64

__all__ = ["MAX_SECRET", "MIN_SECRET", "WINDOW", "SealedSecret", "check_secret", "seal_for_boot"]

MAX_SECRET: Final = 128
"""Bytes: MAX_SYM_DATA of a TPM, the most that a sealed object holds."""
MIN_SECRET: Final = 16
"""Bytes; what is shorter is a password, or a mistake."""
WINDOW: Final = 60_000
"""Milliseconds from the quote to the unsealing: a slow TPM and a slow network fit in."""

_ALG_KEYEDHASH: Final = 0x0008
_DUPLICATE: Final = b"DUPLICATE"
_SHA256: Final = HashAlgorithm.SHA256
_MEASURED_LATER: Final = frozenset({10, 15})
"""They grow while the system runs (IMA, starts of applications); they would have changed before the secret arrives."""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """What goes to TPM2_Import, each without its outer 16-bit size, and what its policy asks for.

    `public` is a TPMT_PUBLIC, `duplicate` the content of a TPM2B_PRIVATE, `encrypted_seed` that of a
    TPM2B_ENCRYPTED_SECRET. `pcrs` of the SHA-256 bank; `clock_until` in the TPM's milliseconds.
    """

    public: bytes
    duplicate: bytes
    encrypted_seed: bytes
    pcrs: tuple[int, ...]
    reset_count: int
    restart_count: int
    clock_until: int


def check_secret(secret: bytes) -> bytes:
    """Return a secret that can be sealed. Errors: `SecretSize`."""
    if not MIN_SECRET <= len(secret) <= MAX_SECRET:
        raise SecretSize(f"a secret has {MIN_SECRET} to {MAX_SECRET} bytes, this one {len(secret)}")
    return secret


def seal_for_boot(
    ek: Public, secret: bytes, *, pcrs: Mapping[int, bytes], clock: ClockInfo, window: int = WINDOW
) -> SealedSecret:
    """Seal a secret for the TPM with this EK, in the state and the boot of a verified quote.

    `pcrs` are the quoted values of the SHA-256 bank, `clock` what the quote says of the time; `window` is in
    milliseconds. Errors: `SecretSize`, `TpmInvalid` where nothing was quoted, `EkProfile`.
    """
    check_secret(secret)
    bound = {index: value for index, value in pcrs.items() if index not in _MEASURED_LATER}
    clock_until = clock.clock + window
    policy = policy_pcr(EMPTY, bound)  # 1
    boot = u32(clock.reset_count) + u32(clock.restart_count)
    policy = policy_counter_timer(policy, boot, RESET_COUNT_OFFSET, Comparison.EQUAL)  # 2
    policy = policy_counter_timer(policy, u64(clock_until), CLOCK_OFFSET, Comparison.AT_MOST)  # 3
    seed = secrets.token_bytes(_SHA256.digest_size)
    public = _public(policy, _SHA256.digest(seed + secret))
    name = u16(_SHA256) + _SHA256.digest(public)
    sensitive = u16(_ALG_KEYEDHASH) + sized(b"") + sized(seed) + sized(secret)
    made = outer_wrap(ek, name, sized(sensitive), _DUPLICATE)
    return SealedSecret(
        public=public,
        duplicate=sized(made.integrity) + made.encrypted,
        encrypted_seed=made.encrypted_seed,
        pcrs=tuple(sorted(bound)),
        reset_count=clock.reset_count,
        restart_count=clock.restart_count,
        clock_until=clock_until,
    )


def _public(policy: bytes, unique: bytes) -> bytes:
    """Return the TPMT_PUBLIC of a sealed object that only its policy opens."""
    head = u16(_ALG_KEYEDHASH) + u16(_SHA256) + u32(Attributes.NO_DA) + sized(policy)
    return head + u16(ALG_NULL) + sized(unique)
