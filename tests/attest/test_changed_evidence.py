"""Evidence with one bit changed, offline: judged against what is known, and only for whether it fits itself."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umec_attest.appraisal import Verdict
from umec_attest.bootlog import parse_boot_log
from umec_attest.bootlog.coverage import covered_part
from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.errors import AttestError, BootLogRefused, PcrValuesInvalid
from umec_attest.offline import EvidencePieces, check_consistency, judge_evidence
from umec_attest.reference import sign_reference_set, verify_reference_set
from umec_policies import load_default

NOW = datetime(2034, 11, 22, tzinfo=UTC)
anywhere = given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
thoroughly = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def flipped(content, share, bit):
    at = int(share * len(content))
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


class Sample:
    """Good evidence, and what its judge knows."""

    def __init__(self, kit, tpm):
        values = kit.replay_events(kit.good_events())
        attest = tpm.attest({kit.SHA256: values}).to_bytes()
        self.pieces = EvidencePieces(
            quote=attest,
            signature=tpm.sign(attest),
            pcrs=json.dumps({"sha256": {str(n): value.hex() for n, value in values.items()}}).encode(),
            ak=tpm.ak.to_bytes(),
            ak_parent=tpm.ek.to_bytes(),
            nonce=kit.NONCE,
            boot_log=kit.write_log(kit.good_events()),
        )
        key = kit.reference_key()
        envelope = sign_reference_set(
            name="edge",
            subject_sha256="ab" * 32,
            version=1,
            issued=NOW - timedelta(days=1),
            expires=NOW + timedelta(days=1),
            pcrs={kit.SHA256: {n: [value] for n, value in values.items()}},
            ignored={},
            key=key,
        )
        self.reference = verify_reference_set(envelope, signers=[key.public_key()], now=NOW, minimum_version=0)
        self.policies = load_default("appraisal")
        self.ak, self.parent, self.nonce, self.bank = tpm.ak, tpm.ek, kit.NONCE, kit.SHA256

    def __repr__(self):
        return "sample"

    def judge(self, nonce=None, **changes):
        return judge_evidence(
            replace(self.pieces, **changes),
            node="lamp",
            ak=self.ak,
            ak_parent=self.parent,
            nonce=nonce or self.nonce,
            reference=self.reference,
            policies=self.policies,
            now=NOW,
        )

    def check(self, **changes):
        return check_consistency(replace(self.pieces, **changes))


@pytest.fixture(scope="module")
def sample(kit):
    return Sample(kit, kit.Adversary())


def test_without_a_change_it_holds(sample):
    assert sample.judge().verdict is Verdict.AFFIRMING
    found = sample.check()
    assert found.boot_events == len(parse_boot_log(sample.pieces.boot_log).events)
    assert found.boot_bytes_uncovered is not None


@pytest.mark.parametrize("piece", ["quote", "signature"])
@anywhere
@thoroughly
def test_every_bit_of_what_the_tpm_signed_counts(sample, piece, share, bit):
    changed = {piece: flipped(getattr(sample.pieces, piece), share, bit)}
    with pytest.raises(AttestError):
        sample.judge(**changed)
    with pytest.raises(AttestError):
        sample.check(**changed)


@anywhere
@thoroughly
def test_every_bit_of_the_nonce_counts(sample, share, bit):
    with pytest.raises(AttestError) as error:
        sample.judge(nonce=flipped(sample.nonce, share, bit))
    assert error.value.code == "quote-nonce-mismatch"
    with pytest.raises(AttestError) as error:
        sample.check(nonce=flipped(sample.nonce, share, bit))
    assert error.value.code == "quote-nonce-mismatch"


def test_every_bit_of_every_pcr_value_counts(sample):
    pcrs = sample.pieces.pcrs
    for at, mark in enumerate(pcrs):
        if chr(mark) not in "0123456789abcdef":
            continue
        for bit in range(8):
            changed = pcrs[:at] + bytes([mark ^ 1 << bit]) + pcrs[at + 1 :]
            with pytest.raises(AttestError):
                sample.check(pcrs=changed)


def test_a_value_has_one_spelling(sample):
    value = json.loads(sample.pieces.pcrs)["sha256"]["0"]
    for other in (value.upper(), f" {value[1:]}", value[:-1]):
        with pytest.raises(PcrValuesInvalid):
            sample.check(pcrs=sample.pieces.pcrs.replace(value.encode(), other.encode()))


def events(log):
    """Every event after the Spec ID event, where its digest and where its data begin."""
    at = 32 + int.from_bytes(log[28:32], "little")
    for event in parse_boot_log(log).events:
        data = at + 12 + sum(2 + len(digest) for _, digest in event.digests) + 4
        yield event, at, data
        at = data + len(event.data)
    assert at == len(log)


@pytest.fixture(scope="module")
def uncovered(sample):
    """Every byte of the log that no digest covers: the head of the log, types, and what data there is beside."""
    log = sample.pieces.boot_log
    found = set(range(32 + int.from_bytes(log[28:32], "little")))
    for event, at, data in events(log):
        found |= set(range(at + 4, at + 8))
        if event.type == EV_NO_ACTION:  # not measured at all
            found |= set(range(at, data + len(event.data)))
            continue
        part = covered_part(event, sample.bank)
        inside = range(0) if part is None else range(len(event.data))[part]
        found |= {data + n for n in range(len(event.data)) if n not in inside}
    return Places(found)


class Places(frozenset):
    def __repr__(self):
        return f"{len(self)} places"


@anywhere
@thoroughly
def test_every_bit_of_the_boot_log_counts_or_is_covered_by_no_digest(sample, uncovered, share, bit):
    log = sample.pieces.boot_log
    if int(share * len(log)) in uncovered:
        return
    with pytest.raises(AttestError):
        sample.check(boot_log=flipped(log, share, bit))


def test_a_log_that_says_something_else_than_was_measured_does_not_fit(sample):
    log, compared = sample.pieces.boot_log, 0
    for event, at, data in events(log):
        part = None if event.type == EV_NO_ACTION else covered_part(event, sample.bank)
        if part is None:
            continue
        compared += 1
        for place, code in ((data + part.start, "bootlog-data-mismatch"), (at + 14, "bootlog-replay-mismatch")):
            with pytest.raises(BootLogRefused) as error:
                sample.check(boot_log=log[:place] + bytes([log[place] ^ 1]) + log[place + 1 :])
            assert error.value.code == code
    assert compared > 10
    section = log.rindex(b".linux\0")  # which part of a systemd-stub event is hashed only its place in PCR 11 says
    judged = sample.judge(boot_log=log[:section] + b"/" + log[section + 1 :])
    assert judged.verdict is not Verdict.AFFIRMING
    assert "uki-event-unexpected" in {finding.id for finding in judged.findings}
    first = next(at for event, at, _ in events(log) if event.type != EV_NO_ACTION)
    changed = log[: first + 14] + bytes([log[first + 14] ^ 1]) + log[first + 15 :]
    judged = sample.judge(boot_log=changed)
    assert judged.verdict is Verdict.CONTRAINDICATED
    assert [finding.id for finding in judged.findings] == ["bootlog-replay-mismatch"]
