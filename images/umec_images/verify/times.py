"""When a signature was made: time stamps of trusted authorities (RFC 3161), and the log's signed integration time.

The integration time counts only with the log's promise (SET), whose signature is checked with the log entry.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from rfc3161_client import TimeStampResponse, VerificationError, VerifierBuilder, decode_timestamp_response
from sigstore_models.bundle.v1 import Bundle

from umec_images.errors import AuthorityExpired, SignatureInvalid
from umec_images.verify.trust import TimeAuthority

__all__ = ["SKEW", "verified_times"]

SKEW: Final = timedelta(seconds=60)
"""How far ahead of us the clock of an authority may be."""
MAX_STAMPS: Final = 8
"""Each is tried with each authority; signers ask one authority, or two."""


def verified_times(
    bundle: Bundle, signature: bytes, authorities: Sequence[TimeAuthority], now: datetime
) -> tuple[datetime, ...]:
    """Return all times at which the signature verifiably existed, at least one; raises SignatureInvalid.

    AuthorityExpired where a time stamping authority of ours says when, and was not trusted then.
    """
    stamped = _stamped(bundle, signature, authorities)
    times = [*(time for time, trusted in stamped if trusted), *_integrated(bundle)]
    if not times and stamped:
        raise AuthorityExpired(
            f"the authority that stamped this on {stamped[0][0]:%Y-%m-%d %H:%M:%S} UTC was not trusted then"
        )
    if not times:
        raise SignatureInvalid("no trusted authority says when this was signed")
    if max(times) > now + SKEW:
        raise SignatureInvalid("this was signed in the future")
    return tuple(sorted(set(times)))


def _stamped(bundle: Bundle, signature: bytes, authorities: Sequence[TimeAuthority]) -> list[tuple[datetime, bool]]:
    """Return the times of all good stamps, and whether their authority was trusted then."""
    data = bundle.verification_material.timestamp_verification_data
    stamps = [] if data is None else list(data.rfc3161_timestamps or [])
    if len(stamps) > MAX_STAMPS:
        raise SignatureInvalid(f"the bundle has {len(stamps)} time stamps, at most {MAX_STAMPS} are read")
    responses = [decode_timestamp_response(stamp.signed_timestamp) for stamp in stamps]
    found = [_time(response, signature, authority) for response in responses for authority in authorities]
    return [time for time in found if time is not None]


def _time(response: TimeStampResponse, signature: bytes, authority: TimeAuthority) -> tuple[datetime, bool] | None:
    """Return the time in a response if this authority made it, and whether it was trusted then."""
    builder = VerifierBuilder().tsa_certificate(authority.chain[0]).add_root_certificate(authority.chain[-1])
    for certificate in authority.chain[1:-1]:
        builder = builder.add_intermediate_certificate(certificate)
    try:
        builder.build().verify_message(response, signature)
    except VerificationError:
        return None
    time = response.tst_info.gen_time
    return time, authority.trusted_at(time)


def _integrated(bundle: Bundle) -> list[datetime]:
    return [
        datetime.fromtimestamp(entry.integrated_time, UTC)
        for entry in bundle.verification_material.tlog_entries
        if entry.integrated_time and entry.inclusion_promise is not None
    ]
