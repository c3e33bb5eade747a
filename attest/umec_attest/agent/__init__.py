"""The agent on a node: it collects evidence from the TPM, dials out to the verifier and renews its credentials.

It needs no web framework and no database, and a test proves it.
"""
