"""Runs of the workflow: start them, watch them from outside, stop them, and keep what each was started from.

`.hv15/` in the project folder holds:

- run.lock: locked by the kernel (flock) as long as a run is alive; its text is the id of the run
- runs/<id>/run.json: who runs, where, since when, and by which command (`hv15.records.events`)
- runs/<id>/config.yaml: the config as it was at the start
- runs/<id>/events.jsonl: what happens to each job, written from inside Snakemake (`events.py`)
- runs/<id>/output.log: what Snakemake and its jobs printed (written by `output.py` if the run was started by hand)
- runs/<id>/metrics/: the numbers of its trainings, kept when it ends or the next run begins (`metrics.py`)
- runs/<id>/stop: exists once somebody has asked the run to stop

Whether a run is alive is read from the lock, never from a file that says so.
"""
