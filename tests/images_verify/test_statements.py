"""Statements, provenance and summaries: any bytes are a value or their one error, and what is written is read back."""

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_images.errors import StatementInvalid
from umec_images.statements import (
    PROVENANCE,
    SUMMARY,
    Statement,
    Subject,
    Summary,
    encode_statement,
    encode_summary,
    parse_provenance,
    parse_statement,
    parse_summary,
)

HEX = "ab" * 32
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "harbour/crane", "digest": {"sha256": HEX}}],
    "predicateType": PROVENANCE,
    "predicate": {
        "buildDefinition": {"buildType": "urn:umec:build:v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": "urn:builder"}},
    },
}
SUMMED = Summary(
    repository="harbour/crane",
    digest=f"sha256:{HEX}",
    stage="staging",
    verifier="https://images.test",
    verified_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    policy_digest=HEX,
    inputs=(HEX,),
    approver="urn:alice",
    builder="urn:bob",
)


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": {}},
        {"subject": ["x"]},
        {"subject": [{"name": 1, "digest": {"sha256": HEX}}]},
        {"subject": [{"name": "n", "digest": {}}]},
        {"subject": [{"name": "n", "digest": {"sha256": HEX.upper()}}]},
        {"subject": [{"name": "n", "digest": {"sha256": HEX[:-2]}}]},
        {"subject": [{"name": "n", "digest": {"sha256": 1}}]},
        {"subject": [{"name": "n", "digest": {"sha256": HEX}}] * 1025},
        {"predicateType": ""},
        {"predicate": []},
    ],
)
def test_malformed_statements_are_refused(change):
    with pytest.raises(StatementInvalid) as refusal:
        parse_statement(json.dumps({**STATEMENT, **change}).encode())
    assert refusal.value.code == "statement-invalid"
    assert parse_statement(json.dumps(STATEMENT).encode()).subjects[0].digests["sha256"] == HEX


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"_type": NaN}',
        b"[" * 100_000,
        json.dumps(STATEMENT).replace('"predicate"', '"subject": [], "predicate"').encode(),
    ],
    ids=["empty", "array", "no-utf8", "nan", "deep", "member-twice"],
)
def test_what_is_not_plain_json_is_refused(text):
    with pytest.raises(StatementInvalid):
        parse_statement(text)


NAMES = st.sampled_from([*STATEMENT, "name", "digest", "sha256"]) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([HEX, STATEMENT["_type"]]) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=15,
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_statement_or_refused(text):
    with contextlib.suppress(StatementInvalid):
        assert parse_statement(text).subjects


@given(
    st.lists(st.builds(Subject, st.text(), st.just({"sha256": HEX})), min_size=1, max_size=3),
    st.text(min_size=1),
    st.dictionaries(st.text(), st.integers() | st.text()),
)
def test_statements_are_read_as_they_were_written(subjects, predicate_type, predicate):
    statement = Statement(tuple(subjects), predicate_type, predicate)
    assert parse_statement(encode_statement(statement)) == statement


@given(JSON)
def test_any_predicate_is_provenance_or_refused(predicate):
    if isinstance(predicate, dict):
        with contextlib.suppress(StatementInvalid):
            parse_provenance(Statement((Subject("n", {"sha256": HEX}),), PROVENANCE, predicate))
        with contextlib.suppress(StatementInvalid):
            parse_summary(Statement((Subject("n", {"sha256": HEX}),), SUMMARY, predicate))


def test_provenance_names_its_builder():
    statement = parse_statement(json.dumps(STATEMENT).encode())
    assert parse_provenance(statement).builder == "urn:builder"
    for broken in ({}, {**STATEMENT["predicate"], "runDetails": {}}):
        with pytest.raises(StatementInvalid):
            parse_provenance(replace(statement, predicate=broken))
    with pytest.raises(StatementInvalid):
        parse_provenance(replace(statement, predicate_type="https://slsa.dev/provenance/v0.2"))


def test_summaries_are_read_as_they_were_written():
    assert parse_summary(parse_statement(encode_statement(encode_summary(SUMMED)))) == SUMMED


@pytest.mark.parametrize(
    "change",
    [
        {"resourceUri": "umec:stage/"},
        {"resourceUri": "production"},
        {"resourceUri": None},
        {"verificationResult": "FAILED"},
        {"inputAttestations": []},
        {"timeVerified": "2026-01-02T03:04:05"},
        {"urn:umec:approver": ""},
        {"policy": {"uri": "u", "digest": {"sha256": "x"}}},
        {"surprise": 1},
    ],
)
def test_malformed_summaries_are_refused(change):
    statement = encode_summary(SUMMED)
    with pytest.raises(StatementInvalid):
        parse_summary(replace(statement, predicate={**statement.predicate, **change}))
    with pytest.raises(StatementInvalid):
        parse_summary(replace(statement, subjects=statement.subjects * 2))
    with pytest.raises(StatementInvalid):
        parse_summary(replace(statement, predicate_type=PROVENANCE))
