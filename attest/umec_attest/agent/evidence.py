"""Evidence of one round: collect it, send it, keep it on disk for whoever wants to judge it offline."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from umec_attest.agent.errors import AgentStateInvalid
from umec_attest.agent.runtime_list import MAX_RUNTIME_LIST, RUNTIME_LIST, read_runtime_list
from umec_attest.agent.start_log import START_LOG, read_start_log
from umec_attest.agent.state import NodeState
from umec_attest.agent.tpm import PcrQuote, Tpm
from umec_attest.agent.wire import Challenge
from umec_attest.starts.entry import STARTS_PCR

__all__ = ["BOOT_LOG", "RUNTIME_LIST", "Evidence", "collect", "collect_folder", "save_evidence", "save_result"]

BOOT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
MAX_BOOT_LOG: Final = 744 * 1024
"""Bytes; logs of real servers have about 70 KB, and the verifier reads no more than this in one body.

A list of what ran that goes along with a whole boot log has what the log leaves of it."""
MAX_START_LOG: Final = 256 * 1024
"""Bytes of one part of the log of starts, some 250 of them; it takes half of the room that a boot log leaves."""
MAX_SAVED_LIST: Final = 64 * 1024 * 1024
"""What an offline verifier reads."""
MOST_QUOTES: Final = 5
"""A quote takes a second at most; a node on which programs start all the time is asked again later."""
IMA_PCR: Final = 10
FOLDER_FILES: Final = frozenset({"ima.bin", "ima.txt", "userspace.log", "ear.jwt", START_LOG})
"""What a folder may have besides what it always has."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quote over the asked PCRs with the asked nonce, the boot log, and what ran since, as far as it is asked for."""

    nonce: bytes
    made: PcrQuote
    boot_log: bytes = field(repr=False)
    runtime: tuple[bytes, bool] | None = field(default=None, repr=False)
    """What ran, from where it was asked for, and whether more follows that did not fit."""
    starts: tuple[bytes, bool] | None = field(default=None, repr=False)
    """The same of the log of starts."""

    def request(self, node: str, challenge: Challenge) -> dict[str, Any]:
        """Return the body of `POST /attest/v1/evidence`: the log itself only where the verifier wants it."""
        body: dict[str, Any] = {
            "node": node,
            "challenge": challenge.challenge,
            "quote": _text(self.made.quote.attest),
            "signature": _text(self.made.quote.signature),
            "pcrs": _pcrs(self.made),
        }
        if challenge.boot_log == "full":
            body["boot_log"] = _text(self.boot_log)
        else:
            body["boot_log_sha256"] = hashlib.sha256(self.boot_log).hexdigest()
        if self.runtime is not None:
            part, more = self.runtime
            body |= {"ima": _text(part), "ima_from": challenge.runtime_from, "ima_more": more}
        if self.starts is not None:
            part, more = self.starts
            body |= {"starts": _text(part), "starts_from": challenge.starts_from, "starts_more": more}
        return body


def collect(
    tpm: Tpm,
    state: NodeState,
    challenge: Challenge,
    boot_log: Path,
    runtime_list: Path = RUNTIME_LIST,
    *,
    starts: Path | None = None,
) -> Evidence:
    """Quote what the challenge asks for; `starts` is the folder with the log of starts (None: nobody keeps one).

    What runs is read after the quote: what is in it is then in the list as well; the same of what was started. Raises
    AgentStateInvalid, TpmUnavailable, TpmRefused.
    """
    made = tpm.quote(state.ak, challenge.nonce, challenge.pcrs.sha256)
    log = _read_log(boot_log)
    room = MAX_BOOT_LOG - len(log) if challenge.boot_log == "full" else MAX_BOOT_LOG
    started = None
    if starts is not None and challenge.starts_from is not None:
        started = read_start_log(starts, challenge.starts_from, most=min(room // 2, MAX_START_LOG))
        room -= len(started[0])
    start = challenge.runtime_from
    ran = None if start is None else _read_part(runtime_list, start, room)
    return Evidence(challenge.nonce, made, log, ran, started)


def collect_folder(
    directory: Path,
    tpm: Tpm,
    state: NodeState,
    *,
    nonce: bytes,
    pcrs: Sequence[int],
    boot_log: Path = BOOT_LOG,
    runtime_list: Path = RUNTIME_LIST,
    starts: Path | None = None,
) -> Evidence:
    """Quote these PCRs with somebody's own nonce (16 to 64 bytes), and write the folder that they judge.

    With PCR 10 among them the list of what ran goes along, as it was at the quote: where more ran meanwhile, it is
    quoted again. With PCR 15 the log of starts in the folder `starts` does, whatever was started after the quote.
    Raises AgentStateInvalid, TpmUnavailable, TpmRefused.
    """
    for _ in range(MOST_QUOTES):
        before = _whole_list(runtime_list) if IMA_PCR in pcrs else None
        evidence = Evidence(nonce, tpm.quote(state.ak, nonce, tuple(pcrs)), _read_log(boot_log))
        if before is None or _whole_list(runtime_list) == before:
            started = None if starts is None or STARTS_PCR not in pcrs else _whole_log(starts)
            _save(directory, state, evidence, before, started)
            return evidence
    raise AgentStateInvalid(
        f"{runtime_list} grew during each of {MOST_QUOTES} quotes", advice="try again when fewer programs start"
    )


def save_evidence(
    directory: Path,
    state: NodeState,
    evidence: Evidence,
    runtime_list: Path = RUNTIME_LIST,
    *,
    starts: Path | None = None,
) -> None:
    """Write the folder that `umec evidence verify` reads; what ran and was started is in it from the boot on."""
    listed = None if evidence.runtime is None else _whole_list(runtime_list)
    _save(directory, state, evidence, listed, None if evidence.starts is None or starts is None else _whole_log(starts))


def _save(
    directory: Path, state: NodeState, evidence: Evidence, listed: bytes | None, started: bytes | None = None
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    files = {
        "quote.bin": evidence.made.quote.attest,
        "signature.bin": evidence.made.quote.signature,
        "ak.pub": state.ak.public,
        "ak_parent.pub": state.ek_public,
        "pcrs.json": json.dumps(_pcrs(evidence.made), indent=1).encode() + b"\n",
        "bootlog.bin": evidence.boot_log,
        "nonce.bin": evidence.nonce,
    }
    if listed is not None:
        files["ima.bin"] = listed
    if started is not None:
        files[START_LOG] = started
    for stale in FOLDER_FILES - files.keys():
        (directory / stale).unlink(missing_ok=True)  # of an older round: it would be judged with this one
    for name, data in files.items():
        (directory / name).write_bytes(data)


def save_result(directory: Path, result: str | None) -> None:
    """Keep the verifier's signed result (EAR, a JWT) beside the evidence; none takes an older one away."""
    path = directory / "ear.jwt"
    if result is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(result)


def _whole_log(folder: Path) -> bytes:
    return read_start_log(folder, 0, most=MAX_SAVED_LIST)[0]


def _whole_list(path: Path) -> bytes:
    listed, more = read_runtime_list(path, 0, most=MAX_SAVED_LIST)
    if more:
        raise AgentStateInvalid(f"the list of runtime measurements {path} has more than {MAX_SAVED_LIST} bytes")
    return listed


def _read_log(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            log = file.read(MAX_BOOT_LOG + 1)
    except OSError as error:
        raise AgentStateInvalid(f"the boot log {path} cannot be read: {error.strerror}", advice="--boot-log") from error
    if len(log) > MAX_BOOT_LOG:
        raise AgentStateInvalid(f"the boot log {path} has more than {MAX_BOOT_LOG} bytes")
    return log


def _read_part(path: Path, start: int, room: int) -> tuple[bytes, bool]:
    """Return what fits of the list; none of it, though there is more, would be taken for an empty list."""
    part, more = read_runtime_list(path, start, most=min(room, MAX_RUNTIME_LIST))
    if more and not part:
        raise AgentStateInvalid(
            f"entry {start} of {path} does not fit into a request, which has {room} bytes for it",
            advice="a shorter boot log leaves more room",
        )
    return part, more


def _pcrs(made: PcrQuote) -> dict[str, dict[str, str]]:
    return {"sha256": {str(index): value.hex() for index, value in sorted(made.pcrs.items())}}


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
