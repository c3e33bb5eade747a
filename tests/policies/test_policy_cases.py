"""Files of tests, the default sets and their own tests, and the commands on them."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from umec_platform.cli.policy import app
from umec_policies import DEFAULT_SETS, PolicyInvalid, PolicySet, Request, load_default, load_folder
from umec_policies.cases import parse_cases, read_cases, run_case
from umec_policies.explain import explain, rules
from umec_policies.files import default_folder

CASE = {
    "name": "n",
    "principal": {"type": "Node", "id": "n1"},
    "action": "trust",
    "resource": {"type": "ReferenceSet", "id": "r"},
    "facts": {"good": True, "names": ["a"]},
    "expect": "allow",
    "policies": [],
}
FILE = {"given": {"issuer": "i", "subject": "s"}, "tests": [CASE]}


@pytest.mark.parametrize(
    "change",
    [
        {"tests": []},
        {"tests": [{**CASE, "unknown": 1}]},
        {"tests": [{**CASE, "expect": "maybe"}]},
        {"tests": [{**CASE, "facts": {"x": 1.5}}]},
        {"tests": [{**CASE, "facts": {"x": {"y": 1}}}]},
        {"tests": [CASE, CASE]},
        {"given": {}},
        {"more": 1},
    ],
)
def test_malformed_files_of_tests_are_refused(change):
    with pytest.raises(PolicyInvalid) as refusal:
        parse_cases(json.dumps({**FILE, **change}).encode())
    assert refusal.value.code == "policy-invalid"
    assert len(parse_cases(json.dumps(FILE).encode())) == 1


NAMES = st.sampled_from(["given", "tests", "facts", "issuer", "name"]) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_tests_or_refused(text):
    with contextlib.suppress(PolicyInvalid):
        assert parse_cases(text)


@given(st.dictionaries(st.text("abc", min_size=1), st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text("xyz")))
def test_facts_survive_the_file(facts):
    text = json.dumps({"given": FILE["given"], "tests": [{**CASE, "facts": facts}]})
    assert dict(parse_cases(text.encode())[0].request.facts) == {**FILE["given"], **facts}


@pytest.mark.parametrize("name", DEFAULT_SETS)
def test_default_sets_behave_as_their_tests_say_and_every_policy_is_shown_to_matter(name):
    policies = load_default(name)
    outcomes = [run_case(policies, case) for _, cases in read_cases(default_folder(name)) for case in cases]
    assert outcomes
    assert {outcome.case.name: outcome.faults() for outcome in outcomes if outcome.faults()} == {}
    assert {named for outcome in outcomes for named in outcome.decision.policies} == set(policies.ids)


def test_unknown_default_set_is_refused():
    with pytest.raises(PolicyInvalid):
        load_default("../sets/admission")


def test_explanations_name_the_facts_that_decide():
    _, cases = next(read_cases(default_folder("admission")))
    explained = explain(load_default("admission"), cases[0].request)
    assert explained.decision.allowed
    assert "self_approved" in explained.pivots
    assert "denied" in explained.pivots
    assert [verdict.policy for verdict in explained.verdicts if verdict.decided] == ["admit-production"]


def test_folders_without_schema_or_policies_are_refused(tmp_path):
    for name in ("schema.cedarschema", "admission.cedar"):
        (tmp_path / name).write_text(default_folder("admission").joinpath(name).read_text())
    assert load_folder(tmp_path).digest
    for name in ("schema.cedarschema", "admission.cedar"):
        kept = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        with pytest.raises(PolicyInvalid):
            load_folder(tmp_path)
        (tmp_path / name).write_text(kept)


def run(*arguments):
    return CliRunner().invoke(app, arguments)


def test_commands_check_test_and_explain():
    checked = run("check", "--default", "admission", "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["digest"] == load_default("admission").digest
    tested = run("test", "--default", "admission", "--json")
    assert tested.exit_code == 0
    assert json.loads(tested.stdout)["never_decided"] == []
    explained = run("explain", "--default", "admission", "--test", "self-approved", "--json")
    assert explained.exit_code == 0
    assert json.loads(explained.stdout)["policies"] == ["forbid-self-approved"]


def test_commands_refuse(tmp_path):
    for name in ("schema.cedarschema", "admission.cedar"):
        (tmp_path / name).write_text(default_folder("admission").joinpath(name).read_text())
    without = run("test", str(tmp_path))
    assert without.exit_code == 1
    assert "policy-tests-failed" in without.output
    wrong = default_folder("admission").joinpath("admission.test.json").read_text().replace('"deny"', '"allow"', 1)
    (tmp_path / "a.test.json").write_text(wrong)
    assert run("test", str(tmp_path)).exit_code == 1
    (tmp_path / "a.test.json").write_text(default_folder("admission").joinpath("admission.test.json").read_text())
    assert run("test", str(tmp_path)).exit_code == 0
    (tmp_path / "schema.cedarschema").unlink()
    assert run("check", str(tmp_path)).exit_code == 1
    assert run("check").exit_code == 1


def test_any_request_is_explained(tmp_path):
    _, cases = next(read_cases(default_folder("promotion")))
    asked = cases[0].request
    wire = {
        "principal": asked.principal.cedar(),
        "action": asked.action,
        "resource": asked.resource.cedar(),
        "facts": {**asked.facts, "denied": True},
    }
    file = tmp_path / "request.json"
    file.write_text(json.dumps(wire))
    explained = run("explain", "--default", "promotion", "--request", str(file), "--json")
    assert explained.exit_code == 0
    assert json.loads(explained.stdout)["policies"] == ["forbid-deny-listed"]
    assert json.loads(explained.stdout)["turned_by"] == ["denied"]
    for text in ("{}", json.dumps({**wire, "surprise": 1}), json.dumps({**wire, "facts": {}})):
        file.write_text(text)
        assert run("explain", "--default", "promotion", "--request", str(file)).exit_code == 1
    assert run("explain", "--default", "promotion", "--request", str(tmp_path / "none")).exit_code == 1
    assert run("explain", "--default", "promotion").exit_code == 1


def test_an_explanation_names_the_facts_that_each_policy_reads_and_what_would_turn_it():
    denied = next(case for _, cases in read_cases(default_folder("appraisal")) for case in cases if not case.allowed)
    explained = explain(load_default("appraisal"), denied.request)
    assert not explained.decision.allowed
    reads = {verdict.policy: verdict.reads for verdict in explained.verdicts}
    assert reads["forbid-unknown-measurement"] == ("pcrs_match",)
    assert reads["trust-measured-state"] == ("contradictions", "log_replays", "pcrs_match", "warnings")
    for name, value in explained.turns.items():
        facts = {**denied.request.facts, name: value}
        turned = Request(denied.request.principal, denied.request.action, denied.request.resource, facts)
        assert load_default("appraisal").decide(turned).allowed


def test_numbers_and_texts_turn_a_decision_too():
    allowed = next(case for _, cases in read_cases(default_folder("appraisal")) for case in cases if case.allowed)
    turns = explain(load_default("appraisal"), allowed.request).turns
    assert turns["contradictions"] == 1
    assert turns["pcrs_match"] is False
    cases = {case.name: case for _, cases in read_cases(default_folder("admission")) for case in cases}
    turns = explain(load_default("admission"), next(case for case in cases.values() if case.allowed).request).turns
    assert "stage" not in turns  # staging and production are both permitted here


def test_the_rules_of_a_set_are_written_out():
    policies = load_default("promotion")
    found = rules(policies)
    assert tuple(rule.policy for rule in found) == policies.ids
    assert {rule.effect for rule in found} == {"permit", "forbid"}
    together = PolicySet("\n".join(rule.text for rule in found), policies.schema_text)
    assert together.ids == policies.ids
    shown = run("show", "--default", "promotion")
    assert shown.exit_code == 0
    assert all(rule.text in shown.stdout for rule in found)


def test_a_recorded_decision_is_explained_by_its_own_set_only(tmp_path):
    file = tmp_path / "decision.json"
    digest = load_default("admission").digest
    record = {"action": "instance.started", "facts": {"policies": ["admit-production"], "policy_sha256": digest}}

    def explained(document, *more):
        file.write_text(json.dumps(document))
        said = run("explain", "--default", "admission", "--decision", str(file), *more, "--json")
        return said.exit_code, json.loads(said.stdout)

    assert explained(record | {"facts": {"policies": ["admit-production"], "policy_sha256": "00"}})[1]["code"] == (
        "policy-set-other"
    )
    for malformed in (
        {},
        {"policies": "admit-production", "policy_sha256": digest},
        {"policies": [1], "policy_sha256": digest},
        {"policies": ["no-such-policy"], "policy_sha256": digest},
    ):
        assert explained(malformed)[1]["code"] == "file-malformed"
    assert explained(record, "--test", "self-approved")[1]["code"] == "invalid-input"
    for good in (record, record["facts"], {"last_round": record["facts"]}):
        status, said = explained(good)
        assert status == 0
        assert [rule["policy"] for rule in said["decided"]] == ["admit-production"]
        assert said["decided"][0]["reads"] == ["stage"]
