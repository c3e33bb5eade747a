"""Facts that a boot log proves: databases and what was used of them, GRUB, shim, command lines, drivers."""

import hashlib
import struct
import uuid
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from umec_attest.bootlog import extract_facts, parse_boot_log, verify_boot_log
from umec_attest.bootlog.signatures import parse_database, read_certificate

X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
SHA256_HASH = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
X509_SHA256 = uuid.UUID("3bd2a492-96c0-4079-b420-fcf98ef103ed").bytes_le
OWNER = uuid.UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b").bytes_le
SHIM = uuid.UUID("605dab50-e046-4300-abb6-3dd810dd8b23").bytes_le


def signatures(kind, *entries, header=b""):
    """An EFI_SIGNATURE_LIST of entries of one size, each behind its owner."""
    size = 16 + len(entries[0])
    body = header + b"".join(OWNER + entry for entry in entries)
    return kind + struct.pack("<III", 28 + len(body), len(header), size) + body


@pytest.fixture(scope="module")
def der(kit):
    """A certificate that signs boot applications."""
    key = kit.ec_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "street vendor")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(kit.NOW).not_valid_after(kit.NOW.replace(year=2040))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture
def boot(kit, tpm):
    """Verify a log against the quote of a TPM that measured exactly these events; returns the facts."""

    def run(*events, db=None, before=()):
        good = kit.good_events()
        if db is not None:
            good[5] = kit.Event(7, "CONFIG", kit.variable(kit.SECURITY, "db", db))
            good = [event for event in good if event.kind != "AUTHORITY"]
        made = [*good[:7], *before, *good[7:], *events]
        return extract_facts(
            verify_boot_log(parse_boot_log(kit.write_log(made)), tpm.quote_of(kit.replay_events(made)))
        )

    return run


def ids(facts):
    return {finding.id for finding in facts.findings}


# --- databases ------------------------------------------------------------------------------------------------------


def test_a_database_of_certificates_and_hashes(der):
    data = signatures(X509, der) + signatures(SHA256_HASH, b"\1" * 32, b"\2" * 32, header=b"head")
    found = parse_database(data + signatures(X509_SHA256, bytes(48)))
    assert [certificate.subject for certificate in found.certificates] == ["CN=street vendor"]
    assert found.certificates[0].sha256 == hashlib.sha256(der).hexdigest()
    assert found.hashes == ("01" * 32, "02" * 32)
    assert found.others == 1
    assert found.to_json()["certificates"][0]["subject"] == "CN=street vendor"
    assert parse_database(b"") == parse_database(b"")
    assert parse_database(b"").hashes == ()


def test_a_hash_of_another_size_is_no_hash():
    assert parse_database(signatures(SHA256_HASH, bytes(31))).others == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda good: good[:-1],
        lambda good: good + b"\0",
        lambda good: good[:16] + struct.pack("<III", 27, 0, 48) + good[28:],
        lambda good: good[:16] + struct.pack("<III", 28 + 48, 49, 48) + good[28:],
        lambda good: good[:16] + struct.pack("<III", 28 + 48, 0, 47) + good[28:],
        lambda good: good[:16] + struct.pack("<III", 28 + 48, 0, 16) + good[28:],
        lambda good: good[:16] + struct.pack("<III", 28 + 48, 0, 0) + good[28:],
        lambda good: good[:16] + struct.pack("<III", 0, 0, 48) + good[28:],
    ],
)
def test_content_that_is_no_database(change):
    good = signatures(SHA256_HASH, bytes(32))
    assert parse_database(good) is not None
    assert parse_database(change(good)) is None


@given(data=st.binary(max_size=200), kind=st.sampled_from([X509, SHA256_HASH, OWNER]), size=st.integers(0, 80))
def test_any_bytes_give_a_database_or_none(data, kind, size):
    head = kind + struct.pack("<III", 28 + len(data), 0, size)
    for content in (data, head + data):
        found = parse_database(content)
        assert found is None or len(found.certificates) + len(found.hashes) + found.others <= len(content)


@given(data=st.binary(max_size=100))
def test_any_bytes_give_a_certificate_with_or_without_a_name(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_certificate(data).sha256 == hashlib.sha256(data).hexdigest()


# --- what images were verified with ---------------------------------------------------------------------------------


def authority(kit, data, vendor=None, name="db"):
    return kit.Event(7, "AUTHORITY", kit.variable(kit.SECURITY if vendor is None else vendor, name, data))


def test_the_entry_of_db_that_was_used(kit, boot, der):
    facts = boot(authority(kit, OWNER + der), db=signatures(X509, der))
    assert facts.findings == ()
    assert facts.secure_boot is True
    (used,) = facts.boot_authorities
    assert (used.variable, used.certificate.subject, used.image_sha256, used.in_db) == (
        "db",
        "CN=street vendor",
        None,
        True,
    )
    assert facts.databases["db"].certificates == (used.certificate,)


def test_an_entry_that_db_does_not_have(kit, boot, der):
    facts = boot(authority(kit, OWNER + der[:-1] + b"x"), db=signatures(X509, der))
    assert ids(facts) == {"authority-not-in-db"}
    assert facts.secure_boot is None
    assert facts.boot_authorities[0].in_db is False


def test_an_image_that_db_allows_by_its_hash(kit, boot):
    image = bytes(range(32))
    facts = boot(authority(kit, OWNER + image), db=signatures(SHA256_HASH, image))
    assert facts.findings == ()
    assert (facts.boot_authorities[0].image_sha256, facts.boot_authorities[0].in_db) == (image.hex(), True)
    assert ids(boot(authority(kit, OWNER + bytes(32)), db=signatures(SHA256_HASH, image))) == {"authority-not-in-db"}


def test_the_authority_of_an_older_shim(kit, boot, der):
    """It measures the certificate without its owner and with five bytes too many, and logs one more."""
    hashed = kit.variable(kit.SECURITY, "db", der) + bytes(5)
    old = kit.Event(7, "AUTHORITY", hashed + b"\xaf", hashlib.sha256(hashed).digest())
    facts = boot(old, db=signatures(X509, der))
    assert facts.findings == ()
    assert facts.boot_authorities[0].in_db is True
    other = kit.Event(7, "AUTHORITY", hashed + b"\xaf", hashlib.sha256(hashed[:-1]).digest())
    assert ids(boot(other, db=signatures(X509, der))) == {"event-data-mismatch"}


def test_an_authority_of_shim_is_of_no_database_of_the_firmware(kit, boot, der):
    facts = boot(authority(kit, der, SHIM, "Shim"), db=signatures(X509, der))
    assert (facts.boot_authorities[0].variable, facts.boot_authorities[0].in_db) == ("Shim", None)
    vendor = boot(authority(kit, OWNER + der, name="vendor_db"), db=signatures(X509, der))
    assert vendor.boot_authorities[0].in_db is None
    assert facts.findings == vendor.findings == ()


def test_an_unreadable_db_says_nothing_about_what_it_has(kit, boot, der):
    facts = boot(authority(kit, OWNER + der), db=b"no list")
    assert "db" not in facts.databases
    assert "db" in facts.variables
    assert facts.boot_authorities[0].in_db is None


def test_drivers_of_cards_are_verified_before_the_separator(kit, boot, der):
    used = authority(kit, OWNER + der)
    facts = boot(db=signatures(X509, der), before=[used])
    assert facts.findings == ()
    assert facts.driver_authorities[0].in_db is True
    assert facts.boot_authorities == ()
    for wrong in (
        authority(kit, der, SHIM, "Shim"),
        authority(kit, b"\1", SHIM, "MokListTrusted"),
        kit.Event(7, "AUTHORITY", b"0\x82 a certificate alone", hashlib.sha256(b"x").digest()),
    ):
        facts = boot(db=signatures(X509, der), before=[wrong])
        assert ids(facts) == {"secure-boot-event-unexpected"}
        assert facts.secure_boot is None
        assert facts.shim is None


@pytest.mark.parametrize("name", ["SecureBoot", "PK", "KEK", "dbx"])
def test_a_variable_retyped_to_an_authority(kit, boot, name):
    vendor = kit.SECURITY if name == "dbx" else kit.GLOBAL
    hidden = kit.Event(7, "AUTHORITY", kit.variable(vendor, name, b"\0"))
    for facts in (boot(hidden), boot(before=[hidden])):
        assert "secure-boot-event-unexpected" in ids(facts)
        assert facts.secure_boot is None


# --- shim -----------------------------------------------------------------------------------------------------------

ON, OFF = (hashlib.sha256(value).digest() for value in (b"\1", b"\0"))


@pytest.mark.parametrize(
    ("switch", "digests", "trusted"),
    [
        (b"\1", [], True),
        (b"\0", [], False),
        (b"\2", [], None),
        (None, [ON], True),
        (None, [OFF], False),
        (None, [OFF, ON], True),
        (b"\0", [ON], True),
        (None, [bytes(32)], None),
    ],
)
def test_whether_the_owners_keys_count(kit, boot, switch, digests, trusted):
    """The names in PCR 14 are in no digest: whatever the log calls it, a switch that is on is on."""
    events = [] if switch is None else [authority(kit, switch, SHIM, "MokListTrusted")]
    facts = boot(*events, *(kit.Event(14, "IPL", b"MokList\0", digest) for digest in digests))
    assert facts.shim.mok_list_trusted is trusted
    assert facts.shim.lists == tuple(digest.hex() for digest in digests)


def test_the_sbat_level(kit, boot):
    facts = boot(authority(kit, b"sbat,1,2021030218\n", SHIM, "SbatLevel"))
    assert facts.shim.sbat_level == "sbat,1,2021030218\n"
    assert facts.boot_authorities[-1].variable == "db"  # that of the good boot, not this
    assert boot().shim is None


def test_a_variable_of_somebody_else_is_none_of_shim(kit, boot):
    facts = boot(authority(kit, b"\1", name="MokListTrusted"))
    assert facts.shim is None


# --- GRUB and command lines -----------------------------------------------------------------------------------------


def ipl(kit, label, text, pcr=8, nul=b"\0"):
    return kit.Event(pcr, "IPL", label + text + nul, hashlib.sha256(text).digest())


@pytest.fixture
def measured(kit, tpm):
    """Facts of a good boot and of these events, all their PCRs quoted."""

    def run(*events):
        made = [*kit.good_events(), *events]
        values = kit.replay_events(made)
        for event in made:
            if event.pcr not in kit.PCRS:
                values[event.pcr] = hashlib.sha256(values.get(event.pcr, bytes(32)) + event.sha256()).digest()
        return extract_facts(verify_boot_log(parse_boot_log(kit.write_log(made)), tpm.quote_of(values)))

    return run


COMMAND, LINE = b"linux /vmlinuz root=/dev/dm-0 dm=1 vroot none", b'/vmlinuz root=/dev/dm-0 "dm=1 vroot none"'


def test_what_grub_did(kit, measured):
    files = hashlib.sha256(b"grub.cfg").digest()
    facts = measured(
        kit.Event(9, "IPL", b"/grub.cfg\0", files),
        ipl(kit, b"grub_cmd: ", b"set default=0"),
        ipl(kit, b"grub_cmd: ", COMMAND),
        ipl(kit, b"kernel_cmdline: ", LINE),
    )
    assert facts.findings == ()
    assert facts.grub.commands == ("set default=0", COMMAND.decode())
    assert facts.grub.files == (files.hex(),)
    assert facts.grub.complete
    assert [(line.source, line.text) for line in facts.command_lines] == [("grub", LINE.decode())]


def test_grub_of_red_hat(kit, measured):
    command = kit.Event(8, "IPL", b"grub_cmd " + COMMAND + b"\0", hashlib.sha256(COMMAND + b"\0").digest())
    facts = measured(command, ipl(kit, b"grub_kernel_cmdline ", LINE))
    assert facts.findings == ()
    assert [line.text for line in facts.command_lines] == [LINE.decode()]
    assert facts.grub.commands == (COMMAND.decode(),)


@pytest.mark.parametrize(
    ("command", "label"),
    [
        (b"linux16", b"kernel_cmdline: "),
        (b"linuxefi", b"kernel_cmdline: "),
        (b"multiboot2", b"kernel_cmdline: "),
        (b"xen_hypervisor", b"kernel_cmdline: "),
        (b"module2", b"module_cmdline: "),
    ],
)
def test_each_command_that_loads_a_kernel(kit, measured, command, label):
    facts = measured(ipl(kit, b"grub_cmd: ", command + b" /k quiet"), ipl(kit, label, b"/k quiet"))
    assert facts.findings == ()
    assert [line.text for line in facts.command_lines] == ["/k quiet"]


def test_a_command_line_that_goes_by_another_name(kit, measured):
    """The label is in no digest: what a command asked for is a command line, and what none asked for is none."""
    for events, lines in (
        ([ipl(kit, b"grub_cmd: ", COMMAND), ipl(kit, b"grub_cmd: ", LINE)], [LINE.decode()]),
        ([ipl(kit, b"grub_cmd: ", b"echo /vmlinuz"), ipl(kit, b"kernel_cmdline: ", LINE)], []),
        ([ipl(kit, b"kernel_cmdline: ", LINE), ipl(kit, b"grub_cmd: ", COMMAND)], []),
    ):
        facts = measured(*events)
        assert ids(facts) == {"grub-command-line-unproven"}
        assert [line.text for line in facts.command_lines] == lines


def test_what_grub_did_not_say(kit, measured):
    facts = measured(ipl(kit, b"grub_cmd: ", b"set a=b"), kit.Event(8, "IPL", b"other", bytes(32)))
    assert facts.grub.complete is False
    assert facts.grub.commands == ("set a=b",)
    forged = measured(ipl(kit, b"grub_cmd: ", b"set a=b"), kit.Event(8, "IPL", b"grub_cmd: set c=d\0", bytes(32)))
    assert ids(forged) == {"event-data-mismatch"}
    assert forged.grub.commands == ("set a=b",)
    assert measured(kit.Event(8, "IPL", b"other", bytes(32))).grub is None


def test_the_command_line_of_systemds_stub(kit, measured):
    text = " console=ttyS0\0".encode("utf-16-le")
    whole = kit.Event(12, "IPL", text)
    cut = kit.Event(8, "IPL", text[:-1], hashlib.sha256(text).digest())
    for event in (whole, cut):
        facts = measured(event)
        assert facts.findings == ()
        assert [(line.source, line.text) for line in facts.command_lines] == [("stub", " console=ttyS0")]
    for wrong in (
        kit.Event(12, "IPL", text, hashlib.sha256(b"other").digest()),
        kit.Event(12, "BLOB", text),
        kit.Event(13, "IPL", text),
        kit.Event(12, "IPL", b"odd"),
    ):
        assert measured(wrong).command_lines == ()


# --- drivers and the rest -------------------------------------------------------------------------------------------


def test_code_of_cards(kit, boot):
    driver = hashlib.sha256(b"option ROM").digest()
    facts = boot(kit.Event(2, "BLOB", b"device path", driver))
    assert facts.drivers == (driver.hex(),)
    assert boot().drivers == ()


def test_facts_as_json(kit, boot, der):
    facts = boot(authority(kit, OWNER + der), authority(kit, b"\1", SHIM, "MokListTrusted"), db=signatures(X509, der))
    shown = facts.to_json()
    assert shown["databases"]["db"]["certificates"] == [
        {"sha256": hashlib.sha256(der).hexdigest(), "subject": "CN=street vendor"}
    ]
    assert shown["boot_authorities"][0]["certificate"]["subject"] == "CN=street vendor"
    assert shown["shim"]["mok_list_trusted"] is True
    assert shown["locality"] == 0
    assert set(shown) == set(type(facts).__slots__) - {"findings"}


def test_partitions_whose_digest_is_not_of_them(kit, boot):
    table = b"EFI PART" + bytes(84)
    assert boot(kit.Event(5, "GPT", table)).findings == ()
    assert ids(boot(kit.Event(5, "GPT", table, bytes(32)))) == {"event-data-mismatch"}
    order = kit.variable(kit.GLOBAL, "BootOrder", b"\1\0")
    assert boot(kit.Event(1, "VARIABLE_BOOT", order)).findings == ()
    assert ids(boot(kit.Event(1, "VARIABLE_BOOT", order, bytes(32)))) == {"event-data-mismatch"}
