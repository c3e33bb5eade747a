"""How fast evidence is judged in the verifier's process, how many rounds a second it does, and what a node costs.

    python benchmarks/attest.py [--json] [--repeats 5] [--nodes 1000]

The TPMs are keys in this process that sign what a TPM would sign, and their work is not timed. Rounds go through the
service as it is put together for use, on SQLite with its synced writes, without HTTP. Figures of a real server need
the shared vectors (UMEC_VECTORS, or ../shared/vectors beside the checkout); without them their rows are left out, and
that is said. Nothing but medians is shown.
"""

import asyncio
import base64
import gc
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from measuring import Row, at_least, at_most, options, publish

from umec_attest.appraisal import Verdict, appraise
from umec_attest.bootlog import parse_boot_log, replay, verify_boot_log
from umec_attest.ima import parse_ima, replay_ima
from umec_attest.offline import EvidencePieces, check_consistency
from umec_attest.quote import VerifiedQuote, verify_quote
from umec_attest.reference import ReferenceSet, sign_reference_set, verify_reference_set
from umec_attest.service.composition import MIGRATIONS
from umec_attest.service.evidence.challenge import ChallengeSeal
from umec_attest.service.evidence.schemas import EvidenceRequest
from umec_attest.service.evidence.service import RoundRules, RoundService
from umec_attest.service.references.service import ReferenceService
from umec_attest.service.refusals import Refusals
from umec_attest.service.settings import DEFAULT_PCRS
from umec_attest.service.standings.ledger import StandingLedger
from umec_attest.service.tables import AuditRow, NodeRow
from umec_attest.testing.eventlog import serialize_log
from umec_attest.testing.firmware import measurements
from umec_attest.testing.image import load_image, make_image
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_attest.tpm.attest import Attest, ClockInfo, Quoted
from umec_attest.tpm.names import signer_name
from umec_attest.tpm.pcr import PcrSelection
from umec_attest.tpm.public import Attributes, EccParameters, Public, SchemeChoice
from umec_attest.tpm.signature import EcdsaSignature, Scheme
from umec_core.audit import AuditLog
from umec_core.clock import system_clock
from umec_core.events import Events
from umec_core.store import Store
from umec_policies import PolicySet, load_default

__all__ = ["main"]

SHA256 = HashAlgorithm.SHA256
SELECTION = PcrSelection.from_mapping({"sha256": list(DEFAULT_PCRS)})
IMAGE = "edge-node"
WAVE = 64
"""Nodes whose rounds are under way at once."""
SERVER = "attest/hpe-keylime-perf-tests"
SERVER_NONCE = b"Sb7tNlqsd32uI1ZPWtDs"
FIXED = Attributes.FIXED_TPM | Attributes.FIXED_PARENT | Attributes.SENSITIVE_DATA_ORIGIN


def public_of(key: ec.EllipticCurvePrivateKey, attributes: Attributes, *, signs: bool) -> Public:
    """Return the public area of a P-256 key."""
    numbers = key.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    scheme = SchemeChoice(Scheme.ECDSA, SHA256) if signs else None
    return Public(SHA256, FIXED | attributes, b"", EccParameters(None, scheme, 3, None, x, y))


class SoftwareNode:
    """A node whose TPM is three keys of this process."""

    def __init__(self, name: str, pcrs: Mapping[int, bytes]) -> None:
        self.name = name
        self.pcrs = pcrs
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ak = public_of(self._key, Attributes.RESTRICTED | Attributes.SIGN, signs=True)
        self.ek = public_of(ec.generate_private_key(ec.SECP256R1()), Attributes.DECRYPT, signs=False)
        self.node_key = public_of(ec.generate_private_key(ec.SECP256R1()), Attributes.SIGN, signs=True)
        self._signer = signer_name(self.ak, self.ek)
        self._clock = 1_000_000

    def quote(self, nonce: bytes) -> tuple[bytes, bytes]:
        """Return TPMS_ATTEST and TPMT_SIGNATURE."""
        self._clock += 30_000
        digest = SHA256.digest(b"".join(self.pcrs[pcr] for pcr in DEFAULT_PCRS))
        clock = ClockInfo(self._clock, 5, 2, safe=True)
        attest = Attest(self._signer, nonce, clock, 7, Quoted(SELECTION, digest)).to_bytes()
        r, s = decode_dss_signature(self._key.sign(attest, ec.ECDSA(hashes.SHA256())))
        return attest, EcdsaSignature(SHA256, r.to_bytes(32, "big"), s.to_bytes(32, "big")).to_bytes()

    def evidence(self, challenge: Mapping[str, Any], boot_log: bytes) -> dict[str, Any]:
        """Return the body of an answer to a challenge."""
        attest, signature = self.quote(base64.b64decode(challenge["nonce"]))
        body: dict[str, Any] = {
            "node": self.name,
            "challenge": challenge["challenge"],
            "quote": base64.b64encode(attest).decode(),
            "signature": base64.b64encode(signature).decode(),
            "pcrs": {"sha256": {str(pcr): self.pcrs[pcr].hex() for pcr in DEFAULT_PCRS}},
        }
        if challenge["boot_log"] == "full":
            body["boot_log"] = base64.b64encode(boot_log).decode()
        return body


@dataclass(frozen=True)
class Sample:
    """A boot of the sample image, and a signed reference set that expects it."""

    log: bytes
    pcrs: Mapping[int, bytes]
    envelope: bytes
    reference: ReferenceSet
    signer: ec.EllipticCurvePrivateKey


def reference_for(pcrs: Mapping[int, bytes], signer: ec.EllipticCurvePrivateKey) -> tuple[bytes, ReferenceSet]:
    """Sign and verify a reference set that expects exactly these values."""
    now = system_clock()
    envelope = sign_reference_set(
        name=IMAGE,
        subject_sha256="ab" * 32,
        version=1,
        issued=now,
        expires=now + timedelta(days=30),
        pcrs={SHA256: {pcr: [value] for pcr, value in pcrs.items()}},
        ignored={},
        key=signer,
    )
    return envelope, verify_reference_set(envelope, signers=[signer.public_key()], now=now, minimum_version=0)


def sample(folder: Path) -> Sample:
    """Boot the sample image on paper."""
    log = serialize_log(list(measurements(load_image(make_image(folder / "image")))))
    replayed = replay(parse_boot_log(log), SHA256)
    pcrs = {pcr: replayed.get(pcr, bytes(32)) for pcr in DEFAULT_PCRS}
    signer = ec.generate_private_key(ec.SECP256R1())
    return Sample(log, pcrs, *reference_for(pcrs, signer), signer)


def seconds_of(work: Callable[[], object], repeats: int, least: float = 0.2) -> float:
    """Return the median time of one call, over `repeats` series of `least` seconds each."""
    began = time.perf_counter()
    work()
    count = max(1, round(least / (time.perf_counter() - began)))
    series = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(count):
            work()
        series.append((time.perf_counter() - began) / count)
    return statistics.median(series)


def appraise_sample(given: Sample, policies: PolicySet, repeats: int) -> Iterator[Row]:
    """A first round of the sample node: quote, boot log, appraisal, policy."""
    node, nonce = SoftwareNode("node-1", given.pcrs), os.urandom(32)
    attest, signature = node.quote(nonce)
    now = system_clock()

    def work() -> None:
        quote = verify_quote(
            attest=attest,
            signature=signature,
            ak=node.ak,
            ak_parent=node.ek,
            nonce=nonce,
            selection=SELECTION,
            pcrs={SHA256: given.pcrs},
        )
        judge(quote, given.log, given.reference, policies)

    def judge(quote: VerifiedQuote, log: bytes, reference: ReferenceSet, policies: PolicySet) -> None:
        replayed = verify_boot_log(parse_boot_log(log), quote)
        appraisal = appraise(
            node="node-1", quote=quote, log=replayed, reference=reference, policies=policies, previous=None, now=now
        )
        assert appraisal.verdict is Verdict.AFFIRMING, appraisal.findings  # noqa: S101 - else the figure means nothing

    yield Row("first round of the sample node, in process", 1 / seconds_of(work, repeats), "/s")


def appraise_server(folder: Path, policies: PolicySet, repeats: int) -> Iterator[Row]:
    """A first round of a real server: quote, 73 KB of boot log, 780 IMA entries, appraisal, policy."""
    expected = json.loads((folder / "expected.json").read_text())["pcrs"]
    pieces = EvidencePieces(
        quote=(folder / "quote.bin").read_bytes(),
        signature=(folder / "signature.bin").read_bytes(),
        pcrs=json.dumps(expected).encode(),
        ak=(folder / "ak_tpm2b_public.bin").read_bytes(),
        nonce=SERVER_NONCE,
        boot_log=(folder / "uefi_log.bin").read_bytes(),
        ima=(folder / "ima_log.txt").read_bytes(),
    )
    quote = check_consistency(pieces).quote
    static = {pcr: value for pcr, value in quote.pcrs[SHA256].items() if pcr < 16}  # the others carry no policy
    _, reference = reference_for(static, ec.generate_private_key(ec.SECP256R1()))
    now = system_clock()

    def work() -> None:
        found = check_consistency(pieces)
        verified = VerifiedQuote(found.quote.pcrs, found.quote.clock_info, found.quote.firmware_version)
        appraise(
            node="server", quote=verified, log=found.log, reference=reference, policies=policies, previous=None, now=now
        )

    rate = 1 / seconds_of(work, repeats)
    yield at_least("first round of a real server (73 KB boot log, 780 IMA entries)", rate, "/s", 120)
    text = pieces.ima or b""
    entries = parse_ima(text)
    binary = b"".join(
        (10).to_bytes(4, "little")
        + entry.template_hash
        + len(entry.template).to_bytes(4, "little")
        + entry.template.encode()
        + len(entry.data).to_bytes(4, "little")
        + entry.data
        for entry in entries
    )
    for form, data in (("text", text), ("binary", binary)):
        spent = seconds_of(partial(lambda data: replay_ima(parse_ima(data), SHA256), data), repeats)
        yield at_least(f"IMA entries parsed and replayed, {form} form", len(entries) / spent, "/s", 350_000)


@dataclass
class Site:
    """A verifier on SQLite, and its nodes."""

    service: RoundService
    store: Store
    given: Sample
    database: Path

    async def enrol(self, nodes: list[SoftwareNode]) -> None:
        """Write nodes down as an enrolment with a ticket leaves them."""

        async def work(session: Any) -> None:  # noqa: ANN401 - a session of SQLAlchemy
            now = system_clock()
            for node in nodes:
                session.add(
                    NodeRow(
                        id=node.name,
                        tenant="acme",
                        image=IMAGE,
                        approved=True,
                        ek_sha256=SHA256.digest(node.ek.to_bytes()).hex(),
                        ek_public=node.ek.to_bytes(),
                        ak_public=node.ak.to_bytes(),
                        node_key_public=node.node_key.to_bytes(),
                        standing="pending",
                        generation=1,
                        reason="",
                        changed_at=now,
                        enrolled_at=now,
                        rounds=0,
                    )
                )

        await self.store.write(work)

    async def rounds(self, nodes: list[SoftwareNode]) -> float:
        """Do one round of every node, all at once, and return the seconds that the verifier took."""
        began = time.perf_counter()
        challenges = await asyncio.gather(*(self.service.challenge(node.name) for node in nodes))
        spent = time.perf_counter() - began
        pairs = zip(nodes, challenges, strict=True)
        bodies = [node.evidence(challenge, self.given.log) for node, challenge in pairs]
        began = time.perf_counter()
        answers = await asyncio.gather(
            *(self.service.submit(EvidenceRequest.model_validate(body), address="192.0.2.1") for body in bodies)
        )
        spent += time.perf_counter() - began
        assert all(answer["standing"] == "trusted" for answer in answers), answers[0]  # noqa: S101 - as above
        return spent


@asynccontextmanager
async def site(folder: Path, given: Sample, policies: PolicySet) -> Any:  # noqa: ANN401 - an async context
    """Open a verifier as `AttestService` does."""
    database = folder / "attest.db"
    store = await Store.open(f"sqlite+aiosqlite:///{database}", migrations=MIGRATIONS)
    audit = AuditLog(AuditRow, ec.generate_private_key(ec.SECP256R1()), "umec/attest")
    refusals = Refusals(store, audit)
    references = ReferenceService(store, audit, refusals, signers=[given.signer.public_key()], clock=system_clock)
    await references.install(given.envelope, actor="benchmark")
    rules = RoundRules(
        issuer="https://localhost:8443/attest/v1",
        audience="https://localhost:8443",
        pcrs=DEFAULT_PCRS,
        round=timedelta(seconds=30),
        silent_rounds=3,
        challenge=timedelta(seconds=60),
        result=timedelta(seconds=300),
    )
    service = RoundService(
        store,
        audit,
        StandingLedger(audit, Events()),
        refusals,
        references,
        rules=rules,
        seal=ChallengeSeal(os.urandom(32)),
        key=ec.generate_private_key(ec.SECP256R1()),
        policies=policies,
        clock=system_clock,
    )
    try:
        yield Site(service, store, given, database)
    finally:
        await store.close()


async def serve_rounds(folder: Path, given: Sample, policies: PolicySet, repeats: int, count: int) -> list[Row]:
    """Rounds of nodes at once, of one node alone, and what each node more costs."""
    async with site(folder, given, policies) as verifier:
        wave = [SoftwareNode(f"node-{number}", given.pcrs) for number in range(WAVE)]
        await verifier.enrol(wave)
        first = WAVE / await verifier.rounds(wave)
        await verifier.rounds(wave)
        steady = statistics.median([WAVE / await verifier.rounds(wave) for _ in range(repeats)])
        alone = statistics.median([await verifier.rounds(wave[:1]) for _ in range(8 * repeats)])
        memory, disk = await cost_of_nodes(verifier, count)
    return [
        Row(f"first rounds through the service, {WAVE} at once", first, "/s"),
        at_least(f"steady rounds through the service (challenge and evidence), {WAVE} at once", steady, "/s", 1800),
        Row("steady round of one node alone", alone * 1000, "ms"),
        at_most(f"memory per enrolled node, over {count:,}", memory, "KB", 10),
        Row("database per enrolled node", disk, "KB"),
    ]


async def cost_of_nodes(verifier: Site, count: int) -> tuple[float, float]:
    """Return KB of memory and of database that each of `count` more nodes costs after its first round."""
    nodes = [SoftwareNode(f"more-{number}", verifier.given.pcrs) for number in range(count)]
    gc.collect()
    before, stored = resident_kb(), verifier.database.stat().st_size
    await verifier.enrol(nodes)
    for start in range(0, count, WAVE):
        await verifier.rounds(nodes[start : start + WAVE])
    gc.collect()
    return (resident_kb() - before) / count, (verifier.database.stat().st_size - stored) / 1024 / count


def resident_kb() -> float:
    """Return the memory of this process that is in RAM now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1024


def measure(repeats: int, count: int) -> list[Row]:
    """Measure everything that can be measured here."""
    policies = load_default("appraisal")
    vectors = Path(os.environ.get("UMEC_VECTORS", Path(__file__).parents[2] / "shared" / "vectors"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = sample(folder)
        rows = list(appraise_sample(given, policies, repeats))
        if (vectors / SERVER).is_dir():
            rows += appraise_server(vectors / SERVER, policies, repeats)
        else:
            print("left out: the figures of a real server (set UMEC_VECTORS)", file=sys.stderr)
        rows += asyncio.run(serve_rounds(folder, given, policies, repeats, count))
    return rows


def main() -> None:
    """Measure and print."""
    parser = options(__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    given = parser.parse_args()
    publish(measure(given.repeats, given.nodes), as_json=given.json)


if __name__ == "__main__":
    main()
