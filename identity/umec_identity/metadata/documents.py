"""What clients and APIs may know beforehand: RFC 8414, RFC 9728, and what a CA for signatures needs."""

from collections.abc import Sequence
from typing import Any

from umec_core.jose import ALGORITHM
from umec_identity.settings import SCOPES, SIGSTORE, Resources

__all__ = ["discovery", "resource_document", "server_document"]


def server_document(issuer: str, resources: Resources) -> dict[str, Any]:
    """Return the metadata of the authorization server (RFC 8414). It has no authorization endpoint: no people here."""
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth2/token",
        "introspection_endpoint": f"{issuer}/oauth2/introspect",
        "revocation_endpoint": f"{issuer}/oauth2/revoke",
        "challenge_endpoint": f"{issuer}/oauth2/challenge",
        "jwks_uri": f"{issuer}/oauth2/jwks",
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": sorted({"node:host"}.union(*SCOPES.values())),
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "attest_jwt_client_auth"],
        "token_endpoint_auth_signing_alg_values_supported": [ALGORITHM],
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt"],
        "introspection_endpoint_auth_signing_alg_values_supported": [ALGORITHM],
        "revocation_endpoint_auth_methods_supported": ["private_key_jwt", "attest_jwt_client_auth"],
        "revocation_endpoint_auth_signing_alg_values_supported": [ALGORITHM],
        "dpop_signing_alg_values_supported": [ALGORITHM],
        "client_attestation_signing_alg_values_supported": [ALGORITHM],
        "client_attestation_pop_signing_alg_values_supported": [ALGORITHM],
        "tls_client_certificate_bound_access_tokens": True,
        "protected_resources": [uri for api, uri in sorted(resources.by_api.items()) if api != SIGSTORE],
    }


def discovery(issuer: str) -> dict[str, Any]:
    """Return the members of OpenID Connect Discovery that a Fulcio reads: who signs identity tokens, and how."""
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/oauth2/jwks",
        "token_endpoint": f"{issuer}/oauth2/token",
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
    }


def resource_document(issuer: str, resource: str, scopes: Sequence[str]) -> dict[str, Any]:
    """Return the metadata of a protected resource (RFC 9728)."""
    return {
        "resource": resource,
        "authorization_servers": [issuer],
        "scopes_supported": sorted(scopes),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": [ALGORITHM],
        "tls_client_certificate_bound_access_tokens": True,
    }
