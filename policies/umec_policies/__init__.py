"""The Cedar policy engine and the default policy sets."""
