"""What an enrolment shows and proves of the identity that the maker gave the device: IAK and IDevID."""

import base64
from dataclasses import dataclass
from typing import Any

from umec_attest.agent.tpm import Attested, Tpm, WrappedKey
from umec_attest.agent.tpm.identity import certify_by, read_persistent

__all__ = ["DeviceKey", "DeviceKeys", "prove_keys", "show_keys"]


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A key at a persistent handle; its certificate and those above it are DER."""

    handle: int
    certificate: bytes
    chain: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The IAK, and the IDevID where the device has one."""

    iak: DeviceKey
    idevid: DeviceKey | None = None


def show_keys(tpm: Tpm, keys: DeviceKeys) -> dict[str, Any]:
    """Return what goes into the request of an enrolment. Raises TpmRefused, TpmUnavailable."""
    shown = {"iak": _shown(tpm, keys.iak)}
    return shown if keys.idevid is None else {**shown, "idevid": _shown(tpm, keys.idevid)}


def prove_keys(tpm: Tpm, keys: DeviceKeys, ak: WrappedKey, qualifying: bytes) -> dict[str, Any]:
    """Let the IAK certify AK and IDevID, and return what goes into the activation. Raises as `show_keys`."""
    subjects: dict[str, WrappedKey | int] = {"iak_certifies_ak": ak}
    if keys.idevid is not None:
        subjects["iak_certifies_idevid"] = keys.idevid.handle
    return {name: _certified(tpm, keys.iak.handle, subject, qualifying) for name, subject in subjects.items()}


def _shown(tpm: Tpm, key: DeviceKey) -> dict[str, Any]:
    return {
        "public": _text(tpm.do(lambda esys: read_persistent(esys, key.handle))),
        "certificate": _text(key.certificate),
        "chain": [_text(certificate) for certificate in key.chain],
    }


def _certified(tpm: Tpm, signer: int, subject: WrappedKey | int, qualifying: bytes) -> dict[str, str]:
    made: Attested = tpm.do(lambda esys: certify_by(esys, signer, subject, qualifying))
    return {"attest": _text(made.attest), "signature": _text(made.signature)}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
