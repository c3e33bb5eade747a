"""What no API of ours takes is refused before anything reads it, and what is next to it comes through."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from umec_core.http import create_app
from umec_core.intake import MAX_DIGITS, JsonMalformed, check_json


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (b'{"a":1,"a":2}', b'{"a":1,"b":2}'),
        (b"[NaN]", b"[null]"),
        (b"[1e999]", b"[1e99]"),
        (b"[%s]" % (b"1" * (MAX_DIGITS + 1)), b"[%s]" % (b"1" * MAX_DIGITS)),
        (rb'["\u0000"]', rb'["\u0001"]'),
        (rb'["\ud800"]', rb'["\ud7ff"]'),
        (rb'["\udfff"]', rb'["\ue000"]'),
        (rb'["\udc00x"]', rb'["\ud83d\ude00"]'),
        (b"\xff", b'"\xc3\xbc"'),
    ],
)
def test_what_is_no_i_json(bad: bytes, good: bytes) -> None:
    check_json(good)
    with pytest.raises(JsonMalformed) as refused:
        check_json(bad)
    assert refused.value.code == "json-malformed"


def application() -> FastAPI:
    async def read(request: Request) -> dict[str, int]:
        return {"size": len(await request.body())}

    app = create_app("test", [])
    app.add_api_route("/{name:path}", read, methods=["GET", "POST"])
    return app


def ask(path: str, **how: Any) -> httpx.Response:
    async def body() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application()), base_url="https://here") as http:
            return await http.request("POST" if "content" in how else "GET", path, **how)

    return asyncio.run(body())


@pytest.mark.parametrize(("bad", "good"), [("/a%00b", "/a%01b"), ("/a?b=%00", "/a?b=%01")])
def test_a_nul_in_path_or_query(bad: str, good: str) -> None:
    refused = ask(bad)
    assert (refused.status_code, refused.json()["code"]) == (400, "request-malformed")
    assert ask(good).status_code == 200


def test_two_content_types() -> None:
    json = ("content-type", "application/json")
    refused = ask("/a", content=b"{}", headers=[json, ("content-type", "text/plain")])
    assert (refused.status_code, refused.json()["code"]) == (400, "request-malformed")
    assert ask("/a", content=b"{}", headers=[json]).json() == {"size": 2}


@pytest.mark.parametrize(
    ("media_type", "judged"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/merge-patch+json", True),
        ("application/octet-stream", False),
        ("text/x+json", False),
    ],
)
def test_what_is_said_to_be_json_is_judged_as_json(media_type: str, judged: bool) -> None:
    answer = ask("/a", content=b"{", headers={"content-type": media_type})
    assert (answer.status_code, answer.json().get("code")) == ((400, "json-malformed") if judged else (200, None))
