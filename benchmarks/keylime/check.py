"""Keylime's own check of one evidence, timed in Keylime's own environment: `benchmarks/attest.py` starts it.

    KEYLIME-PYTHON benchmarks/keylime/check.py FOLDER REPEATS SECONDS

FOLDER holds evidence of a real server: `quote.bin`, `signature.bin`, `pcrs.tpm2tools.bin`, `ima_log.txt`,
`uefi_log.bin`, `ak_tpm2b_public.bin`, `nonce.bin`. Prints a JSON object: seconds of the processor by name, each the
median of REPEATS series of SECONDS. Keylime does not log, which makes it faster. Its policy allows exactly the files of
the list.

`keylime.signing` imports GnuPG's bindings for signatures of policies, which are not checked here; they need a compiler
and a library of the system, so that an empty module stands for them.
"""

import base64
import contextlib
import io
import json
import logging
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.modules["gpg"] = types.ModuleType("gpg")
with contextlib.redirect_stderr(io.StringIO()):
    from keylime.common.algorithms import Hash
    from keylime.ima import ima
    from keylime.mba import mba
    from keylime.tpm.tpm_main import Tpm
logging.disable(logging.CRITICAL)
mba.load_imports(skip_custom_policies=True)

IMA_PCR = 10


def policy_for(lines: list[str]) -> dict[str, Any]:
    """Return a runtime policy that allows exactly what the list has."""
    policy = ima.empty_policy()
    policy["ima"]["log_hash_alg"] = "sha1"
    for line in lines:
        _, _, _, digest, path = line.split(" ", 4)
        policy["digests"].setdefault(path, []).append(digest.partition(":")[2])
    return policy


def processor() -> float:
    """Return the processor's time of this process and of the programs that it ran, in seconds."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def seconds_of(work: Callable[[], object], repeats: int, least: float) -> float:
    """Return the median processor's time of one call."""
    began = processor()
    work()
    count = max(1, round(least / max(processor() - began, 1e-6)))
    series = []
    for _ in range(repeats):
        began = processor()
        for _ in range(count):
            work()
        series.append((processor() - began) / count)
    return statistics.median(series)


class Evidence:
    """The evidence in Keylime's form."""

    def __init__(self, folder: Path) -> None:
        parts = ("quote.bin", "signature.bin", "pcrs.tpm2tools.bin")
        self.quote = "r" + ":".join(base64.b64encode((folder / part).read_bytes()).decode() for part in parts)
        self.ak = base64.b64encode((folder / "ak_tpm2b_public.bin").read_bytes()).decode()
        self.nonce = (folder / "nonce.bin").read_text()
        self.ima = (folder / "ima_log.txt").read_text()
        self.lines = self.ima.splitlines()
        self.policy = policy_for(self.lines)
        self.boot_log = base64.b64encode((folder / "uefi_log.bin").read_bytes()).decode()

    def check_quote(self) -> None:
        """The quote alone."""
        self._held(self._checked(skip_pcr_check=True))

    def check_quote_and_ima(self) -> None:
        """The quote and the list of runtime measurements against the policy."""
        policy = {"mask": hex(1 << IMA_PCR)}
        failure = self._checked(tpm_policy=policy, ima_measurement_list=self.ima, runtime_policy=self.policy)
        self._held(failure)

    def check_ima(self) -> None:
        """The list of runtime measurements against the policy."""
        _, failure = ima.process_measurement_list(None, self.lines, self.policy, hash_alg=Hash.SHA256)
        self._held(failure)

    def parse_boot_log(self) -> None:
        """The boot log, by the program of tpm2-tools and the YAML that it prints, and no policy about it."""
        pcrs, _, _, failure = mba.bootlog_parse(self.boot_log, Hash.SHA256)
        self._held(failure)
        if not pcrs:
            raise RuntimeError("Keylime read no PCR from the boot log")

    def _checked(self, **how: Any) -> Any:  # noqa: ANN401 - Keylime's Failure
        return Tpm().check_quote(
            None, self.nonce, None, self.quote, self.ak, hash_alg=Hash.SHA256, skip_data_pcr_check=True, **how
        )

    @staticmethod
    def _held(failure: Any) -> None:  # noqa: ANN401 - Keylime's Failure
        if failure:
            raise RuntimeError(f"Keylime refuses good evidence: {[event.context for event in failure.events]}")


def main() -> None:
    """Measure and print."""
    given, repeats, least = Evidence(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3])
    works = {
        "quote": given.check_quote,
        "quote and IMA": given.check_quote_and_ima,
        "IMA": given.check_ima,
        "boot log": given.parse_boot_log,
    }
    spent: dict[str, float | str] = {}
    for name, work in works.items():
        try:
            spent[name] = seconds_of(work, repeats, least)
        except Exception as error:  # noqa: BLE001 - said, and the others are measured
            spent[name] = f"{type(error).__name__}: {error}"
    print(json.dumps({"seconds": spent, "entries": len(given.lines)}))


if __name__ == "__main__":
    main()
