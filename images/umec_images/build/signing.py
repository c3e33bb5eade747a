"""Sign what was built: SLSA provenance about a manifest digest, as a Sigstore bundle by an identity of the site.

The signing itself is sigstore-python's: an ephemeral key, a certificate for ten minutes, a log entry, a time stamp.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from umec_images.build.errors import SigningFailed
from umec_images.oci.reference import check_digest
from umec_images.statements import PROVENANCE, Statement, Subject, encode_statement

__all__ = ["BUILD_TYPE", "provenance", "sign_statement"]

BUILD_TYPE: Final = "urn:umec:image-build:v1"
_CA_VARIABLE: Final = "REQUESTS_CA_BUNDLE"


def provenance(*, repository: str, digest: str, builder: str, report: Mapping[str, Any] | None, now: datetime) -> bytes:
    """Return an in-toto statement: `builder` (a URI) made `digest` in `repository` from what the report names."""
    packages = {} if report is None else report.get("packages", {})
    distributions = {} if report is None else report.get("distributions", {})
    materials = [
        *(f"pkg:deb/debian/{name}@{version}" for name, version in sorted(packages.items())),
        *(f"pkg:pypi/{name}@{version}" for name, version in sorted(distributions.items())),
    ]
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"repository": repository},
            "resolvedDependencies": [{"uri": material} for material in materials],
        },
        "runDetails": {
            "builder": {"id": builder},
            "metadata": {"finishedOn": now.strftime("%Y-%m-%dT%H:%M:%SZ")},
        },
    }
    subject = Subject(repository, {"sha256": check_digest(digest).removeprefix("sha256:")})
    return encode_statement(Statement((subject,), PROVENANCE, predicate))


def sign_statement(statement: bytes, *, trust_config: str, identity_token: str, ca: str) -> bytes:
    """Return a bundle (v0.3, JSON) over an in-toto statement. Blocks for some network round trips.

    `trust_config` is client_trust_config.json, `ca` the PEM that the servers' certificates lead to. Raises
    SigningFailed whatever the library raises.
    """
    # The library takes 0.7 s to import: only who signs waits for it.
    from sigstore.dsse import Statement as LibraryStatement  # noqa: PLC0415
    from sigstore.models import ClientTrustConfig  # noqa: PLC0415
    from sigstore.oidc import IdentityToken  # noqa: PLC0415
    from sigstore.sign import SigningContext  # noqa: PLC0415

    try:
        with _trusting(ca):
            context = SigningContext.from_trust_config(ClientTrustConfig.from_json(trust_config))
            with context.signer(IdentityToken(identity_token)) as signer:
                return signer.sign_dsse(LibraryStatement(statement)).to_json().encode()
    except Exception as error:
        raise SigningFailed(
            f"the signing authority gave no signature: {type(error).__name__}: {str(error)[:300]}",
            advice="Is this client registered as a builder, and are the clocks right?",
        ) from error


@contextmanager
def _trusting(ca: str) -> Iterator[None]:
    """Let `requests`, by which the library speaks HTTP, trust exactly these certificates."""
    before = os.environ.get(_CA_VARIABLE)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(ca)
        file.flush()
        os.environ[_CA_VARIABLE] = file.name
        try:
            yield
        finally:
            if before is None:
                del os.environ[_CA_VARIABLE]
            else:
                os.environ[_CA_VARIABLE] = before
