"""Private files, envelopes, settings, events."""

import asyncio
import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from umec_core import dsse
from umec_core.dsse import IN_TOTO, MAX_ENVELOPE, DsseError, pre_authentication_encoding, sign, verify
from umec_core.events import Events
from umec_core.keys import (
    KeyFileExposed,
    KeyFileInvalid,
    load_key,
    load_or_create_key,
    load_or_create_secret,
    read_private,
    write_private,
)
from umec_core.settings import SettingsInvalid, load_settings

KEY = generate_private_key(SECP256R1())
OTHER = generate_private_key(SECP256R1())


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "a.key"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: load_or_create_key(path).private_numbers().private_value, range(8)))
    assert len(set(made)) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["a.key"]


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / str(number) / "a.secret"
        begin = Barrier(8)

        def make(path: Path = path, begin: Barrier = begin) -> bytes:
            begin.wait(10)
            return load_or_create_secret(path, 32)

        with ThreadPoolExecutor(8) as pool:
            (secret,) = {made.result() for made in [pool.submit(make) for _ in range(8)]}
        assert len(secret) == 32
        assert load_or_create_secret(path, 32) == secret
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert [entry.name for entry in path.parent.iterdir()] == ["a.secret"]
    path.chmod(0o604)
    with pytest.raises(KeyFileExposed) as refused:
        load_or_create_secret(path, 32)
    assert refused.value.code == "key-file-exposed"


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    load_or_create_key(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileExposed) as refused:
        load_or_create_key(path)
    assert refused.value.code == "key-file-exposed"
    path.chmod(0o600)
    load_key(path)


def test_other_content_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    others = [
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for key in (generate_private_key(SECP384R1()), Ed25519PrivateKey.generate())
    ]
    for content in (b"", b"nothing", *others):
        write_private(path, content)
        with pytest.raises(KeyFileInvalid) as refused:
            load_key(path)
        assert refused.value.code == "key-file-invalid"
    write_private(path, b"new")
    assert read_private(path) == b"new"


def test_the_encoding_is_that_of_the_protocol() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == expected


def test_an_envelope_proves_its_payload_and_type() -> None:
    envelope = sign(b'{"a": 1}', IN_TOTO, KEY)
    assert verify(envelope, keys=[OTHER.public_key(), KEY.public_key()], payload_type=IN_TOTO) == b'{"a": 1}'
    value = json.loads(envelope)
    signature = value["signatures"][0]

    def changed(**members: Any) -> bytes:
        return json.dumps({**value, **members}).encode()

    cases = [
        (changed(payload=base64.b64encode(b'{"a": 2}').decode()), "dsse-signature-invalid"),
        (changed(payloadType="text/plain"), "dsse-payload-type"),
        (changed(signatures=[]), "dsse-malformed"),
        (changed(signatures=[signature] * 17), "dsse-malformed"),
        (changed(signatures=[{**signature, "sig": "!"}]), "dsse-malformed"),
        (changed(signatures=[{**signature, "sig": ""}]), "dsse-signature-invalid"),
        (changed(payload=None), "dsse-malformed"),
        (changed(signatures=5), "dsse-malformed"),
        (changed(signatures=["x"]), "dsse-malformed"),
        (changed(payloadType=5), "dsse-malformed"),
        (changed(payloadType="applicatiön"), "dsse-malformed"),
        (envelope[:-1] + b',"payloadType":"' + IN_TOTO.encode() + b'"}', "dsse-malformed"),
        (changed(extension="x" * MAX_ENVELOPE), "dsse-malformed"),
        (b"[" * 100_000, "dsse-malformed"),
        (b"[" + envelope + b"]", "dsse-malformed"),
        (b"", "dsse-malformed"),
    ]
    for wrong, code in cases:
        with pytest.raises(DsseError) as refused:
            verify(wrong, keys=[KEY.public_key()], payload_type=IN_TOTO)
        assert refused.value.code == code
    with pytest.raises(DsseError) as refused:
        verify(envelope, keys=[], payload_type=IN_TOTO)
    assert refused.value.code == "dsse-no-keys"
    with pytest.raises(DsseError) as refused:
        verify(envelope, keys=[OTHER.public_key()], payload_type=IN_TOTO)
    assert refused.value.code == "dsse-signature-invalid"
    hint = changed(signatures=[{**signature, "keyid": "anything"}], extension=1)
    assert verify(hint, keys=[KEY.public_key()], payload_type=IN_TOTO)


def test_other_curves_sign_and_verify_no_envelope() -> None:
    other = generate_private_key(SECP384R1())
    with pytest.raises(DsseError) as refused:
        sign(b"{}", IN_TOTO, other)
    assert refused.value.code == "dsse-signature-invalid"
    value = json.loads(sign(b"{}", IN_TOTO, KEY))
    signed = other.sign(pre_authentication_encoding(IN_TOTO, b"{}"), ECDSA(SHA256()))
    value["signatures"] = [{"sig": base64.b64encode(signed).decode()}]
    with pytest.raises(DsseError) as refused:
        verify(json.dumps(value).encode(), keys=[other.public_key()], payload_type=IN_TOTO)
    assert refused.value.code == "dsse-no-keys"


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_an_envelope_or_one_error(data: bytes) -> None:
    with pytest.raises(DsseError):
        verify(data, keys=[KEY.public_key()], payload_type=IN_TOTO)


@given(st.binary(), st.text(st.characters(max_codepoint=126, min_codepoint=33), min_size=1))
def test_what_is_signed_verifies(payload: bytes, kind: str) -> None:
    assert verify(dsse.sign(payload, kind, KEY), keys=[KEY.public_key()], payload_type=kind) == payload


class Ports(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    management: int = 8443
    mp1: int = 8444


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    ports: Ports = Ports()
    tags: list[str] = []


def test_settings_come_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "umec.toml"
    file.write_text('name = "here"\n[ports]\nmanagement = 1\nmp1 = 2\n')
    environ = {"UMEC_PORTS__MP1": "3", "UMEC_TAGS": '["a"]', "UMEC_VECTORS": "/x", "PATH": "/bin"}
    settings = load_settings(Example, file=file, environ=environ)
    assert settings == Example(name="here", ports=Ports(management=1, mp1=3), tags=["a"])


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "umec.toml"
    file.write_text('nmae = "here"\n[ports]\nmanagement = "many"\n')
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(Example, file=file, environ={"UMEC_PORTS__MP2": "1", "UMEC_TAGS": "no list"})
    assert refused.value.code == "settings-invalid"
    places = {fault.split(":")[0] for fault in refused.value.faults}
    assert places == {"nmae", "name", "ports.management", "ports.mp2", "tags"}
    for content in (b"\xff", b"name = "):
        file.write_bytes(content)
        with pytest.raises(SettingsInvalid):
            load_settings(Example, file=file, environ={})
    with pytest.raises(SettingsInvalid):
        load_settings(Example, file=tmp_path / "missing", environ={"UMEC_NAME": "x"})
    with pytest.raises(SettingsInvalid):
        load_settings(Example, file=None, environ={"UMEC_NAME": "x", "UMEC_NAME__MORE": "y"})


def test_events_reach_those_who_subscribed_before() -> None:
    async def body() -> None:
        events = Events()
        events.publish("a", {"n": 0})
        with events.subscription("a") as first, events.subscription("b") as other:
            events.publish("a", {"n": 1})
            assert await first.get() == {"n": 1}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(other.get(), 0.01)
            for number in range(5000):  # a slow subscriber loses the oldest, and nobody waits for it
                events.publish("a", {"n": number})
            assert (await first.get())["n"] == 5000 - 1024
        stream = events.subscribe("a")
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        events.publish("a", {"n": 2})
        assert await waiting == {"n": 2}
        await stream.aclose()

    asyncio.run(body())
