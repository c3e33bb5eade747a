"""What may run on a node: the member `runtime` of a reference set, compiled once and shared by all nodes.

    {"files":        {"/usr/bin/true": ["<digest>", …], …},   each digest SHA-256, SHA-384 or SHA-512 in hex
     "exclude":      ["/var/lib/app/**", …],                  paths that are not judged (`umec_attest.ima.paths`)
     "buffers":      {"kexec-cmdline": ["<digest>", …], …},   what the kernel measures that is no file
     "required":     ["/etc/umec/ima-policy", …],             listed files that have to be in every list
     "keys":         ["<PEM public key or certificate>", …],  whoever signs a file that is not listed
     "revoked_keys": ["<PEM>", …],                            signed by one of these: a finding of its own
     "violations":   "refuse" | "warn",                       a file that changed while it was measured
     "kexec":        "refuse" | "allow"}                      a second boot_aggregate

Each member may be left out; "refuse" is the default. A listed file has to have a listed digest, whatever it is signed
with, or an old version with its good signature would do. What is neither listed, excluded nor signed is unknown.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from umec_attest.errors import ReferenceEmpty, ReferenceInvalid
from umec_attest.ima.entries import USUAL_HEAD, usual_entry
from umec_attest.ima.keys import SigningKey, parse_signing_key, unambiguous
from umec_attest.ima.paths import PathPattern, parse_pattern, policy_path
from umec_attest.tpm.algorithms import HashAlgorithm

__all__ = ["RuntimePolicy", "parse_runtime_policy"]

MAX_FILES: Final = 200_000
"""A whole distribution with all its modules has some 60,000 files that are measured."""
MAX_DIGESTS: Final = 64
"""Versions of one file that may run at the same time."""
MAX_PATTERNS: Final = 256
"""Each is compared with a path that is not listed."""
MAX_BUFFERS: Final = 1024
MAX_REQUIRED: Final = 64
"""Each is looked for in the list of a boot."""
MAX_KEYS: Final = 32

_SHA256_SIZE: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}")
_BUFFER: Final = re.compile(r"[!-~]{1,255}")

Digests = Annotated[list[str], Field(min_length=1, max_length=MAX_DIGESTS)]


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: Annotated[dict[str, Digests], Field(max_length=MAX_FILES)] = Field(default_factory=dict)
    exclude: Annotated[list[str], Field(max_length=MAX_PATTERNS)] = Field(default_factory=list)
    buffers: Annotated[dict[str, Digests], Field(max_length=MAX_BUFFERS)] = Field(default_factory=dict)
    required: Annotated[list[str], Field(max_length=MAX_REQUIRED)] = Field(default_factory=list)
    keys: Annotated[list[str], Field(max_length=MAX_KEYS)] = Field(default_factory=list)
    revoked_keys: Annotated[list[str], Field(max_length=MAX_KEYS)] = Field(default_factory=list)
    violations: Literal["refuse", "warn"] = "refuse"
    kexec: Literal["refuse", "allow"] = "refuse"


@dataclass(frozen=True, slots=True)
class RuntimePolicy:
    """Only `parse_runtime_policy` makes one. Names are bytes, as they are measured; digests are raw.

    `files` has each path with the NUL that the kernel measures behind it; `usual` holds the entry (ima-ng, binary form)
    of every listed file with its digests of SHA-256, so that one look-up knows a good entry, and what it extends into
    the bank of SHA-256: hashed once, and not for each node. `keys` and `revoked_keys` go by the identifiers that
    signatures name; `required` are files without which no list is good; `sha256` (hex) is that of the policy.
    """

    files: Mapping[bytes, tuple[bytes, ...]]
    usual: Mapping[bytes, bytes]
    exclude: tuple[PathPattern, ...]
    buffers: Mapping[bytes, tuple[bytes, ...]]
    required: tuple[bytes, ...]
    keys: Mapping[bytes, SigningKey]
    revoked_keys: Mapping[bytes, SigningKey]
    violations: Literal["refuse", "warn"]
    kexec: Literal["refuse", "allow"]
    sha256: str

    def usual_in(self, algorithm: HashAlgorithm) -> Mapping[bytes, bytes]:
        """Return the entries that are known by one look-up, with what each extends into a bank."""
        return self.usual if algorithm is HashAlgorithm.SHA256 else {}

    def to_json(self) -> dict[str, Any]:
        """Return the policy as `parse_runtime_policy` takes it, every member in its one order."""
        return {
            "files": _texts(self.files),
            "exclude": [pattern.text for pattern in self.exclude],
            "buffers": _texts(self.buffers),
            "keys": _pems(self.keys),
            "revoked_keys": _pems(self.revoked_keys),
            "violations": self.violations,
            "kexec": self.kexec,
            **({"required": [name.rstrip(b"\0").decode() for name in self.required]} if self.required else {}),
        }


def parse_runtime_policy(value: object) -> RuntimePolicy:
    """Return the policy of a decoded JSON value.

    Errors: `ReferenceInvalid`; `ReferenceEmpty` where neither a file nor a key is named, so that nothing could run.
    """
    try:
        wire = _Policy.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
        raise ReferenceInvalid(f"no runtime policy: {faults}"[:500]) from None
    if not wire.files and not wire.keys:
        raise ReferenceEmpty("the runtime policy names no file and no key: nothing could run")
    keys = [parse_signing_key(pem) for pem in sorted(wire.keys)]
    revoked = [parse_signing_key(pem) for pem in sorted(wire.revoked_keys)]
    unambiguous([*keys, *revoked])
    files = {policy_path(path).encode() + b"\0": _digests(wire.files[path]) for path in sorted(wire.files)}
    policy = RuntimePolicy(
        files=MappingProxyType(files),
        usual=dict(one for name, digests in files.items() for one in _usual(name, digests)),
        exclude=tuple(parse_pattern(text) for text in sorted(wire.exclude)),
        buffers=MappingProxyType({_buffer(name): _digests(wire.buffers[name]) for name in sorted(wire.buffers)}),
        keys=MappingProxyType(unambiguous(keys)),
        revoked_keys=MappingProxyType(unambiguous(revoked)),
        required=_required(wire.required, files),
        violations=wire.violations,
        kexec=wire.kexec,
        sha256="",
    )
    canonical = json.dumps(policy.to_json(), sort_keys=True, separators=(",", ":")).encode()
    return replace(policy, sha256=hashlib.sha256(canonical).hexdigest())


def _required(paths: list[str], files: Mapping[bytes, tuple[bytes, ...]]) -> tuple[bytes, ...]:
    names = tuple(policy_path(path).encode() + b"\0" for path in sorted(set(paths)))
    if not files.keys() >= set(names):
        raise ReferenceInvalid("what has to be in every list is a listed file")
    return names


def _digests(texts: list[str]) -> tuple[bytes, ...]:
    if not all(_DIGEST.fullmatch(text) for text in texts):
        raise ReferenceInvalid("a digest is SHA-256, SHA-384 or SHA-512 in lower-case hex")
    return tuple(sorted({bytes.fromhex(text) for text in texts}))


def _usual(name: bytes, digests: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    """Return the entry of a file in ima-ng and its template digest, for each digest of SHA-256."""
    for digest in digests:
        if len(digest) == _SHA256_SIZE:
            data = usual_entry(b"", digest, name)[USUAL_HEAD:]
            template_hash = hashlib.sha1(data, usedforsecurity=False).digest()
            yield usual_entry(template_hash, digest, name), hashlib.sha256(data).digest()


def _buffer(name: str) -> bytes:
    if not _BUFFER.fullmatch(name):
        raise ReferenceInvalid(f"{name[:80]!r} is no name of a buffer")
    return name.encode()


def _texts(listed: Mapping[bytes, tuple[bytes, ...]]) -> dict[str, list[str]]:
    return {name.rstrip(b"\0").decode(): [digest.hex() for digest in digests] for name, digests in listed.items()}


def _pems(keys: Mapping[bytes, SigningKey]) -> list[str]:
    return sorted({key.pem for key in keys.values()})
