"""How fast evidence is judged, how many rounds a second a verifier does, what a node costs, and how fast Keylime is.

    python benchmarks/attest.py [--json] [--repeats 5] [--nodes 1000] [--seconds 2] [--only PART]

PART: judging, rounds, https, keylime; all of them if none is named.

Judging is measured in this process, by the processor's time, as is Keylime: what else runs changes that least. Rounds
go through the service as it is put together for use, on SQLite with its synced writes: without HTTP, and over HTTPS
with the verifier on one core and the nodes on the other, there on PostgreSQL as well. The TPMs are keys that sign what
a TPM would sign; without HTTP their work is not timed.

The evidence of a real server is one that was published with a benchmark of Keylime (UMEC_VECTORS, or ../shared/vectors
beside the checkout); Keylime's own check of it runs in an environment of its own, which is made the first time. Where
one of them is missing its rows are left out, and that is said. Nothing but medians is shown.
"""

import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from attestrounds import in_process, over_https
from cryptography.hazmat.primitives.asymmetric import ec
from fleetserver import ERRORS
from keylimepeer import PeerMissing, ask_keylime
from measuring import Row, at_least, options, publish

from umec_attest.appraisal import Appraisal, Verdict, appraise
from umec_attest.bootlog import extract_facts, parse_boot_log, verify_boot_log
from umec_attest.digests import parse_pcr_values
from umec_attest.ima import IMA_PCR, RuntimeJudged, SeenByFleet, judge_runtime, parse_ima, parse_runtime_policy
from umec_attest.quote import VerifiedQuote, verify_quote, verify_quote_unanchored
from umec_attest.reference import ReferenceSet, sign_reference_set, verify_reference_set
from umec_attest.testing.fleet.keys import make_keys
from umec_attest.testing.fleet.node import Boot, SimulatedNode
from umec_attest.testing.image import make_image
from umec_attest.testing.node import DEFAULT_PCRS
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import parse_public, parse_tpm2b_public
from umec_core.clock import system_clock
from umec_core.telemetry import configure_logging
from umec_policies import load_default

__all__ = ["main"]

SHA256 = HashAlgorithm.SHA256
SELECTION = PcrSelection.from_mapping({"sha256": list(DEFAULT_PCRS)})
IMAGE = "edge-node"
SERVER = "attest/hpe-keylime-perf-tests"
FILES = ("quote.bin", "signature.bin", "pcrs.tpm2tools.bin", "ak_tpm2b_public.bin", "ima_log.txt", "uefi_log.bin")
SERVER_NONCE = b"Sb7tNlqsd32uI1ZPWtDs"
KNOWN = {"pcr-unlisted", "secure-boot-off"}
"""What is to be found in it: PCR 16, which no reference set can list, was quoted, too."""
STATIC = range(16)
"""PCRs that only a reset makes zero again; the others carry no policy."""
PARTS = ("judging", "rounds", "https", "keylime")


def seconds_of(work: Callable[[], object], repeats: int, least: float = 0.2) -> float:
    """Return the median processor's time of one call, over `repeats` series of `least` seconds each."""
    began = time.process_time()
    work()
    count = max(1, round(least / max(time.process_time() - began, 1e-6)))
    series = []
    for _ in range(repeats):
        began = time.process_time()
        for _ in range(count):
            work()
        series.append((time.process_time() - began) / count)
    return statistics.median(series)


def reference_for(pcrs: Mapping[int, bytes], files: Mapping[str, list[str]] | None = None) -> ReferenceSet:
    """Return a reference set that expects exactly these values, and allows exactly these files."""
    now, signer = system_clock(), ec.generate_private_key(ec.SECP256R1())
    envelope = sign_reference_set(
        name=IMAGE,
        subject_sha256="ab" * 32,
        version=1,
        issued=now,
        expires=now + timedelta(days=30),
        pcrs={SHA256: {pcr: [value] for pcr, value in pcrs.items()}},
        ignored={},
        key=signer,
        runtime=None if files is None else parse_runtime_policy({"files": files}),
    )
    return verify_reference_set(envelope, signers=[signer.public_key()], now=now, minimum_version=0)


def judge_sample(boot: Boot, repeats: int) -> Iterator[Row]:
    """A first round of the sample node: quote, boot log, appraisal, policy."""
    node, nonce = SimulatedNode("node-1", make_keys(), boot), os.urandom(32)
    policies, now = load_default("appraisal"), system_clock()
    attest, signature = node.quote(nonce, DEFAULT_PCRS)
    ak, ek = parse_public(node.keys.ak_public), parse_public(node.keys.ek_public)
    pcrs = {pcr: boot.pcrs[pcr] for pcr in DEFAULT_PCRS}
    reference = reference_for(pcrs)

    def work() -> None:
        quote = verify_quote(
            attest=attest,
            signature=signature,
            ak=ak,
            ak_parent=ek,
            nonce=nonce,
            selection=SELECTION,
            pcrs={SHA256: pcrs},
        )
        log = verify_boot_log(parse_boot_log(boot.log), quote)
        found = appraise(
            node="node-1", quote=quote, log=log, reference=reference, policies=policies, previous=None, now=now
        )
        assert found.verdict is Verdict.AFFIRMING, found.findings  # noqa: S101 - else the figure means nothing

    yield Row("first round of the sample node, in process", 1 / seconds_of(work, repeats), "/s")


class RealServer:
    """The evidence of a real server: quote, 73 KB of boot log, 780 IMA entries."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: (folder / name).read_bytes() for name in FILES} | {"nonce.bin": SERVER_NONCE}
        self.ak = parse_tpm2b_public(self.files["ak_tpm2b_public.bin"])
        self.values = json.dumps(json.loads((folder / "expected.json").read_text())["pcrs"])
        self.text = self.files["ima_log.txt"]
        self.entries = parse_ima(self.text)
        self.binary = b"".join(
            IMA_PCR.to_bytes(4, "little")
            + entry.template_hash
            + len(entry.template).to_bytes(4, "little")
            + entry.template.encode()
            + len(entry.data).to_bytes(4, "little")
            + entry.data
            for entry in self.entries
        )
        self.policies, self.now = load_default("appraisal"), system_clock()
        quoted = self.quote().pcrs[SHA256]
        self.reference = reference_for({pcr: quoted[pcr] for pcr in STATIC if pcr != IMA_PCR}, self._files())

    def _files(self) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        for line in self.text.decode().splitlines()[1:]:
            _, _, _, digest, path = line.split(" ", 4)
            files.setdefault(path, []).append(digest.partition(":")[2])
        return {path: sorted(set(digests)) for path, digests in files.items()}

    def quote(self) -> VerifiedQuote:
        """Verify the quote. Who signed it is not known here: the EK was not published."""
        found = verify_quote_unanchored(
            attest=self.files["quote.bin"],
            signature=self.files["signature.bin"],
            ak=self.ak,
            nonce=SERVER_NONCE,
            pcrs=parse_pcr_values(json.loads(self.values)),
        )
        return VerifiedQuote(found.pcrs, found.clock_info, found.firmware_version)

    def runtime(self, quote: VerifiedQuote, *, text: bool = True, seen: SeenByFleet | None = None) -> RuntimeJudged:
        """Judge the list of runtime measurements; `seen` is what the fleet had before."""
        policy = self.reference.runtime
        assert policy is not None  # noqa: S101 - given above
        judged = judge_runtime(self.text if text else self.binary, quote, None, policy, seen=seen)
        assert not judged.findings, judged.findings  # noqa: S101 - else the figure means nothing
        return judged

    def appraise(self, seen: SeenByFleet | None = None) -> Appraisal:
        """Judge everything: a first round."""
        quote = self.quote()
        log = verify_boot_log(parse_boot_log(self.files["uefi_log.bin"]), quote)
        return appraise(
            node="server",
            quote=quote,
            log=log,
            reference=self.reference,
            policies=self.policies,
            previous=None,
            now=self.now,
            runtime=self.runtime(quote, seen=seen),
        )

    def extend(self) -> None:
        """What no judging can be faster than: the extension, which depends on what was before on the same node."""
        value = bytes(32)
        for entry in self.entries:
            value = hashlib.sha256(value + entry.data[8:40]).digest()

    def rows(self, repeats: int) -> Iterator[Row]:
        """Measure first rounds, and the list of runtime measurements alone."""
        found = {finding.id for finding in self.appraise().findings}
        assert found == KNOWN, found  # noqa: S101 - as above
        rate = 1 / seconds_of(self.appraise, repeats)
        yield at_least("first round of a real server (73 KB boot log, 780 IMA entries)", rate, "/s", 120)
        quote, count = self.quote(), len(self.entries)
        policy = self.reference.runtime
        assert policy is not None  # noqa: S101 - as above
        listed, files = policy.to_json(), len(policy.files)
        spent = seconds_of(lambda: parse_runtime_policy(listed), repeats)
        yield Row("files of a runtime policy read, with what their entries extend: once a process", files / spent, "/s")
        yield Row("the extension alone of IMA entries", count / seconds_of(self.extend, repeats), "/s")
        for form in ("text", "binary"):
            spent = seconds_of(lambda form=form: self.runtime(quote, text=form == "text"), repeats)
            yield at_least(f"IMA entries judged at first sight, {form} form", count / spent, "/s", 350_000)
        for form in ("text", "binary"):
            seen = SeenByFleet()
            self.runtime(quote, text=form == "text", seen=seen)
            spent = seconds_of(
                lambda form=form, seen=seen: self.runtime(quote, text=form == "text", seen=seen), repeats
            )
            yield at_least(f"IMA entries that the fleet has seen, {form} form", count / spent, "/s", 1_000_000)

    def beside_keylime(self, repeats: int) -> Iterator[Row]:
        """Measure the same checks of the same evidence here and there, one after the other."""
        quote = self.quote()
        ours: dict[str, Callable[[], object]] = {
            "quote": self.quote,
            "IMA": lambda: self.runtime(quote),
            "quote and IMA": lambda: self.runtime(self.quote()),
            "boot log": lambda: extract_facts(verify_boot_log(parse_boot_log(self.files["uefi_log.bin"]), quote)),
        }
        peer = ask_keylime(self.files, repeats, 0.2)
        for name, why in peer.missing.items():
            print(f"LEFT OUT: {name} by Keylime: {why}", file=sys.stderr)
        for name, theirs in peer.seconds.items():
            mine = seconds_of(ours[name], repeats)
            yield Row(f"{name} of the real server: Keylime", 1000 * theirs, "ms")
            yield Row(f"{name} of the real server: here", 1000 * mine, "ms")
            yield Row(f"{name} of the real server: times as fast as Keylime", theirs / mine, "x")


def measure(parts: Sequence[str], repeats: int, count: int, seconds: float) -> Iterator[Row]:
    """Measure everything that can be measured here."""
    vectors = Path(os.environ.get("UMEC_VECTORS", Path(__file__).parents[2] / "shared" / "vectors"))
    server = RealServer(vectors / SERVER) if (vectors / SERVER).is_dir() else None
    if server is None:
        print("LEFT OUT: the figures of a real server, and Keylime's (set UMEC_VECTORS)", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="umec-attest-") as name:
        folder = Path(name)
        boot = Boot.of(make_image(folder / "image"))
        if "judging" in parts:
            yield from judge_sample(boot, repeats)
            yield from () if server is None else server.rows(repeats)
        if "keylime" in parts and server is not None:
            try:
                yield from server.beside_keylime(repeats)
            except PeerMissing as missing:
                print(f"LEFT OUT: Keylime: {missing}", file=sys.stderr)
        if "rounds" in parts:
            yield from in_process(folder, boot, repeats, count)
        if "https" in parts:
            yield from over_https(folder, boot, repeats, seconds)


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=1000, help="nodes whose memory is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a series over HTTPS")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; several may be named")
    given = parser.parse_args()
    configure_logging(json=True, level=ERRORS)
    rows = list(measure(given.only or PARTS, given.repeats, given.nodes, given.seconds))
    publish(rows, as_json=given.json)


if __name__ == "__main__":
    main()
