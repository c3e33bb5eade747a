"""Every command that there is, with every word of it wrong: what the tree of commands names is tried, known or not."""

import json
import typing
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric import ec

from umec_core.clock import system_clock
from umec_core.jose import private_jwk
from umec_platform.cli.main import build
from umec_platform.composition.servercert import server_certificate

IMAGE: Final = "localhost:1/tenant/name:tag"
SAMPLE: Final = {
    "access": "lo",
    "access_address": "192.0.2.1/24",
    "allow_uid": "0",
    "appd": "hello",
    "artifact_type": "a/b",
    "asset": "lamp",
    "boot_log": "TMP/absent",
    "client_id": "tool",
    "credential": "GOOD/credential.json",
    "decision_issuer": "i",
    "decision_jwks": "GOOD/object.json",
    "disk": "GOOD/object.json",
    "ek_sha256": "ab" * 32,
    "host": "h",
    "image": "edge",
    "instance": "i",
    "kind": "builder",
    "manifest": "sha256:" + "ab" * 32,
    "method": "GET",
    "name": "n",
    "netd": "/n",
    "node": "lamp",
    "nonce": "ab" * 32,
    "owner": "GOOD/key.pem",
    "predicted": "GOOD/object.json",
    "reason": "r",
    "registry": "https://localhost:1",
    "repository": "tenant/name",
    "resource": "https://localhost:1/",
    "secret": "GOOD/secret",
    "service": "attest",
    "stage": "staging",
    "tcti": "swtpm:host=localhost,port=1",
    "tenant": "harbour",
    "url": "https://localhost:1",
    "verifier_issuer": "i",
    "verifier_jwks": "GOOD/object.json",
    "version": "1.0.0",
    "key": "GOOD/key.pem",
    "artifact": "GOOD/key.pem",
    "bundle": "GOOD/object.json",
    "trusted_root": "GOOD/object.json",
    "ca": "GOOD/key.pem",
    "folder": "GOOD/evidence",
    "file": "GOOD/object.json",
    "source": "GOOD/object.json",
    "package": "GOOD/object.json",
    "layout": "GOOD/evidence",
    "out": "TMP/out",
    "state": "TMP/state",
    "socket": "TMP/socket",
    "log": "TMP/log",
    "digest": "sha256:" + "ab" * 32,
    "directory": "TMP/directory",
}
"""A good word for each parameter; none of them leads to a service that runs."""

OWN: Final = {
    ("image push", "image"): IMAGE,
    ("image sign", "image"): IMAGE,
    ("image verify", "image"): IMAGE,
    ("image attach", "image"): IMAGE,
    ("image tree", "image"): IMAGE,
    ("image minimum", "repository"): "localhost:1/tenant/name",
    ("image promote", "image"): f"localhost:1/tenant/name@{SAMPLE['digest']}",
    ("image deny", "image"): f"localhost:1/tenant/name@{SAMPLE['digest']}",
    ("image allow", "image"): f"localhost:1/tenant/name@{SAMPLE['digest']}",
    ("node simulate-boot", "image"): "GOOD/image",
    ("nodeimage keys", "folder"): "TMP/keys",
    ("nodeimage predict", "folder"): "GOOD/image",
    ("nodeimage export-corim", "reference"): "GOOD/object.json",
    ("nodeimage export-corim", "signer"): "GOOD/key.pem",
    ("node allow-version", "version"): "1",
    ("policy sign", "version"): "1",
    ("nodeimage sign", "draft"): "GOOD/object.json",
    ("nodeimage sign", "name"): "street-node",
    ("nodeimage sign", "version"): "1",
    ("nodeimage push", "image"): IMAGE,
    ("nodeimage fetch", "image"): f"localhost:1/tenant/name@{SAMPLE['digest']}",
    ("secret approve", "version"): "1",
}

NEEDED: Final = {
    ("host add", "netd"): "/n",
    ("nodeimage predict", "key"): "TMP/key.pem",
    ("nodeimage predict", "version"): "1",
    ("image verify", "identity"): "i",
}
"""What the others mean nothing without."""

NOT_RUN: Final = {
    "up": "serves; its files are tried in test_malformed_files",
    "try": "starts a shell on a site",
    "demo": "starts a street; its words are tried in tests/demo",
    "demo-vm": "starts a machine; its words are tried in tests/demo",
    "netd": "serves; its files are tried in test_malformed_files",
    "host relay": "serves; what it meets is tried in tests/platform and tests/site",
    "node software-tpm": "starts a TPM",
    "node sample-image": "writes a folder, with any command line",
    "nodeimage build": "fetches packages; its recipes are tried in tests/nodeimage",
}

WRITTEN: Final = {"out", "save", "log", "directory", "socket", "state"}
"""Paths that are made where they are missing; that they cannot be is tried in test_malformed_files."""
MADE: Final = {("nodeimage keys", "folder")}
"""The same, by a name that others read."""

BAD_WORDS: Final = ("", "x" * 20_000, "\x01\x1b[31m;$(id)`'\"\\\n\u202e/../")
COMMON: Final = ("other-object", "absent")
"""Kinds of files for what all commands read in one way; test_malformed_files tries the rest of them at some."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Any:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from leaves(below, (*path, name))
    else:
        yield " ".join(path), command


LEAVES: Final = {name: leaf for name, leaf in leaves(typer.main.get_command(build())) if name not in NOT_RUN}


def kinds_of(parameter: Any) -> set[Any]:
    """The types that a parameter is annotated with."""
    annotation = parameter.type_descriptor.annotation
    inner = typing.get_args(annotation)
    return {annotation} if not inner else {one for each in inner for one in (typing.get_args(each) or (each,))}


def words(name: str, leaf: Any, changed: dict[str, str]) -> list[str]:
    """The command line with what it needs, and with what is changed."""
    options, arguments = [], []
    for parameter in leaf.params:
        known = changed.get(parameter.name, NEEDED.get((name, parameter.name)))
        if known is None and parameter.required:
            known = OWN.get((name, parameter.name), SAMPLE.get(parameter.name))
            assert known is not None, f"{name} needs {parameter.name}: give it a good word in SAMPLE"
        if known is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(known)
        else:
            options.append(f"{parameter.opts[0]}={known}")
    return [*name.split(), *options, "--json", "--", *arguments]


def of_type(wanted: type) -> list[tuple[str, str]]:
    return [
        (name, parameter.name)
        for name, leaf in LEAVES.items()
        for parameter in leaf.params
        if not getattr(parameter, "is_flag", False) and wanted in kinds_of(parameter)
    ]


FILES: Final = [(name, one) for name, one in of_type(Path) if one not in WRITTEN and (name, one) not in MADE]
TEXTS: Final = of_type(str)
NUMBERS: Final = [*of_type(int), *of_type(float)]


@pytest.fixture(scope="session")
def good(well_formed, tmp_path_factory):
    """Good files, a credential for a service that is not there among them."""
    folder = next(iter(well_formed.values())).parent
    key = ec.generate_private_key(ec.SECP256R1())
    tls = server_certificate(tmp_path_factory.mktemp("site"), names=["localhost"], now=system_clock())
    document = {
        "issuer": "https://localhost:1",
        "client_id": "operator",
        "private_jwk": private_jwk(key),
        "ca": tls.ca.read_text(),
    }
    (folder / "secret").write_bytes(bytes(32))
    path = folder / "credential.json"
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return folder


@pytest.fixture
def run(umec, good, tmp_path):
    def ran(command, changed):
        given = words(command, LEAVES[command], changed)
        return umec(*(word.replace("GOOD/", f"{good}/").replace("TMP/", f"{tmp_path}/") for word in given))

    return ran


def refused(said):
    """A refusal has a code and a detail in one object; an error of usage names itself."""
    assert said.status in {1, 2}, said
    if said.status == 1:
        assert said.document["refused"] is True
        assert said.document["code"]
        assert said.document["detail"]
    else:
        assert "Usage" in said.err


def test_every_command_can_be_built():
    for name, leaf in LEAVES.items():
        assert words(name, leaf, {})[: len(name.split())] == name.split()


@pytest.mark.parametrize(("name", "parameter"), FILES, ids=" ".join)
def test_a_file_that_is_none_of_its_kind_is_refused(run, malformed, name, parameter):
    for kind, path in malformed.items():
        if parameter != "credential" or kind in COMMON:
            refused(run(name, {parameter: str(path)}))


@pytest.mark.parametrize("name", sorted({name for name, one in FILES if one == "credential"}))
def test_a_credential_that_others_can_read_is_refused(run, good, tmp_path, name):
    loose = tmp_path / "loose.json"
    loose.write_bytes((good / "credential.json").read_bytes())
    loose.chmod(0o644)
    said = run(name, {"credential": str(loose)})
    refused(said)
    assert said.document["code"] == "key-file-exposed" or name == "image push", said  # the layout comes first


@pytest.mark.parametrize(("name", "parameter"), TEXTS, ids=" ".join)
def test_a_word_that_means_nothing_is_refused(run, name, parameter):
    for word in BAD_WORDS:
        refused(run(name, {parameter: word}))


@pytest.mark.parametrize(("name", "parameter"), NUMBERS, ids=" ".join)
def test_a_number_that_is_none_is_refused(run, name, parameter):
    for word in ("", "x", "9" * 5000, "-1"):
        refused(run(name, {parameter: word}))
