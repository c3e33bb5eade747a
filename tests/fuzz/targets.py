"""What is fuzzed: each parser of what others send, as deep as bytes alone get, and the errors that it may raise.

A target returns, or raises one of its own errors; anything else is a find. Where a structure has one form only, what
was read is written again, and has to be the same bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from certificates import KEY, NOW, ROOT, signed
from pydantic import ValidationError

from umec_attest.agent import wire
from umec_attest.agent.requests import read_request
from umec_attest.agent.ticket import parse_ticket
from umec_attest.agent.transport import Answer
from umec_attest.bootlog import extract_facts, parse_boot_log, parse_userspace_log, replay, verify_boot_log
from umec_attest.bootlog.cel import parse_canonical_log
from umec_attest.certificates.certificate import CertificateMalformed, load_certificate
from umec_attest.certificates.path import TrustStore
from umec_attest.corim import read_corim
from umec_attest.digests import parse_pcr_values
from umec_attest.ek_certificate import EkPolicy, verify_ek_certificate
from umec_attest.ima import judge_runtime, parse_ima, parse_runtime_policy, replay_ima
from umec_attest.predict.initrd import initrd_files
from umec_attest.predict.stub import read_uki
from umec_attest.quote import VerifiedQuote
from umec_attest.reference import unpack, verify_reference_set
from umec_attest.sealed import verify_approval
from umec_attest.service.evidence.challenge import MAC_SIZE, ChallengeSeal
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.starts.checkpoint import StartCheckpoint
from umec_attest.starts.decisions import DecisionRules
from umec_attest.starts.entry import extended
from umec_attest.starts.judge import judge_starts
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import ClockInfo, parse_attest
from umec_attest.tpm.pcr import parse_pcr_selection
from umec_attest.tpm.public import parse_public, parse_tpm2b_public
from umec_attest.tpm.signature import parse_signature
from umec_core import dsse
from umec_core.errors import UmecError
from umec_core.jose import KeySet
from umec_core.note import verify_checkpoint

__all__ = ["ISSUER", "KEY", "NOW", "ORIGIN", "SEAL", "TARGETS", "Target"]

STORE = TrustStore((load_certificate(ROOT, tolerate=False),))
ORIGIN = "umec/attest"
ISSUER = "https://edge.example:8443/platform/v1"
SEAL = ChallengeSeal(bytes(MAC_SIZE))
SHA256 = HashAlgorithm.SHA256
CLOCK = ClockInfo(1_000_000, 5, 0, safe=True)
ANSWERS = tuple(
    kind
    for kind in (getattr(wire, name) for name in wire.__all__)
    if isinstance(kind, type) and hasattr(kind, "read") and kind is not wire.Readable
)
POLICY = parse_runtime_policy({"files": {"/usr/bin/true": ["ab" * 32]}, "exclude": ["/var/lib/app/**"]})


@dataclass(frozen=True)
class Target:
    """One parser. `errors` are its own; `longest` bytes are worth trying."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = (UmecError,)
    longest: int = 4096


class Unfaithful(AssertionError):
    """What was read is written otherwise than it came."""


def exact(parse: Callable[[bytes], Any]) -> Callable[[bytes], object]:
    """Read, and write again."""

    def run(data: bytes) -> None:
        written = parse(data).to_bytes()
        if written != data:
            raise Unfaithful(f"{data.hex()} became {written.hex()}")

    return run


def json_of(parse: Callable[[object], object]) -> Callable[[bytes], object]:
    """Read JSON, where it is some: what is none never gets as far as here."""

    def run(data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return
        parse(value)

    return run


def quoted(pcrs: dict[int, bytes]) -> VerifiedQuote:
    """Return a quote that says just this."""
    values = {pcr: pcrs.get(pcr, bytes(32)) for pcr in range(16)}
    return VerifiedQuote({SHA256: values}, CLOCK, 1)


def boot_log(data: bytes) -> None:
    """A log, and the facts in it: the quote says what the log says."""
    log = parse_boot_log(data)
    extract_facts(verify_boot_log(log, quoted(replay(log, SHA256))))


def runtime_list(data: bytes) -> None:
    """A list, binary or text, judged by a policy: the quote says what the list says."""
    value = replay_ima(parse_ima(data), SHA256)
    judge_runtime(data, quoted({10: value}), None, POLICY)


def start_log(data: bytes) -> object:
    """A log of starts, compared with decisions: the quote says what its lines say."""
    value = bytes(32)
    for line in data.split(b"\n")[:-1]:
        value = extended(value, line)
    quote, rules = quoted({15: value}), DecisionRules(KeySet([KEY.public_key()]), ISSUER)
    judged = judge_starts(data, quote, None, node="node-1", rules=rules, asked_at=NOW, now=NOW)
    return StartCheckpoint.from_json(judged.checkpoint.to_json())


def reference_set(data: bytes) -> object:
    """A statement that a pinned signer has signed."""
    envelope = dsse.sign(data, dsse.IN_TOTO, KEY)
    return verify_reference_set(envelope, signers=[KEY.public_key()], now=NOW, minimum_version=0)


def envelope(data: bytes) -> object:
    """The envelope around it."""
    return verify_reference_set(data, signers=[KEY.public_key()], now=NOW, minimum_version=0)


def certificate(data: bytes) -> None:
    """A certificate, read to the letter and with the mistakes of vendors mended."""
    for tolerate in (True, False):
        load_certificate(data, tolerate=tolerate)


def ek_certificate(data: bytes) -> object:
    """The signed part of an EK certificate, which a root of the store has signed: its path is walked to the end."""
    der = signed(data)
    own = load_certificate(der, tolerate=True)
    policy = EkPolicy(STORE, tolerate_malformed=True, software_tpms=True)
    return verify_ek_certificate(der, [], spki=own.spki, policy=policy, now=NOW)


def challenge(data: bytes) -> object:
    """A token that a node sends back."""
    return SEAL.open(data.decode("utf-8", "replace"), node="node-1", ak="00", now=NOW)


def answer(data: bytes) -> None:
    """An answer to the agent: the first byte says to what."""
    kind = ANSWERS[data[0] % len(ANSWERS)] if data else ANSWERS[0]
    wire.read_answer(kind, Answer("/attest/v1/fuzz", 200, {}, data[1:]))


def ticket(data: bytes) -> object:
    """A ticket as an operator pastes it."""
    return parse_ticket(data.decode("utf-8", "replace"))


def checkpoint(data: bytes) -> object:
    """A note of an audit log."""
    return verify_checkpoint(data.decode("utf-8", "replace"), ORIGIN, KEY.public_key())


def evidence(data: bytes) -> object:
    """The body of a node's evidence."""
    return EvidenceRequest.model_validate_json(data)


def approval(data: bytes) -> object:
    """An owner's approval of a state, as a node finds it beside its image."""
    return verify_approval(data, KEY.public_key())


def image(data: bytes) -> object:
    """A boot image whose values are predicted."""
    return read_uki(data)


TARGETS: dict[str, Target] = {
    "attest": Target(exact(parse_attest), longest=512),
    "signature": Target(exact(parse_signature), longest=1024),
    "public": Target(exact(parse_public), longest=1024),
    "tpm2b-public": Target(parse_tpm2b_public, longest=1024),
    "pcr-selection": Target(exact(parse_pcr_selection), longest=128),
    "pcr-values": Target(json_of(parse_pcr_values)),
    "boot-log": Target(boot_log, longest=32768),
    "userspace-log": Target(parse_userspace_log, longest=16384),
    "canonical-log": Target(parse_canonical_log, longest=16384),
    "runtime-list": Target(runtime_list, longest=16384),
    "start-log": Target(start_log, longest=16384),
    "runtime-policy": Target(json_of(parse_runtime_policy)),
    "certificate": Target(certificate, (UmecError, CertificateMalformed)),
    "ek-certificate": Target(ek_certificate, (UmecError, CertificateMalformed)),
    "reference-set": Target(reference_set),
    "envelope": Target(envelope),
    "corim": Target(read_corim),
    "challenge": Target(challenge, longest=2048),
    "evidence": Target(evidence, (ValidationError,), longest=8192),
    "checkpoint": Target(checkpoint),
    "answer": Target(answer),
    "agent-request": Target(read_request),
    "ticket": Target(ticket),
    "approval": Target(approval),
    "image": Target(image, longest=16384),
    "initrd": Target(initrd_files),
    "packed-set": Target(unpack),
}
