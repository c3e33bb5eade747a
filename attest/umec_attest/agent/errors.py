"""Errors of the agent.

AgentError
├── TpmUnavailable      tpm-unavailable       the TPM does not answer, or restarted in the middle: try again
├── TpmRefused          tpm-refused           the TPM answered, and said no
├── AgentStateInvalid   agent-state-invalid   the state directory is missing, incomplete or readable by others
├── TicketInvalid       ticket-invalid        a ticket cannot be read
├── PlatformUntrusted   platform-untrusted    the platform CA is not the one that the ticket pins
├── PlatformUnavailable platform-unavailable  a service of the platform does not answer, or not as its contract says
├── PlatformRefused     (the code it sent)    a service of the platform refused
└── NotAttested         node-not-attested     there is no certificate, because the last round gave none
"""

from umec_core.errors import Forbidden, Invalid, Refused, UmecError, Unavailable

__all__ = [
    "AgentError",
    "AgentStateInvalid",
    "NotAttested",
    "PlatformRefused",
    "PlatformUnavailable",
    "PlatformUntrusted",
    "TicketInvalid",
    "TpmRefused",
    "TpmUnavailable",
]


class AgentError(UmecError):
    """The root of the agent's errors."""

    code = "agent-error"


class TpmUnavailable(AgentError, Unavailable):
    """The TPM does not answer, or restarted in the middle: trying again helps."""

    code = "tpm-unavailable"


class TpmRefused(AgentError, Refused):
    """The TPM answered, and said no."""

    code = "tpm-refused"


class AgentStateInvalid(AgentError, Invalid):
    """The state directory is missing, incomplete or readable by others."""

    code = "agent-state-invalid"


class TicketInvalid(AgentError, Invalid):
    """A ticket cannot be read."""

    code = "ticket-invalid"


class PlatformUntrusted(AgentError, Refused):
    """The platform CA is not the one that the ticket pins."""

    code = "platform-untrusted"


class PlatformUnavailable(AgentError, Unavailable):
    """A service of the platform does not answer, or not as its contract says."""

    code = "platform-unavailable"


class PlatformRefused(AgentError):
    """A service of the platform refused; `code` is what it sent."""

    code = "platform-refused"

    def __init__(self, code: str, detail: str, *, status: int, advice: str | None = None) -> None:
        super().__init__(detail, advice=advice)
        self.code = code  # type: ignore[misc] # the one error whose reason is somebody else's
        self.status = status


class NotAttested(AgentError, Forbidden):
    """There is no certificate, because the last round gave none."""

    code = "node-not-attested"
