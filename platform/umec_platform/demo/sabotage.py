"""One link broken on purpose, as it breaks in real life: the run must fail and name that link.

 1  the reference set is signed by somebody whom the verifier does not know      nodes.publish_reference_set
 2  the boot log is that of another boot                                          nodes.boot
 3  another TPM than the ticket's answers                                         nodes.enrol
 4  the node booted with another command line                                     nodes.attest
 5  the site believes another verifier                                            other_verifier
 6  the platform CA has expired                                                   expired_authority
 7  somebody signed who is no builder                                             images.publish
 8  the image skips staging                                                       images.publish
 9  the policy that admits to production is gone                                  without_admission
10  the descriptor asks for no permission                                         applications.deploy
11  an intruder throws the rules out of the node's kernel                         applications.deploy
12  an entry of the audit log is rewritten in the database                        audit.verify_logs
"""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey

from umec_platform.demo.run import Run

__all__ = ["prepare"]

POLICIES = Path(__file__).parents[3] / "policies" / "umec_policies" / "sets"


def prepare(run: Run) -> dict[str, Any]:
    """Break what has to be broken before the site starts; return further settings for it, by table."""
    breakers = {5: _other_verifier, 6: _expired_authority, 9: _without_admission}
    breaker = breakers.get(run.sabotage or 0)
    return {} if breaker is None else breaker(run)


def _other_verifier(run: Run) -> dict[str, Any]:
    keys = run.folder / "another-verifier.jwks.json"
    stranger = ECKey.generate_key("P-256", {"use": "sig", "alg": "ES256"}, private=False, auto_kid=True)
    keys.write_text(json.dumps({"keys": [stranger.as_dict(private=False)]}))
    return {"identity": {"verifier_jwks": str(keys)}}


def _expired_authority(run: Run) -> dict[str, Any]:
    folder = run.state / "identity"
    folder.mkdir(mode=0o700, parents=True)
    run.state.chmod(0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "umec platform CA")])
    yesterday = datetime.now(UTC) - timedelta(days=1)  # noqa: TID251 - a demo lives in the real time
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday - timedelta(days=365))
        .not_valid_after(yesterday)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    private = folder / "platform-ca.key"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "platform-ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return {}


def _without_admission(run: Run) -> dict[str, Any]:
    folder = run.folder / "policies"
    shutil.copytree(POLICIES, folder)
    policies = folder / "admission" / "admission.cedar"
    kept = [part for part in policies.read_text().split("@id(") if not part.startswith('"admit-production"')]
    policies.write_text("@id(".join(kept))
    return {"site": {"policies": str(folder)}}
