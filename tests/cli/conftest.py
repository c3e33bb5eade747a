"""The command line in this process, and files that are not what a command expects."""

import contextlib
import json
import logging
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from umec_attest.testing.image import make_image
from umec_platform.cli.main import build

TOO_LARGE = 70 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and with which exit status."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        value = json.loads(lines[0])
        assert isinstance(value, dict)
        return value


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Take back what a command sets for its whole process: where log lines go, and what signals do."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def umec() -> Callable[..., Said]:
    """Run `umec` with words; an exception that would have been a stack trace fails the test."""
    command, runner = build(), CliRunner()

    def run(*words: object) -> Said:
        with as_before():
            said = runner.invoke(command, [str(word) for word in words])
        if said.exception is not None and not isinstance(said.exception, SystemExit):
            pytest.fail("".join(traceback.format_exception(said.exception)))
        assert "Traceback" not in said.output
        return Said(said.exit_code, said.stdout, said.stderr)

    return run


@pytest.fixture(scope="session")
def malformed(tmp_path_factory) -> dict[str, Path]:
    """One file or folder of each kind of fault; a command that reads one of them must refuse it."""
    folder = tmp_path_factory.mktemp("malformed")
    contents = {
        "empty": b"",
        "binary": bytes(range(256)) * 8,
        "not-utf8": b'\xff\xfe{"a": "\xff"}',
        "deep": b"[" * 100_000,
        "list": b"[]",
        "other-object": b'{"a": 1}',
        "broken-pem": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    paths = {}
    for kind, content in contents.items():
        paths[kind] = folder / kind
        paths[kind].write_bytes(content)
    paths["too-large"] = folder / "too-large"
    with paths["too-large"].open("wb") as file:
        file.truncate(TOO_LARGE)
    for path in paths.values():
        path.chmod(0o600)
    paths["folder"] = folder / "folder"
    paths["folder"].mkdir()
    paths["absent"] = folder / "absent"
    return paths


@pytest.fixture(scope="session")
def well_formed(tmp_path_factory) -> dict[str, Path]:
    """Files that read well, for the other options of a command."""
    folder = tmp_path_factory.mktemp("well-formed")
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    (folder / "key.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (folder / "log.json").write_text(json.dumps({"origin": "a site", "entries": [], "checkpoint": ""}))
    (folder / "object.json").write_text("{}")
    recipe = 'name = "n"\nversion = 1\npackages = ["python3"]\n[kernel]\npackage = "linux-image-cloud-amd64"\n'
    (folder / "recipe.toml").write_text(recipe)
    (folder / "evidence").mkdir()
    for name in ("quote.bin", "signature.bin", "pcrs.json", "ak.pub", "nonce.bin"):
        (folder / "evidence" / name).write_bytes(b"{}")
    make_image(folder / "image")
    return {path.name: path for path in folder.iterdir()}
