"""Tokens: their texts, their issuance, the token endpoint."""
