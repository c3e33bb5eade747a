"""JSON Web Tokens and keys: ES256 over P-256, strict text, and every header member accounted for.

    JwtInvalid
    ├── JwtMalformed      jwt-malformed      not a compact JWS of a JSON object, or longer than `MAX_JWT`
    ├── JwtHeader         jwt-header         a header member that we do not accept
    ├── JwtAlgorithm      jwt-algorithm      another algorithm than ES256
    ├── JwtType           jwt-type           another kind of token than the caller asked for
    ├── JwtKeyUnknown     jwt-key-unknown    no key of the set has that identifier
    ├── JwtSignature      jwt-signature      the signature does not match
    ├── JwtClaim          jwt-claim          a claim is missing or of another shape
    └── JwtExpired        jwt-expired        its time is over, has not come, or is longer than allowed
    JwkInvalid            jwk-invalid        not a public P-256 key, or one that holds its private part

    text     base64url and JSON that are spelt in one way
    jwk      keys and sets of them
    jwt      signing and verifying
    claims   what claims look like, and whether their time is now

cryptography makes and checks the signatures, joserfc imports keys. What others tolerate and we refuse (base64 padding,
members given twice, headers that carry keys, weak keys) is checked here.
"""

from umec_core.jose.claims import SKEW, check_times, claim_text, claim_time
from umec_core.jose.errors import (
    JwkInvalid,
    JwtAlgorithm,
    JwtClaim,
    JwtExpired,
    JwtHeader,
    JwtInvalid,
    JwtKeyUnknown,
    JwtMalformed,
    JwtSignature,
    JwtType,
)
from umec_core.jose.jwk import (
    ALGORITHM,
    KEPT,
    KeySet,
    KeySource,
    private_jwk,
    private_key,
    public_jwk,
    public_key,
    thumbprint,
)
from umec_core.jose.jwt import peek_claims, peek_header, peek_kid, sign_jwt, verify_jwt
from umec_core.jose.text import base64url_decode, base64url_encode, strict_json

__all__ = [
    "ALGORITHM",
    "KEPT",
    "SKEW",
    "JwkInvalid",
    "JwtAlgorithm",
    "JwtClaim",
    "JwtExpired",
    "JwtHeader",
    "JwtInvalid",
    "JwtKeyUnknown",
    "JwtMalformed",
    "JwtSignature",
    "JwtType",
    "KeySet",
    "KeySource",
    "base64url_decode",
    "base64url_encode",
    "check_times",
    "claim_text",
    "claim_time",
    "peek_claims",
    "peek_header",
    "peek_kid",
    "private_jwk",
    "private_key",
    "public_jwk",
    "public_key",
    "sign_jwt",
    "strict_json",
    "thumbprint",
    "verify_jwt",
]
