"""The queue of this machine: projects that run one after the other, or several at once, also when nobody is logged in.

A folder of this user (`queue_file.queue_folder`) holds:

- queue.json: the projects, in their order, and how they are run (`hv15.records.queue`)
- queue.lock: locked by whoever changes queue.json
- worker.lock: locked by the worker as long as it lives; its text is the worker's pid
- worker.log: what the worker did

The worker is a process of its own. It starts each project as `hv15 run` does, and gives the run's id to the queue
beforehand: whatever happens to the worker, the next one finds the run, and starts no project twice.
"""
