"""The verifier as a service: enrolment, rounds, verdicts, standings. Needs the extra `server`."""

from umec_attest.service.composition import AUDIT_ORIGIN, AttestService
from umec_attest.service.settings import AttestSettings

__all__ = ["AUDIT_ORIGIN", "AttestService", "AttestSettings"]
