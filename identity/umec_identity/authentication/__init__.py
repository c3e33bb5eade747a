"""Client authentication methods: private_key_jwt, and attestation."""
