"""Errors of the policy engine.

PolicyError
├── PolicyInvalid      policy-invalid      a policy set, its schema or a file of tests is not usable
├── FactsInvalid       facts-invalid       facts are not flat, typed and named by issuer and subject
├── PolicyDenied       policy-denied       the policies do not allow it; names the deciding ones
└── PolicyTestsFailed  policy-tests-failed the policies do not behave as their tests say
"""

from umec_core.errors import Forbidden, Invalid, Refused, UmecError

__all__ = ["FactsInvalid", "PolicyDenied", "PolicyError", "PolicyInvalid", "PolicyTestsFailed"]


class PolicyError(UmecError):
    """Something about policies."""

    code = "policy-error"


class PolicyInvalid(PolicyError, Invalid):
    """A policy set, its schema or a file of tests is not usable: nothing is decided with it."""

    code = "policy-invalid"


class FactsInvalid(PolicyError, Invalid):
    """Facts are flat, typed and name their issuer and their subject; these are not."""

    code = "facts-invalid"


class PolicyDenied(PolicyError, Forbidden):
    """The policies do not allow it.

    `policies` are the ids of the policies that decided (empty: none permitted), `errors` what went wrong in evaluation.
    """

    code = "policy-denied"

    def __init__(self, detail: str, *, policies: tuple[str, ...], errors: tuple[str, ...] = ()) -> None:
        super().__init__(detail, advice="`umec policy explain` shows the facts and what each policy made of them")
        self.policies = policies
        self.errors = errors


class PolicyTestsFailed(PolicyError, Refused):
    """The policies do not behave as their tests say."""

    code = "policy-tests-failed"
