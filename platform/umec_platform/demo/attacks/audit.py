"""Audit: somebody who keeps, carries or writes a log touches it."""

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from umec_platform.demo.attacks.table import Attack
from umec_platform.demo.audit import fetch
from umec_platform.demo.command import umec
from umec_platform.demo.hand import PLATFORM, Hand
from umec_platform.demo.run import Run
from umec_platform.demo.timeline import Broken

__all__ = ["ATTACKS"]

SERVICE: Final = "platform"


def removed(run: Run) -> str | None:
    """Remove an entry."""
    return _touched(run, lambda log: log["entries"].pop(1))


def rewritten(run: Run) -> str | None:
    """Rewrite an entry."""
    return _touched(run, lambda log: log["entries"][1].update(actor="nobody"))


def own_key(run: Run) -> str | None:
    """Rewrite an entry, and sign the log anew under a key of one's own: all is right with it but the key."""
    log = _kept(run)
    log["entries"][1].update(actor="nobody")
    log["checkpoint"] = _checkpoint(log, ec.generate_private_key(ec.SECP256R1()))
    return _refusal(run, _written(run, log))


def older_state(run: Run) -> str | None:
    """Offer the log as it was before something happened: it is genuine, and whoever has seen a newer one knows."""
    older, newer = _kept_file(run), run.folder / "newer.audit.json"
    operator = Hand.of(run.clean_up.enter_context(run.http()), run.state / "operator.json")
    operator.have("POST", f"{PLATFORM}/tenants", PLATFORM, json={"id": "late", "name": "late"})
    newer.write_bytes(fetch(operator, SERVICE))
    if refused := _refusal(run, newer, previous=older):
        raise Broken("the log as it is now was refused", refused)
    return _refusal(run, older, previous=newer)


def another_past(run: Run) -> str | None:
    """Rewrite an entry with the service's own key at hand: whoever kept an older log knows."""
    log = _kept(run)
    log["entries"][1].update(actor="nobody")
    key = load_pem_private_key((run.state / SERVICE / "audit.key").read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise Broken("the key of the log is no EC key")
    log["checkpoint"] = _checkpoint(log, key)
    forged = _written(run, log)
    if refused := _refusal(run, forged):
        raise Broken("the forged log is not even right in itself", refused)
    return _refusal(run, forged, previous=_kept_file(run))


def _touched(run: Run, touch: Callable[[dict[str, Any]], object]) -> str | None:
    """Touch a copy of a log whose original was just verified (link 12), and have it verified."""
    log = _kept(run)
    touch(log)
    return _refusal(run, _written(run, log))


def _kept_file(run: Run) -> Path:
    return run.folder / f"{SERVICE}.audit.json"


def _kept(run: Run) -> dict[str, Any]:
    return dict(copy.deepcopy(json.loads(_kept_file(run).read_text())))


def _written(run: Run, log: dict[str, Any]) -> Path:
    file = run.folder / "touched.audit.json"
    file.write_text(json.dumps(log))
    return file


def _refusal(run: Run, file: Path, *, previous: Path | None = None) -> str | None:
    """Have a log verified, against an older one if there is one; return the code of the refusal."""
    older = [] if previous is None else ["--previous", str(previous)]
    try:
        umec("audit", "verify", str(file), "--key", str(run.state / f"{SERVICE}-audit.pem"), *older)
    except Broken as refused:
        return refused.code
    return None


def _checkpoint(log: dict[str, Any], key: EllipticCurvePrivateKey) -> str:
    """Return the checkpoint of a log (C2SP tlog-checkpoint) under any key."""
    leaves = [json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False) for entry in log["entries"]]
    origin, root = log["origin"], _root([hashlib.sha256(b"\0" + leaf.encode()).digest() for leaf in leaves])
    text = f"{origin}\n{len(leaves)}\n{base64.b64encode(root).decode()}\n"
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = hashlib.sha256(public).digest()[:4] + key.sign(text.encode(), ec.ECDSA(SHA256()))
    return f"{text}\n— {origin} {base64.b64encode(signature).decode()}\n"


def _root(hashes: list[bytes]) -> bytes:
    """Return the root of a Merkle tree over leaf hashes (RFC 6962, section 2.1)."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _root(hashes[:split]) + _root(hashes[split:])).digest()


COPY: Final = "a copy of the log"

ATTACKS: Final[tuple[Attack[Run], ...]] = (
    Attack("audit-entry-removed", "audit-gap", COPY, removed),
    Attack("audit-entry-rewritten", "audit-rewritten", COPY, rewritten),
    Attack("audit-signed-by-another", "audit-checkpoint-invalid", f"{COPY}, an own key", own_key),
    Attack("audit-older-state", "audit-gap", "an older copy of the log", older_state),
    Attack("audit-another-past", "audit-rewritten", "the service's own key", another_past),
)
