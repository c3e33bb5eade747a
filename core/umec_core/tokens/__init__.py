"""Access tokens at an API: from what a request presents to a `Principal`, or one refusal with a stable code.

TokenMissing    token-missing    nobody asks
TokenInvalid    token-invalid    not a token of our authorization server
TokenExpired    token-expired    its time is over or has not come
TokenAudience   token-audience   made for another API
TokenBinding    token-binding    not presented by its holder, or not in the way that it is bound
TokenRevoked    token-revoked    it, or its client, was revoked
KeysUnavailable keys-unavailable the keys of a peer cannot be read right now
(umec_core.principal: token-scope; umec_core.dpop: dpop-*; umec_core.standing: standing-*)

    verifier   from what a request presents to a `Principal`
    claims     what a verified token says: its principal, and to what it is bound
    keys       where the keys of a peer come from
"""

from umec_core.jose import KeySource
from umec_core.principal import TokenScope
from umec_core.tokens.errors import (
    KeysUnavailable,
    TokenAudience,
    TokenBinding,
    TokenExpired,
    TokenInvalid,
    TokenMissing,
    TokenRevoked,
)
from umec_core.tokens.keys import KEYS_LIFE, RemoteKeys, StaticKeys
from umec_core.tokens.verifier import (
    ACCESS_TOKEN_TYPE,
    MAX_LIFE,
    BearerPolicy,
    Denied,
    Presented,
    TokenVerifier,
    certificate_thumbprint,
)

__all__ = [
    "ACCESS_TOKEN_TYPE",
    "KEYS_LIFE",
    "MAX_LIFE",
    "BearerPolicy",
    "Denied",
    "KeySource",
    "KeysUnavailable",
    "Presented",
    "RemoteKeys",
    "StaticKeys",
    "TokenAudience",
    "TokenBinding",
    "TokenExpired",
    "TokenInvalid",
    "TokenMissing",
    "TokenRevoked",
    "TokenScope",
    "TokenVerifier",
    "certificate_thumbprint",
]
