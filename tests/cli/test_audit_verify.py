"""`umec audit verify`: a log that somebody touched is refused, and the same log untouched is not."""

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_core.audit import canonical
from umec_core.client import RemoteUnavailable
from umec_core.note import sign_checkpoint
from umec_core.tree import Tree
from umec_platform.cli.audit import whole_log

ORIGIN = "umec/site"
KEY = generate_private_key(SECP256R1())
ENTRIES = [{"index": number, "actor": "operator", "action": f"act-{number}"} for number in range(7)]


def export(entries, key=KEY):
    tree = Tree()
    for entry in entries:
        tree.append(canonical(entry).encode())
    checkpoint = sign_checkpoint(ORIGIN, tree.size, tree.root(), key)
    return {"origin": ORIGIN, "entries": entries, "checkpoint": checkpoint}


@pytest.fixture
def verify(umec, tmp_path):
    key = tmp_path / "audit.pem"
    key.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def run(log, previous=None):
        files = []
        for name, document in (("log.json", log), ("previous.json", previous)):
            if document is not None:
                (tmp_path / name).write_text(json.dumps(document))
                files.append(tmp_path / name)
        older = () if previous is None else ("--previous", files[1])
        said = umec("audit", "verify", files[0], "--key", key, *older, "--json")
        return said.status, said.document.get("code")

    return run


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([*ENTRIES[:3], ENTRIES[3] | {"actor": "nobody"}, *ENTRIES[4:]], "audit-rewritten"),
        (ENTRIES[:-1], "audit-gap"),
        ([*ENTRIES[:3], *ENTRIES[4:]], "audit-gap"),
    ],
    ids=["rewritten", "cut", "removed"],
)
def test_a_touched_log_is_refused(verify, entries, code):
    good = export(ENTRIES)
    assert verify(good | {"entries": entries}) == (1, code)
    assert verify(good) == (0, None)


def test_a_log_under_another_key_is_refused(verify):
    assert verify(export(ENTRIES, generate_private_key(SECP256R1()))) == (1, "audit-checkpoint-invalid")


def test_another_past_is_refused_by_who_kept_the_older_log(verify):
    older = export(ENTRIES[:4])
    assert verify(export(ENTRIES), older) == (0, None)
    past = [ENTRIES[0] | {"actor": "nobody"}, *ENTRIES[1:]]
    assert verify(export(past), older) == (1, "audit-rewritten")
    assert verify(export(ENTRIES[:2]), older) == (1, "audit-gap")


WHOLE = export(ENTRIES)


def pages(*answers):
    asked = []

    async def page(after):
        asked.append(after)
        return answers[len(asked) - 1]

    return asyncio.run(whole_log(page)), asked


def test_a_log_in_pages_is_put_together_and_verifies(verify):
    first = {**export(ENTRIES[:5]), "entries": ENTRIES[:3], "next": 3}
    log, asked = pages(first, {**WHOLE, "entries": ENTRIES[3:5], "next": 5}, {**WHOLE, "entries": ENTRIES[5:]})
    assert (log, asked) == (WHOLE, [0, 3, 5])
    assert verify(log) == (0, None)


@pytest.mark.parametrize(
    "answer",
    [
        {**WHOLE, "entries": [], "next": 0},
        {**WHOLE, "next": 3},
        {**WHOLE, "next": None},
        {"entries": ENTRIES},
        {"entries": None},
        {"origin": ORIGIN, "checkpoint": ""},
        [],
    ],
    ids=["no progress", "back", "next", "no checkpoint", "no list", "no entries", "no object"],
)
def test_pages_that_are_no_log_are_refused(answer):
    with pytest.raises(RemoteUnavailable) as caught:
        pages(answer)
    assert caught.value.code == "remote-unavailable"
    assert pages(WHOLE) == (WHOLE, [0])
