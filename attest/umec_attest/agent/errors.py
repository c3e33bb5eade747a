"""Errors of the agent. What a service refuses is `umec_core.client.RemoteRefused`, with the code that it sent.

AgentError
├── TpmUnavailable      tpm-unavailable       the TPM does not answer, or restarted in the middle: try again
├── TpmRefused          tpm-refused           the TPM answered, and said no
├── SealedElsewhere     sealed-elsewhere      another TPM sealed it, or this one in a state that nobody approved
├── DataTokenInvalid    data-token-invalid    what opens the data partition is nothing that this node wrote
├── AgentStateInvalid   agent-state-invalid   the state directory is missing, incomplete or readable by others
├── StateOfAnotherSite  state-of-another-site the state names another platform, CA or TPM than the node's image
├── ClockBehind         clock-behind          the clock shows a time before the node's image was made
├── TicketInvalid       ticket-invalid        a ticket cannot be read
├── TicketMissing       ticket-missing        a node that is to enrol has no ticket
├── PlatformUntrusted   platform-untrusted    the platform CA is not the one that the ticket pins
├── AnswerInvalid       answer-invalid        a service of the platform answers otherwise than its contract says
├── AgentBusy           agent-busy            an agent runs already on this state directory
├── LogRefused          log-refused           the verifier shows a log that cannot have come from what we saw
│   ├── LogKeyChanged   log-key-changed       another log, another key, or no signature by it
│   ├── LogShrunk       log-shrunk            it is shorter than it was
│   └── LogInconsistent log-inconsistent      it does not begin with what we saw
├── LogDistrusted       log-distrusted        the log was refused before, and no operator has reset that
├── DoorsBusy           doors-busy            other programs of the node have as many doors open as there may be
├── StartUndecided      start-undecided       a start that differs from its decision, or that nobody could judge
├── StartLogFull        start-log-full        no more starts are measured in this boot
├── StartLogDiverged    start-log-diverged    PCR 15 is not what the log of starts gives
└── NotAttested         node-not-attested     there is no certificate, because the last round gave none
"""

from umec_core.errors import Conflict, Forbidden, Invalid, Refused, UmecError, Unavailable

__all__ = [
    "AgentBusy",
    "AgentError",
    "AgentStateInvalid",
    "AnswerInvalid",
    "ClockBehind",
    "DataTokenInvalid",
    "DoorsBusy",
    "LogDistrusted",
    "LogInconsistent",
    "LogKeyChanged",
    "LogRefused",
    "LogShrunk",
    "NotAttested",
    "PlatformUntrusted",
    "SealedElsewhere",
    "StartLogDiverged",
    "StartLogFull",
    "StartUndecided",
    "StateOfAnotherSite",
    "TicketInvalid",
    "TicketMissing",
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


class SealedElsewhere(AgentError, Refused):
    """Another TPM sealed it, or this one in a state that nobody approved."""

    code = "sealed-elsewhere"


class DataTokenInvalid(AgentError, Invalid):
    """The data partition does not hold what this node seals."""

    code = "data-token-invalid"


class AgentStateInvalid(AgentError, Invalid):
    """The state directory is missing, incomplete or readable by others."""

    code = "agent-state-invalid"


class StateOfAnotherSite(AgentError, Refused):
    """The state names another platform, CA or TPM than the node's image."""

    code = "state-of-another-site"


class ClockBehind(AgentError, Refused):
    """The clock shows a time before the node's image was made."""

    code = "clock-behind"


class TicketInvalid(AgentError, Invalid):
    """A ticket cannot be read."""

    code = "ticket-invalid"


class TicketMissing(AgentError, Invalid):
    """A node that is to enrol has no ticket."""

    code = "ticket-missing"


class PlatformUntrusted(AgentError, Refused):
    """The platform CA is not the one that the ticket pins."""

    code = "platform-untrusted"


class AnswerInvalid(AgentError, Unavailable):
    """A service of the platform answers otherwise than its contract says."""

    code = "answer-invalid"


class AgentBusy(AgentError, Conflict):
    """An agent runs already on this state directory."""

    code = "agent-busy"


class DoorsBusy(AgentError, Unavailable):
    """As many doors to the site are open as there may be."""

    code = "doors-busy"


class NotAttested(AgentError, Forbidden):
    """There is no certificate, because the last round gave none."""

    code = "node-not-attested"


class LogRefused(AgentError, Refused):
    """The verifier shows a log that cannot have come from what we saw of it."""

    code = "log-refused"


class LogKeyChanged(LogRefused):
    """It is another log, has another key, or is not signed by it."""

    code = "log-key-changed"


class LogShrunk(LogRefused):
    """It is shorter than it was."""

    code = "log-shrunk"


class LogInconsistent(LogRefused):
    """It does not begin with what we saw."""

    code = "log-inconsistent"


class LogDistrusted(AgentError, Forbidden):
    """The log was refused before, and no operator has reset that."""

    code = "log-distrusted"


class StartUndecided(AgentError, Refused):
    """A start that differs from its decision, or that nobody could judge: it is not measured, and must not be."""

    code = "start-undecided"


class StartLogFull(AgentError, Refused):
    """So many starts were measured in this boot as there may be: of all tenants, or of one."""

    code = "start-log-full"


class StartLogDiverged(AgentError, Refused):
    """PCR 15 is not what the log of starts gives: nothing can be measured any more in this boot."""

    code = "start-log-diverged"
