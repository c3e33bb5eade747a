"""What fuzzing begins with: one or a few good inputs for each target, made by our own generators.

Real logs and certificates of others are added where they are there (UMEC_VECTORS), and never kept.
"""

import base64
import gzip
import json
import os
import struct
import uuid
from datetime import timedelta
from pathlib import Path

import targets
from certificates import ROOT, ek_certificate
from cryptography.hazmat.primitives.serialization import Encoding

from umec_attest.corim import write_corim
from umec_attest.ima import parse_runtime_policy
from umec_attest.reference import sign_reference_set, verify_reference_set
from umec_attest.sealed import sign_approval
from umec_attest.service.evidence.challenge import Challenge
from umec_attest.starts.entry import StartEntry
from umec_attest.testing.adversary import drop_event, retype_event, truncate_log
from umec_attest.testing.fleet import structures
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.image import make_image
from umec_attest.testing.node import DEFAULT_PCRS
from umec_attest.testing.pe import make_pe
from umec_attest.testing.runtime import RuntimeList
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_core.jose import sign_jwt
from umec_core.note import sign_checkpoint

__all__ = ["make_seeds", "shared_vectors"]

NONCE = bytes(range(32))
_STUB = {".sdmagic": b"#### LoaderInfo: systemd-stub 252.39 ####\0"}
_MEMBER = b"070701%08X%08X%032X%08X%032X%08X%08X%b\0"
_INITRD = (
    _MEMBER % (1, 0o100755, 0, 4, 0, 6, 0, b"inits")
    + b"#!/a"
    + _MEMBER % (2, 0, 0, 0, 0, 11, 0, b"TRAILER!!!")
    + bytes(3)
)
VECTORS = {
    "boot-log": ("attest/*/**/*eventlog*", "attest/*/eventlogs/*.bin", "attest/**/*.log"),
    "certificate": ("attest/**/*.der", "attest/**/*.cer", "attest/**/*.crt"),
    "runtime-list": ("attest/**/ima_log.txt",),
    "canonical-log": ("attest/**/cel/*.bin",),
    "corim": ("attest/**/*.cbor",),
}


def make_seeds(folder: Path, *, vectors: Path | None = None) -> dict[str, list[bytes]]:
    """Return good inputs by target. `folder` is for an image that is booted on paper."""
    image = make_image(folder / "image")
    boot = Boot.of(image)
    nodes = [SimulatedNode("node-1", make_keys(0, rsa_ak=rsa), boot) for rsa in (False, True)]
    seeds = {
        **_of_tpms(nodes),
        **_of_logs(boot),
        **_of_references(boot),
        **_of_bodies(nodes[0]),
        "certificate": [ROOT, ek_certificate().public_bytes(Encoding.DER)],
        "ek-certificate": [ek_certificate().tbs_certificate_bytes],
        "approval": [sign_approval(image="image", version=1, pcrs={4: bytes(32), 7: NONCE}, key=targets.KEY)],
        "checkpoint": [sign_checkpoint(targets.ORIGIN, 3, bytes(32), targets.KEY).encode()],
        "image": [make_pe(_STUB | dict.fromkeys((".linux", ".osrel", ".cmdline", ".initrd"), b"ro"))],
        "initrd": [_INITRD, gzip.compress(_INITRD, mtime=0)],
        "packed-set": [gzip.compress(b"a set", mtime=0)],
    }
    if vectors is not None:
        for target, patterns in VECTORS.items():
            found = sorted({path for pattern in patterns for path in vectors.glob(pattern) if path.is_file()})
            longest = targets.TARGETS[target].longest
            seeds[target] += [path.read_bytes() for path in found if path.stat().st_size <= longest]
    return seeds


def _of_tpms(nodes: list[SimulatedNode]) -> dict[str, list[bytes]]:
    quotes = [node.quote(NONCE, DEFAULT_PCRS) for node in nodes]
    certified = structures.attest(
        signer=nodes[0].signer,
        extra_data=NONCE,
        clock=nodes[0].clock,
        attested=(len(nodes[0].signer).to_bytes(2, "big") + nodes[0].signer) * 2,
        kind=0x8017,
    )
    publics = [
        public for node in nodes for public in (node.keys.ak_public, node.keys.ek_public, node.keys.node_key_public)
    ]
    values = {str(pcr): nodes[0].pcrs[pcr].hex() for pcr in DEFAULT_PCRS}
    return {
        "attest": [*(attest for attest, _ in quotes), certified],
        "signature": [signature for _, signature in quotes],
        "public": publics,
        "tpm2b-public": [struct.pack(">H", len(public)) + public for public in publics],
        "pcr-selection": [structures.pcr_selection(DEFAULT_PCRS), structures.pcr_selection([], algorithm=0x0004)],
        "pcr-values": [json.dumps({"sha256": values}).encode()],
    }


def _of_logs(boot: Boot) -> dict[str, list[bytes]]:
    runtime = RuntimeList.of(dict.fromkeys(range(10), bytes(32)), [("/usr/bin/true", b"true"), ("/etc/x", b"more")])
    record = {
        "pcr": 11,
        "digests": [{"hashAlg": "sha256", "digest": "ab" * 32}],
        "content_type": "systemd",
        "content": {"string": "enter-initrd", "bootId": "ab" * 16, "timestamp": 1, "eventType": "phase"},
    }
    return {
        "boot-log": [boot.log, truncate_log(boot.log), drop_event(boot.log, 3), retype_event(boot.log, 9, 4)],
        "userspace-log": [b"\x1e" + json.dumps(record).encode() + b"\n"],
        "canonical-log": [_canonical_record()],
        "runtime-list": [runtime.data, _text_list(runtime)],
        "start-log": [_start(0) + b"\n", _start(0) + b"\n" + _start(1) + b"\n"],
    }


def _start(number: int) -> bytes:
    image, now = "sha256:" + "ab" * 32, int(targets.NOW.timestamp())
    who = {"node": "node-1", "tenant": "acme", "instance": "cam-1"}
    claims = {"iss": targets.ISSUER, "iat": now, "exp": now + 120, "digest": image, **who}
    decision = sign_jwt(claims, targets.KEY, typ="umec-admission+jwt")
    return StartEntry(boot=5, number=number, time=now, image=image, decision=decision, **who).to_bytes()


def _canonical_record() -> bytes:
    def field(kind: int, value: bytes) -> bytes:
        return bytes([kind]) + len(value).to_bytes(4, "big") + value

    digests = field(0x0B, bytes(32))
    return field(0, bytes(8)) + field(1, b"\x04") + field(3, digests) + field(80, b"content")


def _text_list(runtime: RuntimeList) -> bytes:
    lines = []
    for entry in runtime.entries:
        name_size = struct.unpack_from("<I", entry, 24)[0]
        data = entry[32 + name_size :]
        size = struct.unpack_from("<I", data)[0]
        label, _, digest = data[4 : 4 + size].partition(b":\0")
        path = data[8 + size : -1].decode()
        lines.append(f"10 {entry[4:24].hex()} ima-ng {label.decode()}:{digest.hex()} {path}\n")
    return "".join(lines).encode()


def _of_references(boot: Boot) -> dict[str, list[bytes]]:
    policy = {"files": {"/usr/bin/true": ["ab" * 32]}, "exclude": ["/var/lib/app/**"], "violations": "warn"}
    envelope = sign_reference_set(
        name="edge-node",
        subject_sha256="ab" * 32,
        version=1,
        issued=targets.NOW,
        expires=targets.NOW + timedelta(days=30),
        pcrs={HashAlgorithm.SHA256: {pcr: [boot.pcrs[pcr]] for pcr in DEFAULT_PCRS}},
        ignored={13: "changes with each boot"},
        key=targets.KEY,
        runtime=parse_runtime_policy(policy),
    )
    signers = [targets.KEY.public_key()]
    verified = verify_reference_set(envelope, signers=signers, now=targets.NOW, minimum_version=0)
    return {
        "reference-set": [base64.b64decode(json.loads(envelope)["payload"])],
        "envelope": [envelope],
        "runtime-policy": [json.dumps(policy).encode()],
        "corim": [write_corim(verified)[0]],
    }


def _of_bodies(node: SimulatedNode) -> dict[str, list[bytes]]:
    asked = Challenge("node-1", "00", DEFAULT_PCRS, None, "ab" * 32, 1, targets.NOW + timedelta(minutes=1), "salt")
    token, nonce = targets.SEAL.seal(asked)
    challenge = {
        "challenge": token,
        "nonce": base64.b64encode(nonce).decode(),
        "pcrs": {"sha256": list(DEFAULT_PCRS)},
        "boot_log": "full",
        "deadline": "2026-11-22T12:00:20Z",
        "round_seconds": 30.0,
    }
    ticket = {"asset": "node-1", "url": "https://edge.example:8443", "ca_sha256": "ab" * 32, "secret": "secret"}
    result = {
        "verdict": "affirming",
        "findings": [{"id": "rebooted", "detail": "the node booted"}],
        "trust_vector": {"hardware": 2},
        "standing": "trusted",
        "generation": 2,
        "ear": "e30.e30.c2ln",
    }
    answers = [challenge, result, {"enrolment": str(uuid.UUID(int=1)), "credential_blob": "AAAA"}]
    whole = [json.dumps(body).encode() for body in answers]
    return {
        "challenge": [token.encode()],
        "evidence": [json.dumps(node.evidence(challenge)).encode()],
        "answer": [bytes([kind]) + body for kind in range(len(targets.ANSWERS)) for body in whole],
        "agent-request": [
            json.dumps(request).encode()
            for request in (
                {"op": "status"},
                {"op": "token", "resource": "https://edge.example/x", "scope": "a b"},
                {"op": "call", "method": "GET", "url": "https://edge.example/x", "resource": "r", "scope": "s"},
            )
        ],
        "ticket": [base64.urlsafe_b64encode(json.dumps(ticket).encode()).rstrip(b"=")],
    }


def shared_vectors() -> Path | None:
    """Return the folder with what others wrote, where it is there."""
    named = Path(os.environ.get("UMEC_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
    return named if named.is_dir() else None
