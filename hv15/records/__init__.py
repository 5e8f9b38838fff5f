"""What crosses a process, as typed records: what one process writes and another reads is declared here, once.

The workflow is many processes, and a dashboard beside them. Writers and readers use the same classes. Pure Python: no
torch, and nothing of hv15 above it but the errors and the digests.
"""
