"""Tickets: an operator's word, made once, that the TPM with this endorsement key is that asset of a tenant.

A ticket is text that somebody carries to the node; an allowed TPM is the same word without the text, found by the
endorsement key. Either serves one enrolment.
"""
