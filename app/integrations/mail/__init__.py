"""Sending mail: a port, an adapter for SMTP, and one that writes files."""
