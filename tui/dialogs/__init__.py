"""Dialogs, which lie over a screen, one in each file."""
