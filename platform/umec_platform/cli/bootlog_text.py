"""A boot log for people to read: a line for each event, register, claim and finding."""

import json
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["describe"]

MAX_TEXT: Final = 64
"""Characters of an event's data that a line shows."""
MAX_CLAIM: Final = 200
"""Characters of a claim that a line shows; `--json` has all of them."""
_MARKS: Final = {True: "=", False: "!", None: " "}
"""Whether a digest is of the data: it is, it is not and should be, nobody can tell."""


def describe(result: dict[str, Any]) -> str:
    """Return what `umec bootlog show` prints without `--json`."""
    return "\n".join(_lines(result))


def _lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"format: {result['format']}"
    yield f"events: {len(result['events'])} (= the digest is of the data, ! it should be and is not)"
    names = result.get("register_of_index", {})
    for event in result["events"]:
        digest = next(iter(reversed(event["digests"].values())), "")
        text = _plain(event.get("claimed_path") or _text(bytes.fromhex(event["data"])))
        yield f"  {_place(event, names)}  {_MARKS[event['covered']]} {event['type']:<34} {digest[:16]}…  {text}"
    for bank, values in result["pcrs"].items():
        yield from (f"{bank} PCR {pcr:>2}  {value}" for pcr, value in values.items())
    for bank, values in result.get("registers", {}).items():
        yield from (f"{bank} {name}  {value}" for name, value in values.items())
    yield "claims, which nothing proves without a quote:"
    yield from _claims(result["facts"])
    yield from (f"finding: {finding['id']}: {finding['detail']}" for finding in result["findings"])


def _claims(facts: dict[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        if name == "databases":
            for database, content in value.items():
                yield f"  {database}: {len(content['hashes'])} hashes, {len(content['certificates'])} certificates"
                yield from (f"    {json.dumps(one['subject'])} {one['sha256']}" for one in content["certificates"])
        elif name == "command_lines":
            yield from (f"  command line ({line['source']}) = {json.dumps(line['text'])}" for line in value)
        elif name != "claims":
            text = json.dumps(value)
            yield f"  {name} = {text if len(text) <= MAX_CLAIM else text[:MAX_CLAIM] + '…'}"


def _place(event: dict[str, Any], names: dict[int, str]) -> str:
    """Return where an event was measured into: a register that the log names, one of confidential computing, a PCR."""
    if "register" in event:
        return str(event["register"])
    if event["pcr"] is None:
        return "NV index"
    return names.get(event["pcr"]) or f"PCR {event['pcr']:>2}"


def _text(data: bytes) -> str:
    return data[: 2 * MAX_TEXT].decode("utf-16-le" if data[1:2] == b"\0" else "ascii", "replace")


def _plain(text: str) -> str:
    """Return what a terminal may be shown: what is not plain as dots."""
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "." for letter in text)
    return plain.strip(".")[:MAX_TEXT]
