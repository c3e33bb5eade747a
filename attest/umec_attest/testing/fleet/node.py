"""A node without a TPM: counters, PCRs, boot log and keys of a software TPM 2.0 in this process.

It moves as TPM 2.0 Part 1, 12.2 and 36 say:

| move         | resetCount | restartCount | PCRs      | clock                                                       |
|--------------|------------|--------------|-----------|-------------------------------------------------------------|
| reboot       | + 1        | 0            | new boot  | goes on                                                     |
| power cut    | + 1        | 0            | new boot  | back to the last one saved, `safe` = 0 until the next save  |
| hibernation  |            | + 1          | new boot  | goes on                                                     |
| suspend      |            | + 1          | kept      | goes on                                                     |
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from umec_attest.testing.eventlog import Measurement, serialize_log
from umec_attest.testing.firmware import measurements
from umec_attest.testing.fleet import structures
from umec_attest.testing.fleet.keys import Keys
from umec_attest.testing.fleet.structures import ClockInfo
from umec_attest.testing.image import Tamper, load_image, tampered
from umec_attest.testing.runtime import RuntimeList, measured

__all__ = ["Boot", "SimulatedNode"]

PCRS: Final = 24
IMA_PCR: Final = 10
DRTM: Final = range(17, 23)
"""PCRs that begin with all ones."""
FIRST: Final = ClockInfo(1_000_000, 5, 0, safe=True, firmware_version=7)
SAVED_EVERY: Final = 2**22
"""Milliseconds between two saves of the clock (Part 1, 36.3.2)."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What one boot measured: the log, and the SHA-256 bank after it. Nodes that boot the same share it."""

    log: bytes
    pcrs: Mapping[int, bytes]

    @classmethod
    def of(cls, image: Path, *, tamper: Tamper | None = None) -> "Boot":
        """Boot a node image folder on paper."""
        contents = load_image(image)
        return cls.measuring(measurements(contents if tamper is None else tampered(contents, tamper)))

    @classmethod
    def measuring(cls, measured: Iterable[Measurement]) -> "Boot":
        """Measure these, in their order."""
        listed = list(measured)
        pcrs = {pcr: (b"\xff" if pcr in DRTM else b"\0") * 32 for pcr in range(PCRS)}
        for measurement in listed:
            pcrs[measurement.pcr] = extended(pcrs[measurement.pcr], measurement.digest)
        return cls(serialize_log(listed), pcrs)


def extended(value: bytes, digest: bytes) -> bytes:
    """Return a PCR of the SHA-256 bank after an extension."""
    return hashlib.sha256(value + digest).digest()


class SimulatedNode:
    """A node: `clock` has its counters, `pcrs` the SHA-256 bank, `log` the boot log; all may be set by an adversary."""

    def __init__(
        self,
        name: str,
        keys: Keys,
        boot: Boot,
        *,
        programs: Sequence[tuple[str, bytes]] = (),
        clock: ClockInfo = FIRST,
    ) -> None:
        """`programs` are measured at each boot, path and content; without any there is no list of what runs."""
        self.name = name
        self.keys = keys
        self.clock = clock
        self._saved = clock.clock
        self.booted = boot
        self.programs = programs
        self.runtime: RuntimeList | None = None
        self.signer = structures.qualified_signer(keys.ak_public, keys.ek_public)
        self._boot(boot)

    def run(self, milliseconds: int) -> None:
        """Let time go by."""
        clock = self.clock.clock + milliseconds
        saved = clock - clock % SAVED_EVERY
        if saved > self._saved:
            self._saved = saved
            self.clock = replace(self.clock, safe=True)
        self.clock = replace(self.clock, clock=clock)

    def reboot(self, boot: Boot | None = None) -> None:
        """Shut down in good order and boot: the same, unless another boot is given."""
        self.clock = replace(self.clock, reset_count=self.clock.reset_count + 1, restart_count=0)
        self._boot(boot)

    def cut_power(self, boot: Boot | None = None) -> None:
        """Lose power, and boot when it is there again."""
        self.clock = replace(self.clock, clock=self._saved, safe=False)
        self.reboot(boot)

    def hibernate(self, boot: Boot | None = None) -> None:
        """Write the memory to disk, switch off, and boot later (TPM Restart)."""
        self.clock = replace(self.clock, restart_count=self.clock.restart_count + 1)
        self._boot(boot)

    def suspend(self) -> None:
        """Sleep and wake (TPM Resume): the PCRs stay."""
        self.clock = replace(self.clock, restart_count=self.clock.restart_count + 1)

    def extend(self, pcr: int, what: bytes) -> None:
        """Measure something more, which no log tells of."""
        self.pcrs[pcr] = extended(self.pcrs[pcr], hashlib.sha256(what).digest())

    def start(self, path: str, content: bytes) -> None:
        """Have the kernel measure a program that is started."""
        self.measure(measured(path, hashlib.sha256(content).digest()))

    def measure(self, entry: bytes) -> None:
        """Have the kernel append an entry to its list, and extend PCR 10 by it."""
        if self.runtime is None:
            raise ValueError("this node has no list of what runs")
        self.pcrs[IMA_PCR] = extended(self.pcrs[IMA_PCR], self.runtime.add(entry))

    def quote(self, nonce: bytes, asked: Iterable[int]) -> tuple[bytes, bytes]:
        """Return TPMS_ATTEST and TPMT_SIGNATURE over the asked PCRs of the SHA-256 bank."""
        made = structures.attest(
            signer=self.signer,
            extra_data=nonce,
            clock=self.clock,
            attested=structures.quote_info(self.pcrs, list(asked)),
        )
        return made, self.keys.sign(made)

    def evidence(self, challenge: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of `POST /attest/v1/evidence` for the answer to `POST /attest/v1/challenges`."""
        asked = challenge["pcrs"]["sha256"]
        attest, signature = self.quote(base64.b64decode(challenge["nonce"]), asked)
        body: dict[str, Any] = {
            "node": self.name,
            "challenge": challenge["challenge"],
            "quote": _b64(attest),
            "signature": _b64(signature),
            "pcrs": {"sha256": {str(pcr): self.pcrs[pcr].hex() for pcr in asked}},
        }
        if challenge["boot_log"] == "full":
            body["boot_log"] = _b64(self.log)
        else:
            body["boot_log_sha256"] = hashlib.sha256(self.log).hexdigest()
        wanted = challenge.get("ima")
        if wanted is not None and self.runtime is not None:
            tail = self.runtime.entries[wanted["from"] :]
            body |= {"ima": _b64(b"".join(tail)), "ima_from": wanted["from"]}
        return body

    def _boot(self, boot: Boot | None) -> None:
        booted = self.booted if boot is None else boot
        self.booted = booted
        self.pcrs = dict(booted.pcrs)
        self.log = booted.log
        if self.programs:
            self.runtime = RuntimeList.of(self.pcrs, self.programs)
            self.pcrs[IMA_PCR] = self.runtime.pcr


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()
