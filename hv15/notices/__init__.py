"""Notices of a run's end, failure or stall, by ntfy, a webhook or a command. A notice never changes what a run does.

- mentioned: whether anything says a word about notices
- settings: the project's settings joined with the user's own
- wording: what is told of a run
- delivery: sends it, within a minute
- readiness: what is missing on this machine to send it
- follower: starts a process that follows a run, from inside the run
- detached, watch: that process, which outlives the run
- progress: whether the run goes on
"""
