"""What one entry is worth against a runtime policy.

1  a path that the policy excludes is not judged, whatever was measured there
2  a file that changed while it was measured is a violation, whatever it was before or after
3  a name has to be a path that this kernel could have measured
4  a digest has to be SHA-2
5  a listed file has to have a listed digest
6  a file that is not listed needs a signature by a key of the policy
7  a buffer needs a listed digest, or to be the certificate of a key of the policy
"""

from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import InvalidVersion, load_der_x509_certificate

from umec_attest.bootlog.findings import Finding
from umec_attest.errors import ImaInvalid
from umec_attest.ima.entries import LEGACY, ImaEntry
from umec_attest.ima.paths import measured_path
from umec_attest.ima.policy import RuntimePolicy
from umec_attest.ima.signatures import signature_finding
from umec_attest.tpm.algorithms import SIGNING_HASHES

__all__ = ["entry_finding"]

_SIZES: Final = {algorithm.label.encode(): algorithm.digest_size for algorithm in SIGNING_HASHES}
_WEAK: Final = frozenset({b"md4", b"md5", b"sha1", b"rmd128", b"rmd160"})
_SIGNED: Final = frozenset({"ima-sig", "ima-sigv2", "ima-modsig", "evm-sig"})
_VERSIONED: Final = frozenset({"ima-ngv2", "ima-sigv2"})
_SHOWN: Final = 4
"""Digests of a listed file that a finding shows."""


def entry_finding(entry: ImaEntry, policy: RuntimePolicy) -> Finding | None:
    """Return what is wrong with an entry, or None. Errors: `ImaInvalid` for a digest that is none."""
    path = measured_path(entry.name)
    if path is not None and _excluded(path, policy):  # 1
        return None
    shown = repr(entry.name[:200])[1:] if path is None else path
    if entry.violation:  # 2
        identifier = "ima-violation" if policy.violations == "refuse" else "ima-violation-tolerated"
        return Finding(identifier, f"{shown} was open for writing while it was measured, or was measured while written")
    verity, label, digest = _digest(entry)
    measured = _text(label, digest)
    if path is None and entry.template != "ima-buf":  # 3
        return Finding("ima-path-invalid", f"{shown} is no path that the kernel gives", None, measured)
    if label not in _SIZES:  # 4
        identifier = "ima-digest-weak" if label in _WEAK else "ima-digest-unknown"
        return Finding(identifier, f"{shown} was measured with {measured.partition(':')[0]}", "sha256", measured)
    if path is None:
        return _buffer_finding(entry, label, digest, policy)
    return _file_finding(entry, path, (verity, label, digest), policy)


def _excluded(path: str, policy: RuntimePolicy) -> bool:
    components = path.encode().split(b"/")[1:]
    return any(pattern.matches(components) for pattern in policy.exclude)


def _file_finding(
    entry: ImaEntry, path: str, measured: tuple[bool, bytes, bytes], policy: RuntimePolicy
) -> Finding | None:
    verity, label, digest = measured
    found = _text(label, digest)
    listed = policy.files.get(entry.name + b"\0")
    if listed is not None:  # 5
        if not verity and digest in listed:
            return None
        expected = " or ".join(value.hex() for value in listed[:_SHOWN])
        return Finding("ima-file-changed", f"{path} ran with content that is not listed", expected, found)
    if entry.template in _SIGNED and entry.fields[2]:  # 6
        return signature_finding(path, label, digest, verity=verity, signature=entry.fields[2], policy=policy)
    if entry.template == "ima-modsig" and entry.fields[4]:
        return Finding("ima-signature-unsupported", f"{path} has an appended signature only, and is not listed")
    return Finding("ima-file-unknown", f"{path} ran, and is neither listed nor signed", None, found)


def _buffer_finding(entry: ImaEntry, label: bytes, digest: bytes, policy: RuntimePolicy) -> Finding | None:
    """7. The buffer came along: its digest has to be of it."""
    algorithm = next(known for known in SIGNING_HASHES if known.label.encode() == label)
    if algorithm.digest(entry.fields[2]) != digest:
        raise ImaInvalid("the digest of a buffer is not of the buffer")
    if digest in policy.buffers.get(entry.name, ()) or _is_policy_key(entry.fields[2], policy):
        return None
    name = entry.name[:200].decode("utf-8", "backslashreplace")
    return Finding("ima-buffer-unknown", f"the buffer {name!r} is not listed", None, _text(label, digest))


def _is_policy_key(buffer: bytes, policy: RuntimePolicy) -> bool:
    """Tell whether the kernel was given a key that the policy believes: no key is trusted because it was loaded."""
    try:
        key = load_der_x509_certificate(buffer).public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidVersion):
        return False
    return any(key == known.key for known in policy.keys.values())


def _digest(entry: ImaEntry) -> tuple[bool, bytes, bytes]:
    """Return whether it is of fs-verity, its algorithm, and the digest of an entry."""
    if entry.template == LEGACY:
        return False, b"sha1", entry.fields[0]
    label, separator, digest = entry.fields[0].partition(b":\0")
    kind = b"ima"
    if entry.template in _VERSIONED:
        kind, _, label = label.partition(b":")
    if not separator or kind not in {b"ima", b"verity"} or len(digest) != _SIZES.get(label, len(digest)):
        raise ImaInvalid(f"no digest: {entry.fields[0][:80]!r}")
    return kind == b"verity", label, digest


def _text(label: bytes, digest: bytes) -> str:
    return f"{label[:20].decode('ascii', 'backslashreplace')}:{digest[:64].hex()}"
