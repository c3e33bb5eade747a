"""Keylime's own check of the same evidence, in an environment of its own that is made the first time."""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Peer", "PeerMissing", "ask_keylime"]

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent / "keylime"
LOCK = HERE / "requirements.lock"
ENVIRONMENT = ROOT / ".tools" / "keylime"


class PeerMissing(Exception):
    """Keylime cannot be had or does not run here: there is nothing to compare with."""


@dataclass(frozen=True)
class Peer:
    """Seconds by what was checked; `missing` says why another check has no figure."""

    seconds: dict[str, float]
    missing: dict[str, str]


def ask_keylime(files: dict[str, bytes], repeats: int, least: float) -> Peer:
    """Have Keylime check this evidence; raises `PeerMissing`."""
    python = _environment()
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_bytes(content)
        line = [str(python), str(HERE / "check.py"), name, str(repeats), str(least)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PeerMissing(f"Keylime ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout)["seconds"]
    return Peer(
        {name: value for name, value in found.items() if isinstance(value, float)},
        {name: value for name, value in found.items() if isinstance(value, str)},
    )


def _environment() -> Path:
    """Return the Python of the environment, made from the hashed lock if it is not there or of another lock."""
    python, kept = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "requirements.lock"
    if kept.exists() and kept.read_bytes() == LOCK.read_bytes():
        return python
    uv = ROOT / ".tools" / "bin" / "uv"
    print("making an environment for Keylime in .tools/keylime", file=sys.stderr)
    try:
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
        install = [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", LOCK]
        subprocess.run(install, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerMissing(f"Keylime cannot be installed here: {getattr(error, 'stderr', '') or error}") from error
    kept.write_bytes(LOCK.read_bytes())
    return python
