# Sourced by the shell of each job of the workflow, see job_shell.py.

# A request to stop reaches all processes of a job. The shell waits for the command that it started, which may be saving.
trap : HUP TERM

# Where `hv15` writes why it fails. Only the other end of the pipe knows the job's log, so it is moved from there.
# $$ is the job's shell, also inside a pipe.
export HV15_FAILURE=".hv15/failures/$HOSTNAME.$$"
if [ -e "$HV15_FAILURE" ]; then rm "$HV15_FAILURE"; fi # left by another job whose shell had this pid

# A job's output goes to the terminal and to its log: COMMAND 2>&1 | logged LOG
# `logged` outlives the command, whatever stops that. A run that was started without `hv15 run` names in HV15_OUTPUT a
# file that gets the output of all its jobs.
logged() {
    trap "" HUP INT TERM # for this end of the pipe only
    failure="${1%.log}.failure.json"
    if [ -e "$failure" ]; then rm "$failure"; fi
    # A link may lead out of the project, to somebody else's file.
    for file in "$1" ${HV15_OUTPUT:+"$HV15_OUTPUT"}; do
        if [ -L "$file" ]; then rm "$file"; fi
    done
    : >"$1"
    tee -a "$1" ${HV15_OUTPUT:+"$HV15_OUTPUT"} || :
    if [ -e "$HV15_FAILURE" ]; then mv "$HV15_FAILURE" "$failure"; fi
}
