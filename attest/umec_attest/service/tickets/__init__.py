"""Tickets: an operator's word, made once, that the TPM with this endorsement key is that asset of a tenant."""
