"""`umec evidence verify --structural` on the whole evidence of one real server, and on every kind of change to it."""

import json
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from umec_attest.bootlog import parse_boot_log
from umec_attest.bootlog.coverage import covered_part
from umec_attest.bootlog.event_types import EV_NO_ACTION
from umec_attest.errors import AttestError
from umec_attest.ima import parse_ima
from umec_attest.offline import EvidencePieces, check_consistency
from umec_attest.tpm.algorithms import HashAlgorithm
from umec_platform.cli import evidence

pytestmark = pytest.mark.vectors

SHA256 = HashAlgorithm.SHA256
NONCE = b"Sb7tNlqsd32uI1ZPWtDs"
"""What the collection says that its quote answers."""

UNCOVERED = {
    "Spec ID": 4 + 1,  # platformClass, specErrata; there is no vendorInfo
    "types": 152 * 4,
    "digests of a bank that was not quoted": 34 * 48,
    "data": 3_578,
}
"""Bytes of the boot log (73,395) that no quoted digest covers, and whose change nothing can find."""

LAYOUT = {
    "quote.bin": "quote.bin",
    "signature.bin": "signature.bin",
    "ak.pub": "ak_tpm2b_public.bin",
    "bootlog.bin": "uefi_log.bin",
    "ima.txt": "ima_log.txt",
}


@pytest.fixture(scope="session")
def folder(vectors, tmp_path_factory):
    """The evidence in the layout that the command reads."""
    source, where = vectors / "attest/hpe-keylime-perf-tests", tmp_path_factory.mktemp("server")
    for name, original in LAYOUT.items():
        shutil.copyfile(source / original, where / name)
    (where / "pcrs.json").write_text(json.dumps(json.loads((source / "expected.json").read_text())["pcrs"]))
    (where / "nonce.bin").write_bytes(NONCE)
    return where


@pytest.fixture
def changed(folder, tmp_path):
    """Verify a copy with one file changed; returns exit status and what was said."""

    def run(name=None, content=b""):
        where = tmp_path / "changed"
        shutil.copytree(folder, where, dirs_exist_ok=True)
        if name is not None:
            (where / name).write_bytes(content)
        said = CliRunner().invoke(evidence.app, ["verify", str(where), "--structural", "--json"])
        return said.exit_code, json.loads(said.stdout)

    return run


def events(content):
    """Every event after the Spec ID event, and where it begins."""
    at = 32 + int.from_bytes(content[28:32], "little")
    for event in parse_boot_log(content).events:
        yield event, at
        at += size(event)
    assert at == len(content)


def size(event):
    return 12 + sum(2 + len(digest) for _, digest in event.digests) + 4 + len(event.data)


def flipped(content, at, bit=0):
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def test_it_is_consistent_and_said_with_its_numbers(changed, folder):
    status, said = changed()
    assert status == 0
    assert said == {
        "verdict": "consistent, AK not anchored, no policy",
        "findings": [],
        "trust_vector": {},
        "checked": ["structure", "nonce", "signature", "pcr-digest", "boot-log", "ima"],
        "pcr_values": 17,
        "boot_events": 152,
        "boot_bytes_uncovered": said["boot_bytes_uncovered"],
        "ima_entries": 780,
    }
    human = CliRunner().invoke(evidence.app, ["verify", str(folder), "--structural"])
    assert human.exit_code == 0
    for line in ("verdict: consistent, AK not anchored, no policy", "boot_events: 152", "ima_entries: 780"):
        assert line in human.stdout.splitlines()


@pytest.mark.parametrize(
    ("name", "at", "code"),
    [
        ("quote.bin", 120, "signature-invalid"),
        ("signature.bin", 100, "signature-invalid"),
        ("nonce.bin", 3, "quote-nonce-mismatch"),
    ],
)
def test_a_flipped_bit_of_the_quote_is_refused(changed, folder, name, at, code):
    assert (changed(name, flipped((folder / name).read_bytes(), at))[1]["code"]) == code


def test_a_flipped_bit_of_each_pcr_value_is_refused(changed, folder):
    values = json.loads((folder / "pcrs.json").read_bytes())
    for pcr, value in values["sha256"].items():
        other = {"sha256": {**values["sha256"], pcr: f"{int(value, 16) ^ 1:064x}"}}
        status, said = changed("pcrs.json", json.dumps(other).encode())
        assert (status, said["code"]) == (1, "pcr-digest-mismatch"), pcr


def test_a_flipped_bit_of_each_kind_of_boot_event_is_refused(changed, folder):
    content, seen = (folder / "bootlog.bin").read_bytes(), set()
    for event, at in events(content):
        if event.type in seen:
            continue
        seen.add(event.type)
        assert changed("bootlog.bin", flipped(content, at + 14))[1]["code"] == "bootlog-replay-mismatch"
        part = covered_part(event, SHA256)
        if part is not None:
            inside = at + size(event) - len(event.data) + range(len(event.data))[part][-1]
            assert changed("bootlog.bin", flipped(content, inside))[1]["code"] == "bootlog-data-mismatch", event
    assert len(seen) == 16


def test_a_flipped_bit_of_a_runtime_measurement_is_refused(changed, folder):
    content = (folder / "ima.txt").read_bytes()
    line = content.index(b"\n", len(content) // 2) + 1
    hashed, digest = line + len(b"10 "), content.index(b":", line) + 1
    path = content.index(b" ", digest) + 1
    for at in (hashed, digest, path):
        status, said = changed("ima.txt", flipped(content, at))
        assert (status, said["code"]) == (1, "ima-invalid")
    first, second = content[line : content.index(b"\n", line) + 1], content.index(b"\n", line) + 1
    third = content.index(b"\n", second) + 1
    swapped = content[:line] + content[second:third] + first + content[third:]
    assert changed("ima.txt", swapped)[1]["code"] == "ima-replay-mismatch"
    assert changed("ima.txt", content[:line])[1]["code"] == "ima-replay-mismatch"


# --- every bit -------------------------------------------------------------------------------------------------------


class Pieces(dict):
    def __repr__(self):
        return "pieces"  # not some hundred kilobytes


@pytest.fixture(scope="session")
def pieces(folder):
    return Pieces((name, (folder / name).read_bytes()) for name in (*LAYOUT, "pcrs.json", "nonce.bin"))


def check(pieces, ima="ima.txt"):
    check_consistency(
        EvidencePieces(
            quote=pieces["quote.bin"],
            signature=pieces["signature.bin"],
            pcrs=pieces["pcrs.json"],
            ak=pieces["ak.pub"],
            nonce=pieces["nonce.bin"],
            boot_log=pieces.get("bootlog.bin"),
            ima=pieces.get(ima),
        )
    )


SMALL = ("quote.bin", "signature.bin", "nonce.bin", "pcrs.json")


@pytest.mark.parametrize("name", SMALL)
def test_every_bit_of_a_small_piece_counts(pieces, name):
    """All of them: without the lists, a check takes a tenth of a millisecond."""
    small = {one: content for one, content in pieces.items() if one in {*SMALL, "ak.pub"}}
    check(small)
    for at in range(len(small[name])):
        for bit in range(8):
            with pytest.raises(AttestError):
                check({**small, name: flipped(small[name], at, bit)})


anywhere = given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
"""A bit of a file of any size."""


@pytest.fixture(scope="session")
def runtime_lists(pieces):
    """The list in its two forms, each with the quote alone."""
    one = {name: content for name, content in pieces.items() if name not in {"bootlog.bin", "ima.txt"}}
    listed = b"".join(binary(entry) for entry in parse_ima(pieces["ima.txt"]))
    return Pieces(text={**one, "ima.txt": pieces["ima.txt"]}, binary={**one, "ima.bin": listed})


def binary(entry):
    name = entry.template.encode()
    sizes = [len(part).to_bytes(4, "little") for part in (name, entry.data)]
    return b"".join(((10).to_bytes(4, "little"), entry.template_hash, sizes[0], name, sizes[1], entry.data))


@pytest.mark.parametrize(("form", "name"), [("text", "ima.txt"), ("binary", "ima.bin")])
@anywhere
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_bit_of_the_runtime_list_counts(runtime_lists, form, name, share, bit):
    one = runtime_lists[form]
    changed_list = flipped(one[name], int(share * len(one[name])), bit)
    with pytest.raises(AttestError):
        check({**one, name: changed_list}, name)


def test_both_forms_of_the_runtime_list_are_good(runtime_lists):
    check(runtime_lists["text"])
    check(runtime_lists["binary"], "ima.bin")


@pytest.fixture(scope="session")
def uncovered(pieces):
    """Every byte of the log that no quoted digest covers, and what it is."""
    found = Pieces(dict.fromkeys((*range(32 + 16, 32 + 20), 32 + 22), "Spec ID"))
    for event, at in events(pieces["bootlog.bin"]):
        assert event.type != EV_NO_ACTION
        part = covered_part(event, SHA256)
        found.update(dict.fromkeys(range(at + 4, at + 8), "types"))
        data = at + size(event) - len(event.data)
        if part is None:
            found.update(dict.fromkeys(range(data - 4 - 48, data - 4), "digests of a bank that was not quoted"))
        inside = range(0) if part is None else range(len(event.data))[part]
        found.update(dict.fromkeys((data + n for n in range(len(event.data)) if n not in inside), "data"))
    return found


def test_what_no_digest_covers_is_counted(changed, uncovered):
    assert Counter(uncovered.values()) == UNCOVERED
    assert changed()[1]["boot_bytes_uncovered"] == UNCOVERED["data"]


def with_log(pieces, at, bit):
    one = {name: content for name, content in pieces.items() if name != "ima.txt"}
    return {**one, "bootlog.bin": flipped(one["bootlog.bin"], at, bit)}


@anywhere
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_bit_of_the_boot_log_counts_or_is_covered_by_no_digest(pieces, uncovered, share, bit):
    at = int(share * len(pieces["bootlog.bin"]))
    if at in uncovered:
        return
    with pytest.raises(AttestError):
        check(with_log(pieces, at, bit))


@anywhere
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_counted_as_covered_by_no_digest_is(pieces, uncovered, share, bit):
    places = [at for at, kind in uncovered.items() if kind != "types"]  # with another type, an event means something
    at = places[int(share * len(places))]
    try:
        check(with_log(pieces, at, bit))
    except AttestError as error:
        if error.code != "bootlog-data-mismatch":  # the sizes in a boot variable are not hashed, and have to fit
            raise
