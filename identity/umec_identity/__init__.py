"""The OAuth 2.0 authorization server and the platform CA."""
