"""Paths from a certificate to a root: where they branch, who may sign for what, names, and a bound on the work."""

from datetime import timedelta
from functools import lru_cache
from itertools import pairwise

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

from umec_attest.certificates import Profile, TrustStore, load_certificate, sort_bundle, verify_path
from umec_attest.certificates.certificate import Certificate
from umec_attest.errors import EkCertificateExpired, EkCertificateInvalid, EkCertificatePath

PURPOSE, OTHER, ANY = (ObjectIdentifier(text) for text in ("2.23.133.8.1", "2.23.133.8.3", "2.5.29.37.0"))
PROFILE = Profile(PURPOSE, EkCertificateInvalid, EkCertificateExpired, EkCertificatePath)
WITHOUT_PURPOSE = Profile(None, EkCertificateInvalid, EkCertificateExpired, EkCertificatePath)
CA = x509.BasicConstraints(ca=True, path_length=None)
LEAF = x509.BasicConstraints(ca=False, path_length=None)


@lru_cache
def key(name, curve=ec.SECP256R1):  # noqa: ARG001 - one key a name
    return ec.generate_private_key(curve())


def large_key():
    """An RSA key of 4484 bits, of two Mersenne primes: nobody has to look for primes of that size."""
    p, q = 2**2281 - 1, 2**2203 - 1
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    private = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return private.private_key(unsafe_skip_rsa_key_validation=True)


def name(*texts):
    kinds = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in zip(kinds, texts, strict=False)])


@pytest.fixture
def issue(kit):
    """Make a certificate for `subject`, whose key is that of its last name, signed by `issuer`."""

    def run(subject, issuer, *extensions, days=(-10, 1000), by=None, of=None, hasher=None, pad=None):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(*subject) if subject else x509.Name([]))
            .issuer_name(name(*issuer))
            .public_key((of or key(subject[-1] if subject else "leaf")).public_key())
            .serial_number(7)
            .not_valid_before(kit.NOW + timedelta(days=days[0]))
            .not_valid_after(kit.NOW + timedelta(days=days[1]))
        )
        for extension in extensions:
            critical = isinstance(extension, x509.BasicConstraints)
            builder = builder.add_extension(extension, critical=critical)
        made = builder.sign(by or key(issuer[-1]), hasher or hashes.SHA256(), rsa_padding=pad)
        return load_certificate(made.public_bytes(serialization.Encoding.DER), tolerate=False)

    return run


@pytest.fixture
def leaf(issue):
    return issue(("acme", "tpm"), ("acme", "middle"), LEAF, x509.ExtendedKeyUsage([PURPOSE]))


@pytest.fixture
def middle(issue):
    return issue(("acme", "middle"), ("acme", "root"), CA)


@pytest.fixture
def root(issue):
    return issue(("acme", "root"), ("acme", "root"), CA)


@pytest.fixture
def verify(kit):
    def run(leaf, chain, *anchors, between=(), profile=PROFILE):
        return verify_path(leaf, chain, TrustStore(anchors, tuple(between)), profile=profile, now=kit.NOW)

    return run


def test_a_path_is_returned_from_the_certificate_to_the_root(verify, leaf, middle, root):
    assert verify(leaf, [middle], root) == (leaf, middle, root)
    assert verify(leaf, [], root, between=[middle]) == (leaf, middle, root)
    assert verify(leaf, [root, middle], root) == (leaf, middle, root)
    assert verify(leaf, [], middle) == (leaf, middle)


def test_an_intermediate_of_a_bundle_ends_no_path(verify, leaf, middle, root, refused):
    with refused("ek-certificate-path"):
        verify(leaf, [], between=[middle])
    with refused("ek-certificate-path"):
        verify(leaf, [root, middle])


def test_a_bundle_is_sorted_into_roots_and_intermediates(middle, root):
    assert sort_bundle([middle, root, root]) == TrustStore((root,), (middle,))
    assert sort_bundle([root], anchors=[middle]) == TrustStore((middle, root))


def test_of_two_issuers_of_one_name_the_right_one_is_found(verify, issue, leaf, middle, root, refused):
    """A renewed certificate beside the expired one, another key under the same name, a root with two certificates."""
    expired = issue(("acme", "middle"), ("acme", "root"), CA, days=(-10, -1))
    stranger = issue(("acme", "middle"), ("acme", "root"), CA, of=key("stranger"))
    no_authority = issue(("acme", "middle"), ("acme", "root"), LEAF)
    for chain in ([expired, middle], [middle, expired], [stranger, no_authority, middle]):
        assert verify(leaf, chain, root) == (leaf, middle, root)
    with refused("ek-certificate-expired"):
        verify(leaf, [expired], root)
    with refused("ek-certificate-expired"):
        verify(leaf, [expired, stranger], root)
    dead_end = issue(("acme", "middle"), ("acme", "elsewhere"), CA)
    assert verify(leaf, [dead_end, middle], root) == (leaf, middle, root)


def test_authorities_may_sign_for_their_purpose_alone(verify, issue, leaf, root, refused):
    def limited(*purposes):
        return issue(("acme", "middle"), ("acme", "root"), CA, x509.ExtendedKeyUsage(purposes))

    with refused("ek-certificate-path"):
        verify(leaf, [limited(OTHER)], root)
    for good in ([PURPOSE], [OTHER, PURPOSE], [ANY]):
        verify(leaf, [limited(*good)], root)
    verify(leaf, [limited(OTHER)], root, profile=WITHOUT_PURPOSE)
    for_nothing = issue(("acme", "tpm"), ("acme", "root"), LEAF)
    with refused("ek-certificate-invalid"):
        verify(for_nothing, [], root)
    verify(for_nothing, [], root, profile=WITHOUT_PURPOSE)


def test_a_path_has_a_longest_length(verify, issue, root, refused):
    def ladder(steps):
        names = ["root", *(f"step {n}" for n in range(steps))]
        pairs = pairwise(names)
        return [issue(("acme", below), ("acme", above), CA) for above, below in pairs], ("acme", names[-1])

    for steps, good in ((5, True), (6, False)):
        chain, last = ladder(steps)
        below = issue(("acme", "tpm"), last, LEAF, x509.ExtendedKeyUsage([PURPOSE]))
        if good:
            assert len(verify(below, chain, root)) == steps + 2
        else:
            with refused("ek-certificate-path"):
                verify(below, chain, root)


def test_the_work_of_a_search_is_bounded(verify, issue, leaf, middle, root, refused, monkeypatch):
    """Many issuers of one name, none of which leads anywhere: a stranger's chain is searched for so long only."""
    tried = []
    real = Certificate.verify_signed_by
    monkeypatch.setattr(Certificate, "verify_signed_by", lambda *both: tried.append(both) or real(*both))
    same = [issue(("acme", "middle"), ("acme", "middle"), CA, of=key("middle"), days=(-10, n)) for n in range(1, 9)]
    with refused("ek-certificate-path"):
        verify(leaf, same, root)
    assert len(tried) == 16
    assert verify(leaf, [*same[:2], middle], root)[-1] is root


def test_keys_and_signatures_of_authorities_are_strong(verify, issue, kit, root, refused):
    small, good, large = kit.rsa_key(1024), kit.rsa_key(2048), large_key()
    below = (LEAF, x509.ExtendedKeyUsage([PURPOSE]))
    for issuer_key, accepted in (
        (small, False),
        (good, True),
        (large, False),
        (kit.rsa_key(2048, 3), False),
        (key("k1", ec.SECP256K1), False),
        (key("p384", ec.SECP384R1), True),
        (key("p521", ec.SECP521R1), False),
    ):
        weak_middle = issue(("acme", "middle"), ("acme", "root"), CA, of=issuer_key)
        shown = issue(("acme", "tpm"), ("acme", "middle"), *below, by=issuer_key)
        if accepted:
            verify(shown, [weak_middle], root)
        else:
            with refused("ek-certificate-path"):
                verify(shown, [weak_middle], root)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    middle = issue(("acme", "middle"), ("acme", "root"), CA, of=good)
    verify(issue(("acme", "tpm"), ("acme", "middle"), *below, by=good, pad=pss), [middle], root)
    for by in (key("middle"), kit.rsa_key(2048, name="forger")):
        with refused("ek-certificate-path"):
            verify(issue(("acme", "tpm"), ("acme", "middle"), *below, by=by), [middle], root)
    issue_middle = issue(("acme", "middle"), ("acme", "root"), CA)
    with refused("ek-certificate-path"):  # the issuer's key is of another type than the signature
        verify(issue(("acme", "tpm"), ("acme", "middle"), *below, by=good), [issue_middle], root)


# --- name constraints -----------------------------------------------------------------------------------------------


def subtrees(*names):
    return [x509.DirectoryName(name(*texts)) for texts in names]


@pytest.mark.parametrize(
    ("permitted", "excluded", "good"),
    [
        (subtrees(("acme",)), None, True),
        (subtrees(("ACME  ",)), None, True),
        (subtrees(("other",), ("acme",)), None, True),
        (subtrees(("other",)), None, False),
        (subtrees(("acme", "middle")), None, False),
        (subtrees(("acme", "tpm", "deeper")), None, False),
        (None, subtrees(("other",)), True),
        (None, subtrees(("acme",)), False),
        (None, subtrees((" Acme",)), False),
        (None, subtrees(("other",), ("acme", "tpm")), False),
        (subtrees(("acme",)), subtrees(("acme", "tpm")), False),
        ([x509.DNSName("example")], None, False),
        (None, [x509.DNSName("example")], False),
        (None, [*subtrees(("other",)), x509.RFC822Name("example")], False),
    ],
)
def test_names_below_an_authority(verify, issue, leaf, root, refused, permitted, excluded, good):
    constraints = x509.NameConstraints(permitted, excluded)
    chain = [issue(("acme", "middle"), ("acme", "root"), CA, constraints)]
    if good:
        verify(leaf, chain, root)
    else:
        with refused("ek-certificate-path"):
            verify(leaf, chain, root)


def test_constraints_hold_for_all_below_and_for_alternative_names(verify, issue, refused):
    only_acme = x509.NameConstraints(subtrees(("acme",)), None)
    constrained = issue(("vendor", "root"), ("vendor", "root"), CA, only_acme)
    purpose = x509.ExtendedKeyUsage([PURPOSE])

    def path(middle_name, names):
        middle = issue(middle_name, ("vendor", "root"), CA, by=key("root"), of=key("middle"))
        shown = x509.SubjectAlternativeName([x509.DirectoryName(name(*texts)) for texts in names])
        return issue((), middle_name, LEAF, purpose, shown, by=key("middle")), [middle], constrained

    assert verify(*path(("acme", "m"), [("acme", "tpm")]))
    for middle_name, names in (
        (("acme", "m"), [("vendor", "tpm")]),
        (("acme", "m"), [("acme", "tpm"), ("vendor", "tpm")]),
        (("vendor", "m"), [("acme", "tpm")]),
    ):
        with refused("ek-certificate-path"):
            verify(*path(middle_name, names))
    nameless = issue((), ("vendor", "root"), LEAF, purpose, by=key("root"))
    assert verify(nameless, [], constrained)
