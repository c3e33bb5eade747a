"""What the authorization server refuses, with the name that RFC 6749 and its successors give the refusal.

    IdentityError
    ├── RequestInvalid           request-invalid            the form or a header is malformed
    │   ├── ParameterRepeated    parameter-repeated         a parameter or a header is given twice
    │   ├── GrantMissing         grant-missing              there is no grant_type
    │   └── BindingConflict      binding-conflict           more than one way of binding the token is asked for
    ├── GrantUnsupported         grant-unsupported          another grant than client credentials
    ├── AuthenticationMissing    client-authentication-missing    no client authentication
    ├── AuthenticationDouble     client-authentication-double     more than one client authentication
    ├── AuthenticationUnsupported client-authentication-unsupported  one that we do not offer (a shared secret)
    ├── AssertionInvalid         assertion-invalid          a client assertion that nobody could have signed well
    │   ├── AssertionAudience    assertion-audience         for another audience than the issuer, or for several
    │   ├── AssertionExpired     assertion-expired          not now, or for longer than five minutes
    │   └── AssertionReplayed    assertion-replayed         used before
    ├── ClientInvalid            client-invalid             unknown client or bad signature: nobody is told which
    ├── AttestationInvalid       attestation-invalid        an attestation result that is not our verifier's, or not now
    │   ├── AttestationVerdict   attestation-verdict        of a node that is not in a good state
    │   ├── PossessionInvalid    attestation-pop-invalid    no proof of the node key for this request
    │   ├── PossessionReplayed   attestation-pop-replayed   used before
    │   └── ChallengeInvalid     attestation-challenge      no challenge of ours, an old one, or one used before
    ├── CertificateMissing       client-certificate-missing no TLS client certificate to bind to
    ├── CertificateInvalid       client-certificate-invalid not one of the platform CA for this node
    ├── CertificateFallen        client-certificate-fallen  its node has fallen or changed since
    ├── CsrInvalid               csr-invalid                a certificate request that is malformed or not proved
    ├── TargetInvalid            target-invalid             no resource, several, an unknown one, or not this client's
    ├── ScopeInvalid             scope-invalid              scopes that the client or the resource does not have
    ├── GrantDenied              grant-denied               the policies do not allow it
    ├── ProofMissing             dpop-missing               the client is registered for DPoP and sends no proof
    ├── CallerDenied             caller-denied              this client may not introspect or revoke that token
    ├── RegistrationInvalid      registration-invalid       a client that cannot be registered like that
    ├── RegistrationDenied       registration-denied        a client that this caller may not register or remove
    ├── ClientExists             client-exists
    ├── ClientUnknown            client-unknown             (at the management API only)
    └── TooManyRequests          too-many-requests          with Retry-After

Errors of umec_core (dpop-*, standing-*, keys-unavailable …) pass through. `umec_identity.wire` maps all to HTTP.
"""

from umec_core.errors import Conflict, Forbidden, Invalid, Kind, NotFound, UmecError, Unauthenticated

__all__ = [
    "AssertionAudience",
    "AssertionExpired",
    "AssertionInvalid",
    "AssertionReplayed",
    "AttestationInvalid",
    "AttestationVerdict",
    "AuthenticationDouble",
    "AuthenticationMissing",
    "AuthenticationUnsupported",
    "BindingConflict",
    "CallerDenied",
    "CertificateFallen",
    "CertificateInvalid",
    "CertificateMissing",
    "ChallengeInvalid",
    "ClientExists",
    "ClientInvalid",
    "ClientUnknown",
    "CsrInvalid",
    "GrantDenied",
    "GrantMissing",
    "GrantUnsupported",
    "IdentityError",
    "ParameterRepeated",
    "PossessionInvalid",
    "PossessionReplayed",
    "ProofMissing",
    "RegistrationDenied",
    "RegistrationInvalid",
    "RequestInvalid",
    "ScopeInvalid",
    "TargetInvalid",
    "TooManyRequests",
]


class IdentityError(UmecError):
    """A refusal by the authorization server; `oauth` is its name in RFC 6749, 8707, 9449 or the attestation draft."""

    oauth: str = "invalid_request"


class RequestInvalid(IdentityError, Invalid):
    """The form or a header is malformed."""

    code = "request-invalid"


class ParameterRepeated(RequestInvalid):
    """A parameter or a header is given twice (RFC 6749, 3.2)."""

    code = "parameter-repeated"


class GrantMissing(RequestInvalid):
    """There is no grant_type."""

    code = "grant-missing"


class BindingConflict(RequestInvalid):
    """More than one way of binding the token is asked for."""

    code = "binding-conflict"


class GrantUnsupported(IdentityError, Invalid):
    """Another grant than client credentials."""

    code = "grant-unsupported"
    oauth = "unsupported_grant_type"


class AuthenticationMissing(IdentityError, Unauthenticated):
    """The request carries no client authentication."""

    code = "client-authentication-missing"
    oauth = "invalid_client"


class AuthenticationDouble(IdentityError, Invalid):
    """The request carries more than one client authentication (RFC 6749, 2.3)."""

    code = "client-authentication-double"


class AuthenticationUnsupported(IdentityError, Unauthenticated):
    """The request carries a client authentication that we do not offer."""

    code = "client-authentication-unsupported"
    oauth = "invalid_client"


class AssertionInvalid(IdentityError, Unauthenticated):
    """A client assertion lacks a claim, or has one of another shape."""

    code = "assertion-invalid"
    oauth = "invalid_client"


class AssertionAudience(AssertionInvalid):
    """The assertion is for another audience than our issuer identifier, or for several."""

    code = "assertion-audience"


class AssertionExpired(AssertionInvalid):
    """The assertion is not valid now, or for too long."""

    code = "assertion-expired"


class AssertionReplayed(AssertionInvalid):
    """The assertion was used before."""

    code = "assertion-replayed"


class ClientInvalid(IdentityError, Unauthenticated):
    """The client is unknown, or the signature is not by one of its keys: one answer for both."""

    code = "client-invalid"
    oauth = "invalid_client"

    def __init__(self) -> None:
        super().__init__("the client is unknown, or the assertion is not signed with one of its keys")


class AttestationInvalid(IdentityError, Unauthenticated):
    """The attestation result is not our verifier's, not for us, or not valid now."""

    code = "attestation-invalid"
    oauth = "invalid_client_attestation"


class AttestationVerdict(AttestationInvalid):
    """The attestation result says that the node is not in a good state."""

    code = "attestation-verdict"


class PossessionInvalid(AttestationInvalid):
    """The proof of possession is not made by the node key for this request."""

    code = "attestation-pop-invalid"


class PossessionReplayed(AttestationInvalid):
    """The proof of possession was used before."""

    code = "attestation-pop-replayed"


class ChallengeInvalid(AttestationInvalid):
    """The challenge is none of ours, is too old, or was used before."""

    code = "attestation-challenge"
    oauth = "use_attestation_challenge"


class CertificateMissing(IdentityError, Unauthenticated):
    """The client showed no TLS certificate to bind the token to."""

    code = "client-certificate-missing"
    oauth = "invalid_client"


class CertificateInvalid(IdentityError, Unauthenticated):
    """The certificate is not one that the platform CA issued to this node."""

    code = "client-certificate-invalid"
    oauth = "invalid_client"


class CertificateFallen(IdentityError, Unauthenticated):
    """The node has fallen, or has changed its state, since the certificate was issued."""

    code = "client-certificate-fallen"
    oauth = "invalid_client"


class CsrInvalid(IdentityError, Invalid):
    """The certificate request is malformed, not self-signed, or not the one that the node key vouches for."""

    code = "csr-invalid"


class TargetInvalid(IdentityError, Invalid):
    """No resource, several, an unknown one, or one that this client has no access to (RFC 8707)."""

    code = "target-invalid"
    oauth = "invalid_target"


class ScopeInvalid(IdentityError, Invalid):
    """A scope that the client or the resource does not have."""

    code = "scope-invalid"
    oauth = "invalid_scope"


class GrantDenied(IdentityError, Forbidden):
    """The policies do not allow this token."""

    code = "grant-denied"
    oauth = "unauthorized_client"


class ProofMissing(IdentityError, Invalid):
    """The client is registered for DPoP-bound tokens, and the request has no proof."""

    code = "dpop-missing"
    oauth = "invalid_dpop_proof"


class CallerDenied(IdentityError, Forbidden):
    """This client may not introspect, or may not revoke that token."""

    code = "caller-denied"
    oauth = "unauthorized_client"


class RegistrationInvalid(IdentityError, Invalid):
    """A client cannot be registered like that."""

    code = "registration-invalid"


class RegistrationDenied(IdentityError, Forbidden):
    """The caller may register and remove application instances only."""

    code = "registration-denied"


class ClientExists(IdentityError, Conflict):
    """A client with that identifier is registered already, with other properties."""

    code = "client-exists"


class ClientUnknown(IdentityError, NotFound):
    """No client with that identifier is registered."""

    code = "client-unknown"


class TooManyRequests(IdentityError):
    """This address or this client asks too often."""

    code = "too-many-requests"
    kind = Kind.TOO_MANY
    oauth = "temporarily_unavailable"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, advice=f"wait {retry_after} s")
        self.retry_after = retry_after
