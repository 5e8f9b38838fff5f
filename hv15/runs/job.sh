# Sourced by the shell of each job of the workflow, see job_shell.py.

# A request to stop goes to all processes of a job. The shell waits for what it started, which may be saving.
trap : HUP TERM

# Where `hv15` writes why it fails. Only the other end of the pipe knows the job's log, so it is moved from there.
# $$ is the job's shell in all parts of it.
export HV15_FAILURE=".hv15/failures/$HOSTNAME.$$"
if [ -e "$HV15_FAILURE" ]; then rm "$HV15_FAILURE"; fi # of another job, whose shell had this number

# What a job says goes to the terminal and to its log: COMMAND 2>&1 | logged LOG
# It outlives the job that it listens to, whatever stops that. A run that was started without `hv15 run` names in
# HV15_OUTPUT the file that keeps the output of all its jobs.
logged() {
    trap "" HUP INT TERM # of this end of the pipe alone
    failure="${1%.log}.failure.json"
    if [ -e "$failure" ]; then rm "$failure"; fi
    # A link may lead out of the project, into somebody's file.
    for file in "$1" ${HV15_OUTPUT:+"$HV15_OUTPUT"}; do
        if [ -L "$file" ]; then rm "$file"; fi
    done
    : >"$1"
    tee -a "$1" ${HV15_OUTPUT:+"$HV15_OUTPUT"} || :
    if [ -e "$HV15_FAILURE" ]; then mv "$HV15_FAILURE" "$failure"; fi
}
