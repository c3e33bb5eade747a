"""Well-known documents."""
