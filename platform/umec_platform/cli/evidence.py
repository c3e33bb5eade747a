"""`umec evidence`: evidence in a folder, collected on a node and judged offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from umec_platform.cli.node.parameters import BOOT_LOG, RUNTIME_LIST, BootLog, OwnTcti, RuntimeList, State
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from umec_attest.appraisal import Appraisal
    from umec_attest.offline import EvidencePieces
    from umec_attest.starts.decisions import DecisionRules
    from umec_policies import PolicySet

__all__ = ["app", "load_signer"]

app = typer.Typer(help="Collect evidence into a folder, and judge it there.", no_args_is_help=True)

PCRS: Final = "0,1,2,3,4,5,6,7,9,10,11,12,14"
LAST_PCR: Final = 23
SHORTEST_NONCE: Final = 16
"""Nobody guesses 128 bits, and nobody meets one twice."""
LONGEST_NONCE: Final = 64
"""TPM2B_DATA holds a digest and its algorithm (TPM 2.0 Part 2, 10.4.3); SHA-512 is the longest."""
STRUCTURAL_VERDICT = "consistent, AK not anchored, no policy"


@app.callback()
def _evidence() -> None:
    """Collect evidence into a folder, and judge it there."""


@app.command()
@refusals
def collect(
    folder: Annotated[Path, typer.Argument(help="Where quote.bin, signature.bin, pcrs.json, … go.")],
    state: State,
    nonce: Annotated[str, typer.Option(help="The nonce of who will judge: 16 to 64 bytes in hex.")],
    pcrs: Annotated[str, typer.Option(help="The PCRs to quote; with 10, what ran goes along.")] = PCRS,
    boot_log: BootLog = BOOT_LOG,
    runtime_list: RuntimeList = RUNTIME_LIST,
    tcti: OwnTcti = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Collect evidence of this node for somebody who judges it without a service.

    Run on the enrolled node, as the agent's user. The nonce must come from whoever judges, and be used once: evidence
    with a nonce of the node's own choice proves nothing about now.
    """
    from umec_attest.agent.evidence import collect_folder
    from umec_attest.agent.state import load_state
    from umec_attest.agent.tpm import Tpm

    wanted, asked = _pcr_numbers(pcrs), _nonce(nonce)
    enrolled = load_state(state)
    with Tpm(tcti if tcti is not None else enrolled.tcti) as tpm:
        evidence = collect_folder(
            folder, tpm, enrolled, nonce=asked, pcrs=wanted, boot_log=boot_log, runtime_list=runtime_list, starts=state
        )
    shown = {"node": enrolled.node, "folder": str(folder), "pcrs": list(wanted), "boot_log": len(evidence.boot_log)}
    emit(shown, as_json=as_json, human=f"{folder}: evidence of {enrolled.node} now; judge it: umec evidence verify")


@app.command()
@refusals
def verify(
    folder: Annotated[Path, typer.Argument(help="quote.bin, signature.bin, pcrs.json, bootlog.bin, ima.bin, …")],
    ak: Annotated[Path | None, typer.Option(help="The expected AK: TPM2B_PUBLIC or TPMT_PUBLIC.")] = None,
    ak_parent: Annotated[
        Path | None, typer.Option(help="Its parent, the EK (default: ak_parent.pub, which cannot deceive).")
    ] = None,
    nonce: Annotated[str | None, typer.Option(help="The nonce of the challenge, in hex.")] = None,
    reference: Annotated[Path | None, typer.Option(help="The reference set: a DSSE envelope.")] = None,
    older: Annotated[
        list[Path] | None, typer.Option(help="A set before it, which counts as long as newer ones let it (repeatable).")
    ] = None,
    signer: Annotated[list[Path] | None, typer.Option(help="PEM public key that may sign it (repeatable).")] = None,
    policy: Annotated[str | None, typer.Option(help='Cedar file, folder with its own schema, or "default".')] = None,
    node: Annotated[str, typer.Option(help="Whose evidence it is, for the policies.")] = "offline",
    decisions: Annotated[
        Path | None, typer.Option(help="JWKS of who decides about starts of applications, for a host.")
    ] = None,
    decision_issuer: Annotated[str, typer.Option(help="Issuer of these decisions.")] = "",
    structural: Annotated[bool, typer.Option("--structural", help="Only whether the pieces fit each other.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify evidence; exit status 0 only if everything was checked and held.

    Expected AK, nonce, reference set and policy come from options, never from the folder. What is missing is a refusal:
    the boot log always, the list of what ran (ima.bin or ima.txt) where the reference set says what may run. Of a host,
    starts.log is compared with the decisions of --decisions.
    """
    from umec_attest.offline import EvidenceIncomplete, check_consistency

    pieces = _read(folder)
    if structural:
        consistent = check_consistency(pieces)
        counted = {
            "pcr_values": sum(len(bank) for bank in consistent.quote.pcrs.values()),
            "boot_events": consistent.boot_events,
            "boot_bytes_uncovered": consistent.boot_bytes_uncovered,
            "ima_entries": consistent.ima_entries,
            "starts": consistent.starts,
        }
        result: dict[str, Any] = {"verdict": STRUCTURAL_VERDICT, "findings": [], "trust_vector": {}}
        result |= {"checked": list(consistent.checked)}
        emit(result | {name: one for name, one in counted.items() if one is not None}, as_json=as_json)
        return
    expected = {"--ak": ak, "--nonce": nonce, "--reference": reference, "--signer": signer, "--policy": policy}
    missing = [option for option, value in expected.items() if not value]
    if ak is None or nonce is None or reference is None or not signer or policy is None:
        raise EvidenceIncomplete(f"nothing is proven without {', '.join(missing)}")
    rules, sets = _decisions(decisions, decision_issuer), [reference, *(older or [])]
    appraisal = _judge(pieces, ak, ak_parent, nonce, sets, signer, policy, node, rules)
    emit(appraisal.to_json() | {"reference_version": appraisal.facts["reference_version"]}, as_json=as_json)
    if appraisal.verdict.value != "affirming":
        raise typer.Exit(1)


def _judge(
    pieces: "EvidencePieces",
    ak: Path,
    ak_parent: Path | None,
    nonce: str,
    references: list[Path],
    signers: list[Path],
    policy: str,
    node: str,
    decisions: "DecisionRules",
) -> "Appraisal":
    from umec_attest.offline import judge_evidence, parse_key
    from umec_attest.reference import read_reference_set, verify_reference_set
    from umec_core.clock import system_clock
    from umec_platform.cli.files import read_file

    now = system_clock()
    keys = [load_signer(read_file(path)) for path in signers]
    expected = verify_reference_set(read_file(references[0]), signers=keys, now=now, minimum_version=0)
    return judge_evidence(
        pieces,
        node=node,
        ak=parse_key(read_file(ak)),
        ak_parent=None if ak_parent is None else parse_key(read_file(ak_parent)),
        nonce=_hex(nonce),
        reference=expected,
        policies=_policies(policy),
        now=now,
        decisions=decisions,
        older=[read_reference_set(read_file(path), signers=keys) for path in references[1:]],
    )


def _read(folder: Path) -> "EvidencePieces":
    from umec_attest.offline import EvidenceIncomplete, EvidencePieces
    from umec_platform.cli.files import read_file

    needed = {name: folder / file for name, file in _NEEDED.items()}
    absent = [path.name for path in needed.values() if not path.exists()]
    if absent:
        raise EvidenceIncomplete(f"missing in {folder}: {', '.join(absent)}")
    optional = {name: folder / file for file, name in _OPTIONAL.items() if (folder / file).exists()}
    if all((folder / file).exists() for file in ("ima.txt", "ima.bin")):
        raise EvidenceIncomplete(f"{folder} has ima.txt and ima.bin: one of them would not be judged")
    return EvidencePieces(**{name: read_file(path) for name, path in (needed | optional).items()})


_NEEDED = {"quote": "quote.bin", "signature": "signature.bin", "pcrs": "pcrs.json"}
_OPTIONAL = {
    "ak.pub": "ak",
    "ak_parent.pub": "ak_parent",
    "nonce.bin": "nonce",
    "bootlog.bin": "boot_log",
    "userspace.log": "userspace",
    "ima.txt": "ima",
    "ima.bin": "ima",
    "starts.log": "starts",
}


def _pcr_numbers(text: str) -> tuple[int, ...]:
    from umec_core.errors import Invalid

    words = text.split(",")
    if not all(word.isascii() and word.isdecimal() and len(word) <= 2 and int(word) <= LAST_PCR for word in words):
        raise Invalid(f"PCRs are numbers from 0 to {LAST_PCR}, separated by commas")
    return tuple(sorted({int(word) for word in words}))


def _nonce(text: str) -> bytes:
    from umec_core.errors import Invalid

    nonce = _hex(text)
    if not SHORTEST_NONCE <= len(nonce) <= LONGEST_NONCE:
        raise Invalid(f"the nonce must have {SHORTEST_NONCE} to {LONGEST_NONCE} bytes")
    return nonce


def _hex(text: str) -> bytes:
    from umec_core.errors import Invalid

    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Invalid("the nonce must be hex") from None


def load_signer(pem: bytes) -> Any:  # noqa: ANN401 - cryptography's key, checked below
    """Return the P-256 public key of a PEM file; `ReferenceSignature` if it holds none."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    from umec_attest.errors import ReferenceSignature

    try:
        key = load_pem_public_key(pem)
    except ValueError:
        raise ReferenceSignature("a signer is no PEM public key") from None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ReferenceSignature("a signer must be a P-256 key")
    return key


def _decisions(jwks: Path | None, issuer: str) -> "DecisionRules":
    from umec_attest.starts.decisions import DecisionRules
    from umec_core.jose import KeySet
    from umec_platform.cli.files import read_object

    return DecisionRules(None if jwks is None else KeySet.from_jwks(read_object(jwks)), issuer)


def _policies(policy: str) -> "PolicySet":
    from umec_platform.cli.files import read_file
    from umec_policies import PolicyInvalid, PolicySet, load_default, load_folder

    default = load_default("appraisal")
    if policy == "default":
        return default
    path = Path(policy)
    if path.is_dir():
        return load_folder(path)
    try:
        return PolicySet(read_file(path).decode(), default.schema_text)
    except UnicodeDecodeError:
        raise PolicyInvalid(f"{path} is not text") from None
