"""Name constraints (RFC 5280, 4.2.1.10): which names an authority may give to whom is below it.

The certificates of TPMs and devices carry distinguished names, so constraints on these are understood. A constraint on
any other kind of name is not, and the authority that has one is refused.
"""

from collections.abc import Iterable, Sequence

from cryptography import x509

from umec_attest.certificates.certificate import Certificate
from umec_attest.certificates.names import DistinguishedName, parse_name

__all__ = ["ConstraintBroken", "check_constraints"]


class ConstraintBroken(ValueError):
    """A name that an authority above it may not give, or a constraint that we do not understand."""


def check_constraints(constraints: x509.NameConstraints, below: Sequence[Certificate]) -> None:
    """Check the names of all certificates below an authority. Raises `ConstraintBroken`."""
    permitted, excluded = _subtrees(constraints.permitted_subtrees), _subtrees(constraints.excluded_subtrees)
    for certificate in below:
        for name in _names(certificate):
            if any(name.is_below(subtree) for subtree in excluded or ()):
                raise ConstraintBroken(f"the name {name} is excluded by an authority above it")
            if permitted is not None and not any(name.is_below(subtree) for subtree in permitted):
                raise ConstraintBroken(f"the name {name} is not one that an authority above it may give")


def _names(certificate: Certificate) -> tuple[DistinguishedName, ...]:
    subject = (certificate.subject,) if certificate.subject.rdns else ()
    return subject + certificate.alternatives


def _subtrees(names: Iterable[x509.GeneralName] | None) -> tuple[DistinguishedName, ...] | None:
    if names is None:
        return None
    subtrees = []
    for name in names:
        if not isinstance(name, x509.DirectoryName):
            raise ConstraintBroken("constraints on other names than distinguished ones are not understood")
        subtrees.append(parse_name(name.value.public_bytes()))
    return tuple(subtrees)
