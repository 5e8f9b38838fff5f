"""Typed records of everything that one process writes and another reads.

The workflow and the dashboard are separate processes; writers and readers use the same classes. The package is pure
Python without torch, and of hv15's higher layers it imports only errors and digests.
"""
