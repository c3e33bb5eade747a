"""`umec policy`: check, test and explain Cedar policies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umec_core.errors import Invalid
from umec_platform.cli.files import read_file
from umec_platform.cli.output import emit, refusals

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from umec_policies import PolicySet, Request
    from umec_policies.cases import Case, Outcome

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)

Folder = Annotated[Path | None, typer.Argument(help="A folder with schema.cedarschema and *.cedar.")]
Default = Annotated[str | None, typer.Option("--default", help="Instead of a folder: a set that comes with µMEC.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


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
def explain(
    folder: Folder = None,
    default: Default = None,
    name: Annotated[str | None, typer.Option("--test", help="The name of a test: its request is explained.")] = None,
    request: Annotated[
        Path | None, typer.Option(help="A JSON file with principal, action, resource and facts, as in a test.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how a decision comes out, which policies make it, and which single facts would turn it around."""
    from umec_policies.explain import explain as explain_request

    place, policies = _load(folder, default)
    asked = _request(place, name, request)
    explained = explain_request(policies, asked)
    decision = explained.decision
    value = {
        "allowed": decision.allowed,
        "policies": decision.policies,
        "errors": decision.errors,
        "facts": dict(asked.facts),
        "facts_digest": decision.facts_digest,
        "policy_digest": decision.policy_digest,
        "verdicts": [{"policy": v.policy, "effect": v.effect, "decided": v.decided} for v in explained.verdicts],
        "turned_by": explained.pivots,
    }
    human = [
        f"{'allowed' if decision.allowed else 'denied'} by {', '.join(decision.policies) or 'no policy'}",
        *(f"  fact {fact} = {content!r}" for fact, content in asked.facts.items()),
        *(f"  {v.effect:6} {v.policy}{' <- decided' if v.decided else ''}" for v in explained.verdicts),
        f"turned around by: {', '.join(explained.pivots) or 'no single fact'}",
    ]
    emit(value, as_json=as_json, human="\n".join(human))


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
        raise Invalid("give either --test NAME or --request FILE")
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
