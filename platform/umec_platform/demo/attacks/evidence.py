"""Boot and evidence: somebody owns a node that was admitted, with its TPM, and answers the verifier as they please."""

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from umec_attest.testing import adversary, runtime
from umec_platform.demo.attacks.stranger import Stranger, succeed
from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.hand import ATTEST
from umec_platform.demo.run import code_of
from umec_platform.demo.timeline import Broken

__all__ = ["ATTACKS"]

IN_TOTO: Final = "application/vnd.in-toto+json"
RESETTABLE: Final = 16
"""The debug PCR: whoever is on the machine resets it and fills it as they like."""
MINER: Final = "/var/tmp/miner"  # noqa: S108 - where such programs lie


def replayed(stranger: Stranger) -> str | None:
    """Hand the same evidence in again."""
    honest = stranger.believed()["evidence"]
    return code_of(stranger.submit(honest))


def old_quote(stranger: Stranger) -> str | None:
    """Present an old quote as the answer to a new challenge."""
    honest = stranger.believed()["evidence"]
    return code_of(stranger.submit(adversary.replayed(honest, stranger.challenge())))


def challenge_of_another(stranger: Stranger) -> str | None:
    """Answer the challenge that was made for another node."""
    stranger.believed()
    return code_of(stranger.submit(stranger.evidence(stranger.challenge("node-a"))))


def quote_of_another(stranger: Stranger) -> str | None:
    """Let another TPM of the same maker answer the challenge of this node."""
    stranger.believed()
    theirs = stranger.spare.evidence(stranger.challenge(), boot_log=stranger.other_log)
    return code_of(stranger.submit(dict(theirs)))


def values_changed(stranger: Stranger) -> str | None:
    """State another value for a quoted PCR."""
    stranger.believed()
    changed = stranger.evidence()
    changed["pcrs"]["sha256"]["11"] = "00" * 32
    return code_of(stranger.submit(changed))


def relabelled(stranger: Stranger) -> str | None:
    """Quote the debug PCR, and call it PCR 11."""
    honest = stranger.believed()["evidence"]
    challenge = stranger.challenge()
    nonce, pcrs = base64.b64decode(challenge["nonce"]), challenge["pcrs"]["sha256"]
    good = {11: bytes.fromhex(honest["pcrs"]["sha256"]["11"])}
    made = adversary.quote_relabelled(stranger.node, nonce, pcrs, {11: RESETTABLE}, good=good)
    forged = {"quote": _b64(made.quote.attest), "signature": _b64(made.quote.signature)}
    values = {"sha256": {str(index): value.hex() for index, value in made.pcrs.items()}}
    return code_of(stranger.submit({**honest, **forged, "pcrs": values, "challenge": challenge["challenge"]}))


def sha1_values(stranger: Stranger) -> str | None:
    """Offer the values of a SHA-1 bank, in which a second preimage is a matter of money."""
    stranger.believed()
    offered = stranger.evidence()
    offered["pcrs"] = {"sha1": {index: value[:40] for index, value in offered["pcrs"]["sha256"].items()}}
    return code_of(stranger.submit(offered))


def sha1_quote(stranger: Stranger) -> str | None:
    """Have the TPM quote its SHA-1 bank: quote, signature and values are genuine, and nothing but the bank is weak."""
    stranger.believed()
    challenge = stranger.challenge()
    nonce, pcrs = base64.b64decode(challenge["nonce"]), challenge["pcrs"]["sha256"]
    made = adversary.quote_sha1(stranger.node, nonce, pcrs)
    offered = stranger.evidence(challenge)
    offered |= {"quote": _b64(made.quote.attest), "signature": _b64(made.quote.signature)}
    offered["pcrs"] = {"sha1": {str(index): value.hex() for index, value in made.pcrs.items()}}
    return code_of(stranger.submit(offered))


def signature_changed(stranger: Stranger) -> str | None:
    """Change one bit of the TPM's signature."""
    stranger.believed()
    changed = stranger.evidence()
    changed["signature"] = _b64(adversary.flip_byte(base64.b64decode(changed["signature"]), -1))
    return code_of(stranger.submit(changed))


def tampered(stranger: Stranger) -> str | None:
    """Run something more than the boot measured, and say nothing about it."""
    stranger.believed()
    command = ["tpm2_pcrextend", f"11:sha256={'5a' * 32}", "--tcti", stranger.tpm.tcti]
    subprocess.run(command, check=True, capture_output=True)
    return _finding(stranger, stranger.log)


def unknown_program(stranger: Stranger) -> str | None:
    """Run a program that is not in the image, on a node that booted well."""
    stranger.believed()
    runtime.run(stranger.tpm, stranger.ran, runtime.measured(MINER, bytes(32)))
    return _fallen(stranger.submit(stranger.evidence()), "ima-file-unknown")


def hidden_program(stranger: Stranger) -> str | None:
    """Run such a program, and leave it out of the list."""
    stranger.believed()
    runtime.run(stranger.tpm, stranger.ran, runtime.measured(MINER, bytes(32)))
    stranger.ran.entries.pop()
    return _fallen(stranger.submit(stranger.evidence()), "ima-replay-mismatch")


def truncated_log(stranger: Stranger) -> str | None:
    """Leave out the end of the boot log."""
    stranger.believed()
    return _finding(stranger, adversary.truncate_log(stranger.log))


def other_log(stranger: Stranger) -> str | None:
    """Send the log of the boot of another machine."""
    stranger.believed()
    assert stranger.spare  # noqa: S101 - the other machine is booted when it is first named
    return _finding(stranger, stranger.other_log)


def older_set(stranger: Stranger) -> str | None:
    """Bring an older reference set back, with an operator's account."""
    older = (stranger.run.folder / "reference.dsse").read_bytes()
    _newer_set(stranger)
    return code_of(_publish(stranger, older))


def empty_set(stranger: Stranger) -> str | None:
    """Have a reference set signed that expects nothing."""
    _newer_set(stranger)
    return code_of(_publish(stranger, _signed_set(stranger, _signer(stranger), pcrs={})))


def expired_set(stranger: Stranger) -> str | None:
    """Bring a reference set whose time is over."""
    _newer_set(stranger)
    yesterday = datetime.now(UTC) - timedelta(days=1)  # noqa: TID251 - a demo lives in the real time
    times = {"issued": _time(yesterday - timedelta(days=1)), "expires": _time(yesterday)}
    return code_of(_publish(stranger, _signed_set(stranger, _signer(stranger), **times)))


def foreign_set(stranger: Stranger) -> str | None:
    """Sign a reference set with a key that the verifier does not pin."""
    _newer_set(stranger)
    return code_of(_publish(stranger, _signed_set(stranger, ec.generate_private_key(ec.SECP256R1()))))


def _finding(stranger: Stranger, log: bytes) -> str | None:
    """Return the finding that a log leads to; None if the node stays trusted."""
    evidence = stranger.evidence() | {"boot_log": _b64(log)}
    evidence.pop("boot_log_sha256", None)
    return _fallen(stranger.submit(evidence), "bootlog-replay-mismatch")


def _fallen(result: httpx.Response, expected: str) -> str | None:
    """Return the expected finding, or the others that were found; None if the node stays trusted."""
    if not result.is_success:
        return code_of(result)
    said = result.json()
    found = {finding["id"] for finding in said["findings"]}
    if said["standing"] != "untrusted" or said["ear"] is not None:
        return None
    return expected if expected in found else ", ".join(sorted(found))


def _newer_set(stranger: Stranger) -> None:
    """Publish the same values under the next version, as their builder may: that is taken."""
    succeed(_publish(stranger, _signed_set(stranger, _signer(stranger))), "a newer reference set was refused")


def _publish(stranger: Stranger, envelope: bytes) -> httpx.Response:
    operator = stranger.operator
    return operator.call("POST", f"{ATTEST}/reference-sets", operator.token(ATTEST), content=envelope)


def _signer(stranger: Stranger) -> EllipticCurvePrivateKey:
    key = load_pem_private_key((stranger.run.folder / "reference-signer.key").read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise Broken("the signer of reference sets has no EC key")
    return key


def _signed_set(stranger: Stranger, key: EllipticCurvePrivateKey, **changes: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return the next version of the reference set, changed and signed (DSSE) by a key."""
    envelope = json.loads((stranger.run.folder / "reference.dsse").read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    version = stranger.run.facts.get("reference-version", statement["predicate"]["version"]) + 1
    stranger.run.facts["reference-version"] = version
    statement["predicate"] |= {"version": version, **changes}
    payload = json.dumps(statement).encode()
    message = f"DSSEv1 {len(IN_TOTO)} {IN_TOTO} {len(payload)} ".encode() + payload
    signature = {"keyid": envelope["signatures"][0]["keyid"], "sig": _b64(key.sign(message, ec.ECDSA(SHA256())))}
    made = {"payload": _b64(payload), "payloadType": IN_TOTO, "signatures": [signature]}
    return json.dumps(made).encode()


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


NODE: Final = "an admitted node, with its TPM"
INSIDER: Final = "an operator's account"

ATTACKS: Final[tuple[Attack[Stranger], ...]] = (
    Attack("replayed-evidence", "evidence-replayed", NODE, replayed),
    Attack("old-quote-for-new-challenge", "quote-nonce-mismatch", NODE, old_quote),
    Attack("challenge-of-another-node", "nonce-unknown", NODE, challenge_of_another),
    Attack("quote-of-another-tpm", "quote-signer-mismatch", "two TPMs of one maker", quote_of_another),
    Attack("quote-signature-changed", "signature-invalid", NODE, signature_changed),
    Attack("pcr-values-changed", "pcr-digest-mismatch", NODE, values_changed),
    Attack("pcr-relabelled", "pcr-selection-mismatch", NODE, relabelled),
    Attack("sha1-values-only", "pcr-values-invalid", NODE, sha1_values),
    Attack("sha1-quote", "pcr-selection-mismatch", f"{NODE}, whose SHA-1 bank is on", sha1_quote),
    Attack("pcr-tampered", "bootlog-replay-mismatch", NODE, tampered),
    Attack("unknown-program-runs", "ima-file-unknown", NODE, unknown_program),
    Attack("program-hidden-from-the-list", "ima-replay-mismatch", NODE, hidden_program),
    Attack("log-truncated", "bootlog-replay-mismatch", NODE, truncated_log),
    Attack("log-of-another-boot", "bootlog-replay-mismatch", "two TPMs of one maker", other_log),
    Attack("older-reference-set", "reference-rollback", f"{INSIDER}, an old signed set", older_set),
    Attack("empty-reference-set", "reference-empty", f"{INSIDER}, the signer's key", empty_set),
    Attack("expired-reference-set", "reference-expired", f"{INSIDER}, the signer's key", expired_set),
    Attack("reference-set-of-unknown-signer", "reference-signature", INSIDER, foreign_set),
)
