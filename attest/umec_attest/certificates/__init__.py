"""Certificates of TPMs and devices: reading them (also the malformed ones of some vendors), and paths to a root."""

from umec_attest.certificates.certificate import Certificate, load_certificate
from umec_attest.certificates.path import Profile, TrustStore, sort_bundle, verify_path

__all__ = ["Certificate", "Profile", "TrustStore", "load_certificate", "sort_bundle", "verify_path"]
