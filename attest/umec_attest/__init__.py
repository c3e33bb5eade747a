"""Remote attestation: wire formats, appraisal, enrolment, the agent and the service."""
