"""`umec policy`: check, test, show and explain Cedar policies."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_core.errors import Invalid, Refused
from umec_platform.cli.files import FileMalformed, read_file, read_object
from umec_platform.cli.output import emit, refusals
from umec_platform.cli.signing import ELSEWHERE, load_signing_key

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from umec_policies import PolicySet, Request
    from umec_policies.cases import Case, Outcome

__all__ = ["PolicySetOther", "app"]

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path | None, typer.Argument(help="A folder with schema.cedarschema and *.cedar.")]
Default = Annotated[str | None, typer.Option("--default", help="Instead of a folder: a set that comes with µMEC.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class PolicySetOther(Refused):
    """A decision was made by another policy set than the one that is to explain it."""

    code = "policy-set-other"


@app.command()
@refusals
def check(folder: Folder = None, default: Default = None, as_json: AsJson = False) -> None:
    """Parse policies and schema, and validate the ones against the other."""
    _, policies = _load(folder, default)
    human = f"{len(policies.ids)} policies fit their schema; digest {policies.digest}"
    emit({"ok": True, "digest": policies.digest, "policies": policies.ids}, as_json=as_json, human=human)


@app.command(name="test")
@refusals
def run_tests(folder: Folder = None, default: Default = None, as_json: AsJson = False) -> None:
    """Run the tests beside the policies (*.test.json); fails if there are none, or one does not hold."""
    from umec_policies.cases import run_case
    from umec_policies.errors import PolicyTestsFailed

    place, policies = _load(folder, default)
    outcomes = [run_case(policies, case) for _, case in _cases(place)]
    if not outcomes:
        raise PolicyTestsFailed(f"there is no test in {place}: nothing was shown")
    failed = [outcome for outcome in outcomes if outcome.faults()]
    undecided = sorted(set(policies.ids) - {name for outcome in outcomes for name in outcome.decision.policies})
    emit(
        {
            "ok": not failed,
            "digest": policies.digest,
            "tests": [_outcome(outcome) for outcome in outcomes],
            "never_decided": undecided,
        },
        as_json=as_json,
        human="\n".join([*(_line(outcome) for outcome in outcomes), *(f"     never decided: {n}" for n in undecided)]),
    )
    if failed:
        raise PolicyTestsFailed(f"{len(failed)} of {len(outcomes)} tests do not hold: {failed[0].case.name}")


@app.command()
@refusals
def sign(
    version: Annotated[int, typer.Option(min=1, help="Version of the bundle; it may never fall.")],
    key: Annotated[str, typer.Option(help=f"P-256 private key that signs it: a file (PEM, 0600), {ELSEWHERE}.")],
    out: Annotated[Path, typer.Option(help="Where the signed bundle goes.")],
    folder: Folder = None,
    default: Default = None,
    as_json: AsJson = False,
) -> None:
    """Sign appraisal policies with a version, for the verifier to load (attest.signed_policies)."""
    from umec_attest.policy_bundle import sign_policy_bundle

    _, policies = _load(folder, default)
    out.write_bytes(sign_policy_bundle(policies, version=version, key=load_signing_key(key)))
    result = {"bundle": str(out), "version": version, "digest": policies.digest}
    emit(result, as_json=as_json, human=f"policy set {policies.digest}, version {version}: {out}")


@app.command()
@refusals
def show(folder: Folder = None, default: Default = None, as_json: AsJson = False) -> None:
    """Show the policies of a set, each written out, with the facts that it reads."""
    from umec_policies.explain import rules

    _, policies = _load(folder, default)
    found = rules(policies)
    value = {"digest": policies.digest, "policies": [dataclasses.asdict(rule) for rule in found]}
    emit(value, as_json=as_json, human="\n\n".join([f"policy set {policies.digest}", *(rule.text for rule in found)]))


@app.command()
@refusals
def explain(
    folder: Folder = None,
    default: Default = None,
    name: Annotated[str | None, typer.Option("--test", help="The name of a test: its request is explained.")] = None,
    request: Annotated[
        Path | None, typer.Option(help="A JSON file with principal, action, resource and facts, as in a test.")
    ] = None,
    decision: Annotated[
        Path | None,
        typer.Option(help="A recorded decision (JSON): an audit entry, or what `umec node explain --json` printed."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how a decision comes out, which policies make it by which facts, and which single facts would turn it.

    A recorded decision names its policies and the digest of their set; its facts are not recorded, only their digest.
    """
    if decision is not None:
        if name is not None or request is not None:
            raise Invalid("give one of --test, --request and --decision")
        _explain_recorded(_load(folder, default)[1], decision, as_json=as_json)
        return
    place, policies = _load(folder, default)
    _explain_request(policies, _request(place, name, request), as_json=as_json)


def _explain_request(policies: "PolicySet", asked: "Request", *, as_json: bool) -> None:
    from umec_policies.explain import explain as explain_request

    explained = explain_request(policies, asked)
    made = explained.decision
    value = {
        "allowed": made.allowed,
        "policies": made.policies,
        "errors": made.errors,
        "facts": dict(asked.facts),
        "facts_digest": made.facts_digest,
        "policy_digest": made.policy_digest,
        "verdicts": [dataclasses.asdict(verdict) for verdict in explained.verdicts],
        "turned_by": explained.pivots,
        "turns": dict(explained.turns),
    }
    human = [
        f"{'allowed' if made.allowed else 'denied'} by {', '.join(made.policies) or 'no policy that permits'}",
        *(f"  could not be judged: {error}" for error in made.errors),
    ]
    for verdict in explained.verdicts:
        facts = ", ".join(f"{fact} = {asked.facts[fact]!r}" for fact in verdict.reads if fact in asked.facts)
        human.append(
            f"  {verdict.effect:6} {verdict.policy:<36} {'DECIDED' if verdict.decided else '       '}  {facts}"
        )
    human += [f"it would turn with {fact} = {other!r}" for fact, other in explained.turns.items()]
    if not explained.turns:
        human.append("no single fact would turn it")
    human.append(f"policy set {made.policy_digest}, facts {made.facts_digest}")
    emit(value, as_json=as_json, human="\n".join(human))


def _explain_recorded(policies: "PolicySet", file: Path, *, as_json: bool) -> None:
    from umec_policies.explain import rules

    names, digest = _recorded(read_object(file), file)
    if digest != policies.digest:
        raise PolicySetOther(
            f"it was decided by the policy set {digest}, this one is {policies.digest}",
            advice="give the folder of policies that was in force then",
        )
    known = {rule.policy: rule for rule in rules(policies)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise FileMalformed(f"{file} names {', '.join(unknown)}, which the policy set does not have")
    decided = [known[name] for name in names]
    value = {"policy_digest": digest, "decided": [dataclasses.asdict(rule) for rule in decided]}
    human = [f"decided by {', '.join(names) or 'no policy that permits'}"]
    for rule in decided:
        human += [f"  {rule.effect} {rule.policy} reads {', '.join(rule.reads) or 'no facts'}", rule.text]
    emit(value, as_json=as_json, human="\n".join([*human, f"policy set {digest}"]))


def _recorded(document: dict[str, Any], file: Path) -> tuple[list[str], str]:
    """Return the deciding policies and the digest of their set from an audit entry, an explanation or an appraisal."""
    places = [document, document.get("facts"), document.get("last_round")]
    for place in places:
        if isinstance(place, dict) and isinstance(names := place.get("policies"), list):
            digest = place.get("policy_sha256", place.get("policy_digest"))
            if isinstance(digest, str) and all(isinstance(name, str) for name in names):
                return names, digest
    raise FileMalformed(f"{file} is no recorded decision: it has no policies with policy_sha256")


def _load(folder: Path | None, default: str | None) -> "tuple[Path | Traversable, PolicySet]":
    from umec_policies.files import default_folder, load_folder

    if (folder is None) is (default is None):
        raise Invalid("give either a folder or --default NAME")
    place: Path | Traversable
    if folder is not None:
        place = folder
    elif default is not None:
        place = default_folder(default)
    return place, load_folder(place)


def _request(place: "Path | Traversable", name: str | None, file: Path | None) -> "Request":
    from umec_policies.cases import parse_request

    if (name is None) is (file is None):
        raise Invalid("give one of --test NAME, --request FILE and --decision FILE")
    if file is not None:
        return parse_request(read_file(file))
    found = [case for _, case in _cases(place) if case.name == name]
    if not found:
        raise Invalid(f"there is no test {name!r} in {place}", advice="`umec policy test` lists the tests")
    return found[0].request


def _cases(place: "Path | Traversable") -> "list[tuple[str, Case]]":
    from umec_policies.cases import read_cases

    return [(name, case) for name, cases in read_cases(place) for case in cases]


def _outcome(outcome: "Outcome") -> dict[str, Any]:
    return {
        "name": outcome.case.name,
        "ok": not outcome.faults(),
        "allowed": outcome.decision.allowed,
        "policies": outcome.decision.policies,
        "faults": outcome.faults(),
    }


def _line(outcome: "Outcome") -> str:
    faults = "; ".join(outcome.faults())
    return f"FAIL {outcome.case.name}: {faults}" if faults else f"ok   {outcome.case.name}"
