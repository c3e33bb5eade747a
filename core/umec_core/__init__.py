"""What every area stands on: errors, settings, store, log, tokens, server."""
