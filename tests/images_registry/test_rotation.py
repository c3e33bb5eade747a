"""Retired keys of a signing authority: what they signed stays good, what a thief signs with them is refused."""

import asyncio
import itertools
import json
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from umec_core.clock import system_clock
from umec_core.errors import UmecError
from umec_images.authority import SigningAuthority
from umec_images.authority.material import load_or_create
from umec_images.authority.rotation import rotate
from umec_images.authority.trust import trusted_root
from umec_images.testing.thief import Thief, retired_authority
from umec_images.verify import BundleVerifier, Identity

ISSUER = "https://mgmt.test:8443"
URL = "https://registry.test:5443"
BUILDER = f"{ISSUER}/identity/v1/clients/city-builder"
DIGEST = f"sha256:{'5' * 64}"


def verifier(state):
    root = trusted_root(load_or_create(state, now=system_clock()), url=URL)
    return BundleVerifier(json.dumps(root).encode())


def check(state, bundle, now=None):
    expected = Identity(BUILDER, ISSUER)
    return verifier(state).verify_statement(bundle, digest=DIGEST, identity=expected, now=now or system_clock())


def refusal(state, bundle, **changes):
    with pytest.raises(UmecError) as caught:
        check(state, bundle, **changes)
    return caught.value.code


def test_what_was_signed_before_a_rotation_stays_good_and_what_is_signed_after_it_does_not(tmp_path):
    state = tmp_path / "authority"
    rotate(state, url=URL, now=system_clock())  # there is nothing yet: the first keys
    with Thief(state, issuer=ISSUER) as authority:  # here it is the authority itself
        before = authority.sign("city/hello", DIGEST, BUILDER)
    (tmp_path / "stolen").mkdir(mode=0o700)
    for file in state.iterdir():
        (tmp_path / "stolen" / file.name).write_bytes(file.read_bytes())
        (tmp_path / "stolen" / file.name).chmod(0o600)
    assert check(state, before).signer.subject == BUILDER
    rotate(state, url=URL, now=system_clock() - timedelta(seconds=1))
    assert check(state, before, now=system_clock() + timedelta(days=365 * 20)).signer.subject == BUILDER
    with Thief(state, issuer=ISSUER) as authority:
        after = authority.sign("city/hello", DIGEST, BUILDER)
    assert check(state, after).signer.subject == BUILDER
    while system_clock() < check(state, before).signed_at + timedelta(seconds=3):
        asyncio.run(asyncio.sleep(0.2))
    with Thief(tmp_path / "stolen", issuer=ISSUER) as thief:
        assert refusal(state, thief.sign("city/hello", DIGEST, BUILDER)) == "image-authority-expired"


def test_a_thief_of_retired_keys_signs_nothing_whoever_stamps_the_time(tmp_path):
    state, stolen = tmp_path / "authority", tmp_path / "stolen"
    retired_authority(state, stolen, url=URL)
    with Thief(stolen, issuer=ISSUER) as thief, Thief(state, issuer=ISSUER) as owner:
        clock = f"{owner._url}/sigstore/tsa/api/v1/timestamp"
        assert refusal(state, thief.sign("city/hello", DIGEST, BUILDER)) == "image-authority-expired"
        assert refusal(state, thief.sign("city/hello", DIGEST, BUILDER, clock=clock)) == "image-authority-expired"
        assert check(state, owner.sign("city/hello", DIGEST, BUILDER)).signer.subject == BUILDER
        assert check(stolen, thief.sign("city/hello", DIGEST, BUILDER)).signer.subject == BUILDER


def test_each_rotation_adds_to_the_trusted_root_and_ends_what_had_no_end(tmp_path):
    state, days = tmp_path / "authority", [system_clock() - timedelta(days=day) for day in (300, 200, 100)]
    for now in days:
        rotate(state, url=URL, now=now)
    root = trusted_root(load_or_create(state, now=system_clock()), url=URL)
    for member in ("tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"):
        periods = [each.get("validFor") or each["publicKey"]["validFor"] for each in root[member]]
        ends = [(now + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ") for now in (days[2], days[1])]
        assert [period.get("end") for period in periods] == [None, *ends]
    keys = {path.name for path in state.iterdir() if path.suffix == ".key"}
    assert keys == {"ca.key", "ct.key", "log.key", "tsa.key"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in state.iterdir())


def test_every_key_is_another_after_a_rotation(tmp_path):
    def spki(material):
        keys = (material.issuer.key, material.issuer.ct_key, material.log_key, material.tsa_key)
        return {key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}

    first = rotate(tmp_path, url=URL, now=system_clock())
    second = rotate(tmp_path, url=URL, now=system_clock())
    assert len(spki(first) | spki(second)) == 8


def test_a_running_authority_is_not_rotated_nor_started_twice(tmp_path):
    state = tmp_path / "authority"
    rotate(state, url=URL, now=system_clock())
    with Thief(state, issuer=ISSUER) as authority:  # here it is the authority itself
        keys = contents(state)
        with pytest.raises(UmecError) as caught:
            rotate(state, url=URL, now=system_clock())
        assert caught.value.code == "authority-in-use"
        with pytest.raises(UmecError) as caught:
            asyncio.run(SigningAuthority.open(state, url=URL, issuer=ISSUER, keys=None, clock=system_clock))
        assert caught.value.code == "authority-in-use"
        assert contents(state) == keys
        assert check(state, authority.sign("city/hello", DIGEST, BUILDER)).signer.subject == BUILDER
    rotate(state, url=URL, now=system_clock())
    assert {name for name, content in contents(state).items() if keys[name] == content} == {"audit.key"}


def contents(state):
    """Return the content of each file that a rotation makes new."""
    return {path.name: path.read_bytes() for path in state.iterdir() if path.suffix in {".key", ".pem"}}


class PowerCut(BaseException):
    """The process ends here."""


def changes(monkeypatch, cut):
    """Cut the power at the change of a name number `cut` from now on; return how many there were."""
    made = []

    def cutting(name):
        whole = getattr(Path, name)

        def change(*arguments, **named):
            if len(made) == cut:
                raise PowerCut
            made.append(name)
            return whole(*arguments, **named)

        return change

    for name in ("rename", "replace", "rmdir", "mkdir", "hardlink_to"):
        monkeypatch.setattr(Path, name, cutting(name))
    return made


def test_a_rotation_that_is_cut_off_anywhere_leaves_one_whole_set(tmp_path, monkeypatch):
    def spki(material):
        keys = (material.issuer.key, material.issuer.ct_key, material.log_key, material.tsa_key)
        return [key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys]

    olds = news = 0
    for cut in itertools.count():
        state = tmp_path / str(cut)
        before = rotate(state, url=URL, now=system_clock() - timedelta(days=100))
        with monkeypatch.context() as patched:
            changes(patched, cut)
            try:
                rotate(state, url=URL, now=system_clock())
                ended = True
            except PowerCut:
                ended = False
        after = load_or_create(state, now=system_clock())
        kept = [key in spki(before) for key in spki(after)]
        assert len(set(kept)) == 1  # all old, or all new
        retired = after.retired.get("certificateAuthorities", [])
        assert len(retired) == (0 if kept[0] else 1)
        olds, news = olds + kept[0], news + (not kept[0])
        assert len(rotate(state, url=URL, now=system_clock()).retired["certificateAuthorities"]) == len(retired) + 1
        assert not any(path.is_dir() for path in state.iterdir())
        if ended:
            break
    assert olds > 5
    assert news > 5


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"1"])
def test_a_malformed_list_of_retired_keys_does_not_start(tmp_path, content):
    rotate(tmp_path, url=URL, now=system_clock())
    (tmp_path / "retired.json").write_bytes(content)
    with pytest.raises(UmecError) as caught:
        load_or_create(tmp_path, now=system_clock())
    assert caught.value.code == "authority-material-invalid"
    (tmp_path / "retired.json").unlink()
    assert load_or_create(tmp_path, now=system_clock()).retired == {}
