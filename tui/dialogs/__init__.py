"""Screens that lie over another one for a moment, one a file."""
