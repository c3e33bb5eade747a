"""Wire formats of TPM 2.0 (TCG TPM 2.0 Library, Part 2): strict, bounded, and only what a verifier needs."""

__all__: list[str] = []
