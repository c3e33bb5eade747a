"""Members of objects are taken strictly: each reader refuses what is not of its form, and names the place."""

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.agent.fields import MAX_MEMBERS, FieldInvalid, Fields, read_object
from umec_attest.agent.requests import MAX_CONTENT, Call, Rotate, Status, Token, checked, read_request
from umec_core.errors import Invalid

Reader = Callable[[Fields], Any]
TEN = base64.b64encode(bytes(10)).decode()


def text(fields: Fields) -> Any:
    return fields.text("m", shortest=2, longest=4, pattern=re.compile("[a-z]+"))


def choice(fields: Fields) -> Any:
    return fields.one_of("m", {"full": 1, "digest": 2})


def integer(fields: Fields) -> Any:
    return fields.integer("m", least=1, most=5)


def integers(fields: Fields) -> Any:
    return fields.integers("m", least=2, most=5)


def number(fields: Fields) -> Any:
    return fields.number("m", above=0, most=10)


def octets(fields: Fields) -> Any:
    return fields.octets("m", least=10, most=12)


def hexadecimal(fields: Fields) -> Any:
    return fields.hexadecimal("m", most=2)


def blobs(fields: Fields) -> Any:
    return fields.octets_list("m", each=10)


READERS: list[tuple[Reader, list[object], list[object]]] = [
    (text, ["ab", "abcd"], ["a", "abcde", "AB", "ab\n", 7, None, ["ab"]]),
    (choice, ["full"], ["other", "", None, 1, ["full"], {"full": 1}]),
    (integer, [1, 5], [0, 6, True, 3.0, "3", None]),
    (integers, [[], [2, 5]], [[1], [6], [True], ["3"], 3, {"a": 2}, None, [2] * (MAX_MEMBERS + 1)]),
    (number, [0.5, 10, 1], [0, -1, 10.5, True, "1", None]),
    (lambda fields: fields.flag("m"), [True, False], [0, 1, "true", None]),
    (octets, [TEN], [TEN[:-4], TEN + "AAAA", TEN + "\n", "!", "é", 7, None, [TEN]]),
    (hexadecimal, ["", "abcd"], ["a", "abcdef", "zz", 7, None]),
    (lambda fields: fields.instant("m"), ["2034-11-22T12:00:00Z"], ["2034-11-22T12:00:00", "soon", 7, None]),
    (blobs, [[], [TEN]], [[TEN + "AAAA"], [7], TEN, None]),
    (lambda fields: fields.inside("m").end(), [{}], [{"more": 1}, [], "x", None]),
    (lambda fields: [one.end() for one in fields.objects("m")], [[], [{}]], [{}, [7], [{"more": 1}], None]),
    (lambda fields: fields.texts("m", longest=3), [{}, {"a": "abc"}], [{"a": "abcd"}, {"a": 1}, [], None]),
]


@pytest.mark.parametrize(("read", "good", "bad"), READERS)
def test_each_reader_takes_its_form_only(read: Reader, good: list[object], bad: list[object]) -> None:
    for value in good:
        fields = read_object(json.dumps({"m": value}).encode())
        read(fields)
        fields.end()
    for value in bad:
        with pytest.raises(FieldInvalid) as refused:
            read(read_object(json.dumps({"m": value}).encode()))
        assert refused.value.place.startswith("m")
    with pytest.raises(FieldInvalid) as refused:
        read(Fields({}, "outer"))
    assert refused.value.place == "outer.m"


def test_what_is_taken_is_what_was_there() -> None:
    fields = read_object(
        b'{"yes": true, "no": false, "list": [7], "hex": "0aff", "bytes": "AAE=", "texts": {"a": "b"}}'
    )
    assert (fields.flag("yes"), fields.flag("no")) == (True, False)
    assert (fields.integers("list", least=0, most=9), fields.hexadecimal("hex", most=2)) == ((7,), b"\x0a\xff")
    assert (fields.octets("bytes", most=2), fields.texts("texts", longest=1)) == (b"\x00\x01", {"a": "b"})
    fields.end()


def test_a_member_may_be_missing_only_where_it_may() -> None:
    assert Fields({"m": None}).optional("m", Fields({}).flag) is None
    fields = Fields({"m": True})
    assert fields.optional("m", fields.flag) is True
    fields.end()
    with pytest.raises(FieldInvalid):
        Fields({"m": 7}).optional("m", Fields({"m": 7}).flag)
    with pytest.raises(FieldInvalid) as refused:
        Fields({"m": 7}).end()
    assert refused.value.place == "m"


@given(st.binary(max_size=100) | st.sampled_from([b'{"a":1,"a":2}', b"[]", b'{"a":NaN}', b"[" * 100_000]))
def test_any_bytes_are_an_object_or_its_one_error(data: bytes) -> None:
    try:
        assert read_object(data).names() is not None
    except FieldInvalid as error:
        assert error.place == "the whole"  # noqa: PT017 - either may happen


GOOD = {"op": "call", "method": "POST", "url": "https://a/b", "resource": "r", "scope": "s"}


@pytest.mark.parametrize(
    "fault",
    [
        {"op": "shell"},
        {"method": "post"},
        {"method": "POSTPOSTPOSTPOSTP"},
        {"url": "http://a/b"},
        {"url": "https://a/ b"},
        {"url": "https://a/" + "b" * 4096},
        {"resource": ""},
        {"scope": "s" * 513},
        {"content": "!"},
        {"content": base64.b64encode(bytes(MAX_CONTENT + 1)).decode()},
        {"headers": {"A B": "c"}},
        {"headers": {"A": "c\r\nHost: d"}},
        {"headers": {"A": 7}},
        {"headers": []},
        {"more": 1},
    ],
    ids=str,
)
def test_a_request_with_a_fault_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        read_request(json.dumps(GOOD | fault).encode())
    assert refused.value.code == "invalid-input"
    assert read_request(json.dumps(GOOD | {"headers": {"A-b": "c d"}}).encode())


def test_requests_arrive_as_they_were_sent() -> None:
    call = Call("POST", "https://a/b", "r", "s", b"content", {"Content-Type": "text/plain"})
    for request in (Status(), Rotate(), Token("r", "s"), call, Call("GET", "https://a/", "r", "")):
        assert checked(request) == request
    with pytest.raises(Invalid):
        checked(Token("", "s"))
