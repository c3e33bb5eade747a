"""A private Sigstore for sites without the internet: certificate authority, transparency log, time-stamping authority.

Made so that off-the-shelf Sigstore clients sign and verify with it; identity tokens come from our authorization server.
"""

from umec_images.authority.service import SigningAuthority

__all__ = ["SigningAuthority"]
