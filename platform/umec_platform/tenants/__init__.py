"""Who shares the host: tenants and what is granted to them."""
