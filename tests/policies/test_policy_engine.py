"""The engine fails closed: each fault refuses, and the same set without the fault decides."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_policies import Entity, FactsInvalid, PolicyDenied, PolicyInvalid, PolicySet, Request, engine
from umec_policies.cases import parse_cases

SCHEMA = """
entity Node; entity Site;
type Facts = {issuer: String, subject: String, good: Bool, count: Long, names: Set<String>};
action "enter" appliesTo {principal: Node, resource: Site, context: Facts};
"""
ALLOW = '@id("allow-good") permit (principal, action == Action::"enter", resource) when { context.good };\n'
FORBID = '@id("forbid-many") forbid (principal, action, resource) when { context.count > 3 };\n'
OVERFLOW = '@id("forbid-big") forbid (principal, action, resource) when { context.count * 4611686018427387904 > 0 };\n'
TEMPLATE = '@id("some") permit (principal == ?principal, action, resource) when { context.good };\n'
FACTS = {"issuer": "gate", "subject": "n1", "good": True, "count": 0, "names": ("a", "b")}


def ask(**facts):
    return Request(Entity("Node", "n1"), "enter", Entity("Site", "s1"), {**FACTS, **facts})


def test_a_good_request_is_allowed_and_the_policy_named():
    policies = PolicySet(ALLOW + FORBID, SCHEMA)
    decision = policies.require(ask())
    assert decision.policies == ("allow-good",)
    assert decision.policy_digest == policies.digest
    assert policies.ids == ("allow-good", "forbid-many")


def test_a_forbid_that_errors_denies():
    policies = PolicySet(ALLOW + OVERFLOW, SCHEMA)
    assert policies.decide(ask(count=0)).allowed
    decision = policies.decide(ask(count=4))
    assert not decision.allowed
    assert decision.policies == ()
    assert "overflow" in decision.errors[0]
    with pytest.raises(PolicyDenied) as refusal:
        policies.require(ask(count=4))
    assert refusal.value.code == "policy-denied"
    assert refusal.value.errors


def test_a_denial_names_the_forbid():
    with pytest.raises(PolicyDenied) as refusal:
        PolicySet(ALLOW + FORBID, SCHEMA).require(ask(count=4))
    assert refusal.value.policies == ("forbid-many",)
    assert "forbid-many" in refusal.value.detail


def test_nobody_s_permission_is_a_denial():
    with pytest.raises(PolicyDenied) as refusal:
        PolicySet(ALLOW + FORBID, SCHEMA).require(ask(good=False))
    assert refusal.value.policies == ()


@pytest.mark.parametrize(
    ("policies", "schema"),
    [
        ("", SCHEMA),
        ("// nothing\n", SCHEMA),
        (ALLOW, ""),
        (ALLOW, "entity"),
        (ALLOW, SCHEMA.replace("good: Bool", "good?: Bool")),
        (ALLOW, SCHEMA.replace("good: Bool", '"good"?: Bool')),
        (ALLOW + ALLOW, SCHEMA),
        (ALLOW.replace('@id("allow-good") ', ""), SCHEMA),
        (ALLOW.replace("allow-good", "Allow Good"), SCHEMA),
        (ALLOW.replace("context.good", "context.evil"), SCHEMA),
        (ALLOW.replace("context.good", "context.count"), SCHEMA),
        (ALLOW.replace("permit (principal", "permit (principal == ?principal"), SCHEMA),
        (ALLOW[:-5], SCHEMA),
        (ALLOW + "\ud800", SCHEMA),
        ("//" + "x" * 1024 * 1024 + "\n" + ALLOW, SCHEMA),
        (ALLOW, SCHEMA + "// \ud800"),
        (ALLOW, SCHEMA + "//" + "x" * 1024 * 1024),
        (ALLOW, SCHEMA.replace("names:", "unused?: Bool, names:")),
        (ALLOW + TEMPLATE, SCHEMA),
        ('@id("anything") permit (principal, action, resource);', ""),
        ('@id("anything") permit (principal, action, resource);', "// nothing\n"),
    ],
    ids=[
        "empty", "only-a-comment", "no-schema", "broken-schema", "optional-attribute", "optional-quoted-attribute",
        "same-id-twice", "no-id", "bad-id", "unknown-attribute", "wrong-type", "template", "broken-policy",
        "surrogate", "too-long", "surrogate-in-schema", "too-long-schema", "optional-attribute-that-nobody-reads",
        "template-beside-a-policy", "no-schema-for-any-request", "only-a-comment-for-a-schema",
    ],
)  # fmt: skip
def test_a_set_that_could_decide_wrongly_is_refused(policies, schema):
    with pytest.raises(PolicyInvalid) as refusal:
        PolicySet(policies, schema)
    assert refusal.value.code == "policy-invalid"
    assert PolicySet(ALLOW, SCHEMA).decide(ask()).allowed


@pytest.mark.parametrize(
    "facts",
    [
        {"issuer": ""},
        {"subject": ""},
        {"count": 1.0},
        {"count": 2**63},
        {"good": None},
        {"names": ["a"]},
        {"names": ("a", 1)},
        {"good": {"__entity": {"type": "Node", "id": "n1"}}},
        {"issuer": "\ud800"},
        {"issuer": "x" * 5000},
    ],
)
def test_facts_are_flat_typed_and_named(facts):
    with pytest.raises(FactsInvalid) as refusal:
        PolicySet(ALLOW, SCHEMA).decide(ask(**facts))
    assert refusal.value.code == "facts-invalid"


@pytest.mark.parametrize("name", ["", "x" * 4097, "\ud800", 7])
def test_an_entity_has_a_type_and_an_id(name):
    for wrong in (("Node", name), (name, "n1")):
        with pytest.raises(FactsInvalid) as refusal:
            Entity(*wrong)
        assert refusal.value.code == "facts-invalid"
    assert Entity("x" * 4096, "n1")


def test_only_so_many_facts_are_judged_at_once():
    many = {f"fact-{number}": True for number in range(128 - len(FACTS))}
    assert not PolicySet(ALLOW, SCHEMA).decide(ask(**many)).allowed
    with pytest.raises(FactsInvalid) as refusal:
        PolicySet(ALLOW, SCHEMA).decide(ask(**many, more=True))
    assert refusal.value.code == "facts-invalid"


def test_missing_issuer_is_refused():
    facts = {name: fact for name, fact in FACTS.items() if name != "issuer"}
    with pytest.raises(FactsInvalid):
        PolicySet(ALLOW, SCHEMA).decide(Request(Entity("Node", "n1"), "enter", Entity("Site", "s1"), facts))


@pytest.mark.parametrize("facts", [{"extra": True}, {"good": 1}, {"count": True}, {"names": "a"}])
def test_facts_outside_the_schema_deny(facts):
    decision = PolicySet(ALLOW, SCHEMA).decide(ask(**facts))
    assert not decision.allowed
    assert decision.errors


def test_unknown_actions_and_types_deny():
    policies = PolicySet(ALLOW, SCHEMA)
    assert not policies.decide(Request(Entity("Node", "n1"), "leave", Entity("Site", "s1"), FACTS)).allowed
    assert not policies.decide(Request(Entity("Ghost", "n1"), "enter", Entity("Site", "s1"), FACTS)).allowed


def test_cached_decisions_are_the_same_and_apart_by_every_input():
    policies = PolicySet(ALLOW + FORBID, SCHEMA)
    first = policies.decide(ask())
    assert policies.decide(ask()) is first
    assert policies.decide(ask(names=("b", "a"))) is first
    assert policies.decide(ask(count=4)).facts_digest != first.facts_digest
    other = policies.decide(Request(Entity("Node", "n2"), "enter", Entity("Site", "s1"), FACTS))
    assert other.facts_digest != first.facts_digest


def test_a_cached_decision_is_not_that_of_facts_that_only_compare_equal():
    policies = PolicySet(ALLOW, SCHEMA)
    for _ in range(2):
        assert policies.decide(ask(good=True)).allowed
        assert not policies.decide(ask(good=1)).allowed  # which is no Bool, though True equals 1
        assert not policies.decide(ask(count=False)).allowed
        for unhashable in (["a", "b"], {"a"}, (["a"],)):
            with pytest.raises(FactsInvalid) as refused:
                policies.decide(ask(names=unhashable))
            assert refused.value.code == "facts-invalid"


def test_decisions_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(engine, "CACHED_DECISIONS", 4)
    policies = PolicySet(ALLOW, SCHEMA)
    first = policies.decide(ask(count=0))
    assert policies.decide(ask(count=0)) is first
    for count in (1, 2):
        policies.decide(ask(count=count))
    again = policies.decide(ask(count=0))
    assert again is not first
    assert again == first


def test_the_digest_covers_policies_and_schema():
    base = PolicySet(ALLOW, SCHEMA).digest
    assert PolicySet(ALLOW, SCHEMA).digest == base
    assert PolicySet(ALLOW + FORBID, SCHEMA).digest != base
    assert PolicySet(ALLOW, SCHEMA + "entity Other;").digest != base


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(st.text(), max_size=3) | st.lists(inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(FACTS)) | st.text(max_size=4), VALUES, max_size=5))
def test_any_facts_are_judged_or_refused_and_only_typed_ones_allowed(facts):
    asked = {**FACTS, **facts}
    try:
        decision = PolicySet(ALLOW, SCHEMA).decide(ask(**facts))
    except FactsInvalid:
        assert asked != FACTS
    else:
        typed = set(asked) == set(FACTS) and asked["good"] is True and isinstance(asked["names"], tuple | frozenset)
        assert decision.allowed is (typed and type(asked["count"]) is int)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_a_policy_set_or_refused(policies, schema):
    with contextlib.suppress(PolicyInvalid):
        assert PolicySet(policies, SCHEMA).ids
    with contextlib.suppress(PolicyInvalid):
        assert PolicySet(ALLOW, schema).ids


def test_a_file_of_tests_has_a_bound():
    case = {"name": "n", "principal": {"type": "Node", "id": "n1"}, "action": "enter", "expect": "deny", "policies": []}
    case |= {"resource": {"type": "Site", "id": "s1"}, "facts": {"issuer": "i", "subject": "s"}}
    text = json.dumps({"tests": [case]}).encode()
    assert len(parse_cases(text + b" " * (4 * 1024 * 1024 - len(text)))) == 1
    with pytest.raises(PolicyInvalid) as refusal:
        parse_cases(text + b" " * (4 * 1024 * 1024 - len(text) + 1))
    assert refusal.value.code == "policy-invalid"
