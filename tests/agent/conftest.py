"""The software TPM of umec_attest.testing for the agent's tests."""

from umec_attest.testing.plugin import software_node, software_tpm

__all__ = ["software_node", "software_tpm"]
