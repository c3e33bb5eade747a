"""Moves of an adversary who holds the node: each makes evidence that a verifier has to refuse."""

import hashlib
import subprocess
from collections.abc import Mapping, Sequence

from tpm2_pytss import ESAPI
from tpm2_pytss.types import TPML_PCR_SELECTION

from umec_attest.agent.tpm import Attested, PcrQuote
from umec_attest.testing.eventlog import measured, split_log
from umec_attest.testing.firmware import extend
from umec_attest.testing.node import SoftwareNode
from umec_attest.testing.swtpm import SoftwareTpm

__all__ = [
    "drop_event",
    "extend_pcr",
    "flip_byte",
    "quote_relabelled",
    "quote_sha1",
    "replay_boot",
    "replayed",
    "retype_event",
    "swap_events",
    "swap_tpm",
    "switch_sha1_on",
    "truncate_log",
]


def extend_pcr(tpm: SoftwareTpm | str, pcr: int, what: bytes = b"something that no image has") -> None:
    """Measure something more, as a changed stage or a program started later would."""
    with ESAPI(tpm if isinstance(tpm, str) else tpm.tcti) as esys:
        extend(esys, pcr, hashlib.sha256(what).digest())


def quote_relabelled(
    node: SoftwareNode, nonce: bytes, pcrs: Sequence[int], substitutes: Mapping[int, int], *, good: Mapping[int, bytes]
) -> PcrQuote:
    """Quote resettable PCRs (say 16) filled at will in place of asked ones, and present them under the asked numbers.

    `substitutes` says which PCR is quoted instead of which; `good` has the values that the verifier wants to see.
    """
    made = node.quote(nonce, [substitutes.get(index, index) for index in pcrs])
    values = {index: good.get(index, made.pcrs[substitutes.get(index, index)]) for index in pcrs}
    return PcrQuote(made.quote, values)


def switch_sha1_on(tpm: SoftwareTpm) -> None:
    """Have the TPM keep a SHA-1 bank, too, as whoever owns a machine may; it is switched off and on for that."""
    subprocess.run(["tpm2_pcrallocate", "sha1:all+sha256:all", "--tcti", tpm.tcti], check=True, capture_output=True)
    tpm.power_cycle()


def quote_sha1(node: SoftwareNode, nonce: bytes, pcrs: Sequence[int]) -> PcrQuote:
    """Quote PCRs of the SHA-1 bank with the AK: a genuine quote, by a program of one's own on the same TPM.

    The agent knows no such quote, so this goes past its public face.
    """

    def quote(esys: ESAPI) -> PcrQuote:
        values = {index: bytes(esys.pcr_read(TPML_PCR_SELECTION.parse(f"sha1:{index}"))[2][0]) for index in pcrs}
        selection = TPML_PCR_SELECTION.parse("sha1:" + ",".join(map(str, sorted(pcrs))))
        with node.tpm._loaded(esys, node.ak) as ak:  # noqa: SLF001
            attest, signature = esys.quote(ak, selection, nonce)
        return PcrQuote(Attested(bytes(attest), bytes(signature.marshal())), values)

    return node.tpm._do(quote)  # noqa: SLF001


def replay_boot(tpm: SoftwareTpm, log: bytes) -> None:
    """Reset the TPM under a running system and measure what a good boot measured: afterwards the PCRs are good.

    The TPM has counted the reset, which is all that a verifier sees of it.
    """
    tpm.power_cycle()
    with ESAPI(tpm.tcti) as esys:
        for pcr, digest in measured(log):
            extend(esys, pcr, digest)


def swap_tpm(node: SoftwareNode, tpm: SoftwareTpm) -> SoftwareNode:
    """Return a node of the same name with new keys in another TPM; whoever asks closes it."""
    return SoftwareNode(tpm, name=node.name)


def replayed(evidence: Mapping[str, object], challenge: Mapping[str, object]) -> dict[str, object]:
    """Present old evidence as the answer to a new challenge."""
    return {**evidence, "challenge": challenge["challenge"]}


def truncate_log(log: bytes, events: int = 1) -> bytes:
    """Leave out the last events of a boot log."""
    return b"".join(split_log(log)[:-events])


def drop_event(log: bytes, index: int) -> bytes:
    """Leave out one event (the Spec ID event is 0)."""
    parts = split_log(log)
    return b"".join(parts[:index] + parts[index + 1 :])


def swap_events(log: bytes, first: int, second: int) -> bytes:
    """Exchange two events."""
    parts = split_log(log)
    parts[first], parts[second] = parts[second], parts[first]
    return b"".join(parts)


def retype_event(log: bytes, index: int, kind: int) -> bytes:
    """Give an event another type; its digest, and so the replay, stays the same."""
    parts = split_log(log)
    parts[index] = parts[index][:4] + kind.to_bytes(4, "little") + parts[index][8:]
    return b"".join(parts)


def flip_byte(value: bytes, at: int) -> bytes:
    """Change one bit of a byte; negative positions count from the end."""
    at %= len(value)
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
