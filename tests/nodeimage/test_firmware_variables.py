"""Secure Boot keys and the variables that hold them: as a firmware reads and measures them."""

import datetime as dt
import struct
import uuid

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from umec_attest.predict.uefi import signatures
from umec_core.keys import KeyFileExposed
from umec_images.nodeimage.errors import KeysInvalid
from umec_images.nodeimage.keys import load_certificates, load_signer, make_keys
from umec_images.nodeimage.variables import measured_variables, variable_store

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HEADER = struct.Struct("<HBxIQ16sIII16s")
START = 72 + 28


def variables_of(store: bytes) -> dict[str, tuple[uuid.UUID, int, bytes]]:
    """Read a store as a firmware does."""
    found, place = {}, START
    while store[place : place + 2] == b"\xaa\x55":
        _, state, attributes, _, _, _, name_size, data_size, vendor = HEADER.unpack_from(store, place)
        assert state == 0x3F
        name = store[place + 60 : place + 60 + name_size].decode("utf-16-le").rstrip("\0")
        data = store[place + 60 + name_size : place + 60 + name_size + data_size]
        found[name] = (uuid.UUID(bytes_le=vendor), attributes, data)
        place += -(-(60 + name_size + data_size) // 4) * 4
    assert store[place:].strip(b"\xff\0") == b""
    return found


def test_the_store_holds_the_keys_and_switches_secure_boot_on(empty_store, certificates):
    made = variable_store(empty_store, certificates)
    assert len(made) == len(empty_store)
    assert made[:START] == empty_store[:START]
    found = variables_of(made)
    assert set(found) == {"SecureBootEnable", "PK", "KEK", "db"}
    assert found["SecureBootEnable"][1:] == (3, b"\x01")
    values = measured_variables(certificates)
    for name in ("PK", "KEK", "db"):
        assert found[name][1:] == (0x27, values[name])


def test_each_value_is_one_certificate_as_the_verifier_reads_it(certificates):
    values = measured_variables(certificates)
    for name, certificate in (
        ("PK", certificates.platform),
        ("KEK", certificates.exchange),
        ("db", certificates.database),
    ):
        (only,) = signatures(values[name])
        assert only.content.endswith(certificate.public_bytes(Encoding.DER))
    assert (values["SecureBoot"], values["dbx"]) == (b"\x01", b"")


def test_the_same_keys_make_the_same_store(empty_store, certificates):
    assert variable_store(empty_store, certificates) == variable_store(empty_store, certificates)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda _: b"", "too short"),
        (lambda store: store[:80], "too short"),
        (lambda store: store[:40] + b"_XVH" + store[44:], "no variable store"),
        (lambda store: store[:72] + bytes(16) + store[88:], "no variable store"),
        (lambda store: store[:92] + b"\0" + store[93:], "no variable store"),
        (lambda store: store[:93] + b"\0" + store[94:], "no variable store"),
        (lambda store: store[:START] + b"\xaa\x55" + store[START + 2 :], "not empty"),
        (lambda store: store[: len(store) // 2 - 8], "not empty"),
        (lambda store: store[:88] + struct.pack("<I", 1028) + store[92:], "need"),
    ],
)
def test_what_is_no_empty_store_is_refused(empty_store, certificates, change, why):
    with pytest.raises(KeysInvalid, match=why) as caught:
        variable_store(change(empty_store), certificates)
    assert caught.value.code == "image-keys-invalid"
    assert variable_store(empty_store, certificates)


def test_keys_are_for_their_owner_alone(key_folder):
    for name in ("PK", "KEK", "db"):
        assert (key_folder / f"{name}.key").stat().st_mode & 0o777 == 0o600


def test_keys_are_never_overwritten(tmp_path):
    (tmp_path / "db.crt").write_text("an older one")
    with pytest.raises(KeysInvalid, match=r"already has db\.crt") as caught:
        make_keys(tmp_path, NOW)
    assert caught.value.code == "image-keys-invalid"
    assert [path.name for path in tmp_path.iterdir()] == ["db.crt"]


def copied(key_folder, tmp_path, **changes: bytes):
    for path in key_folder.iterdir():
        (tmp_path / path.name).write_bytes(changes.get(path.name.replace(".", "_"), path.read_bytes()))
        (tmp_path / path.name).chmod(0o600)
    return tmp_path


def test_a_key_of_another_certificate_is_refused(key_folder, tmp_path):
    folder = copied(key_folder, tmp_path, db_key=(key_folder / "KEK.key").read_bytes())
    with pytest.raises(KeysInvalid, match=r"not the RSA key of db\.crt") as caught:
        load_signer(folder)
    assert caught.value.code == "image-keys-invalid"
    assert load_signer(key_folder).certificate == load_certificates(key_folder).database


@pytest.mark.parametrize("name", ["PK.crt", "KEK.crt", "db.crt"])
def test_a_certificate_that_is_missing_or_malformed_is_refused(key_folder, tmp_path, name):
    folder = copied(key_folder, tmp_path, **{name.replace(".", "_"): b"nothing"})
    with pytest.raises(KeysInvalid, match="no certificate"):
        load_certificates(folder)
    (folder / name).unlink()
    with pytest.raises(KeysInvalid, match="No such file") as caught:
        load_certificates(folder)
    assert caught.value.code == "image-keys-invalid"


def test_a_certificate_of_another_key_is_refused(key_folder, tmp_path):
    pem = (key_folder / "PK.crt").read_text()
    middle = len(pem) // 2
    other = pem[:middle] + ("A" if pem[middle] != "A" else "B") + pem[middle + 1 :]
    folder = copied(key_folder, tmp_path, PK_crt=other.encode())
    with pytest.raises(KeysInvalid) as caught:
        load_certificates(folder)
    assert caught.value.code == "image-keys-invalid"


@pytest.mark.parametrize("content", [b"", b"nothing"])
def test_a_key_that_is_none_is_refused(key_folder, tmp_path, content):
    with pytest.raises(KeysInvalid, match="no private key") as caught:
        load_signer(copied(key_folder, tmp_path, db_key=content))
    assert caught.value.code == "image-keys-invalid"


def test_a_key_that_is_missing_is_refused(key_folder, tmp_path):
    folder = copied(key_folder, tmp_path)
    (folder / "db.key").unlink()
    with pytest.raises(KeysInvalid, match="No such file"):
        load_signer(folder)


def test_a_key_that_is_not_rsa_is_refused(key_folder, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "db")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    dated = builder.not_valid_before(NOW).not_valid_after(NOW + dt.timedelta(days=1)).serial_number(1)
    folder = copied(
        key_folder,
        tmp_path,
        db_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        db_crt=dated.sign(key, SHA256()).public_bytes(Encoding.PEM),
    )
    with pytest.raises(KeysInvalid, match="not the RSA key") as caught:
        load_signer(folder)
    assert caught.value.code == "image-keys-invalid"


def test_a_signing_key_that_others_may_read_is_refused(key_folder, tmp_path):
    folder = copied(key_folder, tmp_path)
    for mode in (0o644, 0o640, 0o660):
        (folder / "db.key").chmod(mode)
        with pytest.raises(KeyFileExposed) as caught:
            load_signer(folder)
        assert caught.value.code == "key-file-exposed"
    (folder / "db.key").chmod(0o600)
    assert load_signer(folder).certificate == load_certificates(folder).database
