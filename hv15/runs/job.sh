# Sourced by the shell of each job of the workflow, see job_shell.py.

# A request to stop reaches all processes of a job. The shell waits for the command that it started, which may be saving.
trap : HUP TERM

# Runs a job: job LOG COMMAND [ARGUMENT ...]
# Its output goes to the terminal and to its log, whose name begins with the rule's. If it fails, `hv15` writes why into
# the file named by HV15_FAILURE.
job() {
    local log="$1" name="${1##*/}"
    export HV15_RULE="${name%%.*}" HV15_FAILURE="${log%.log}.failure.json"
    shift
    if [ -e "$HV15_FAILURE" ]; then rm "$HV15_FAILURE"; fi # left by an earlier attempt
    "$@" 2>&1 | logged "$log"
}

# Copies its input to the terminal and to a log. It outlives the command, whatever stops that. A run that was started
# without `hv15 run` names in HV15_OUTPUT a file that gets the output of all its jobs.
logged() {
    trap "" HUP INT TERM # for this end of the pipe only
    # A link may lead out of the project, to somebody else's file.
    for file in "$1" ${HV15_OUTPUT:+"$HV15_OUTPUT"}; do
        if [ -L "$file" ]; then rm "$file"; fi
    done
    : >"$1"
    tee -a "$1" ${HV15_OUTPUT:+"$HV15_OUTPUT"} || :
}

# copy FROM ... TO ...: each TO is complete at any moment.
copy() {
    local count=$(($# / 2)) place
    for place in $(seq "$count"); do
        local from="${@:place:1}" to="${@:place+count:1}"
        cp "$from" "$to.part" && mv "$to.part" "$to" || return
    done
}

# taken FILE TO COMMAND [ARGUMENT ...]: FILE, which the job of a shard has made, becomes TO; if there is none, the command
# makes it. FILE is what this job has to make: whatever is not was removed when the workflow was planned.
# With `--twin SAME` among its arguments no command is started, since SAME, which another run has made, is copied.
taken() {
    local file="$1" to="$2" word before=""
    shift 2
    if [ -e "$file" ]; then
        mv -T "$file" "$to" && touch "$to" && echo "made by the job of its shard"
        return
    fi
    for word in "$@"; do
        if [ "$before" = --twin ]; then
            rm -rf "$to.part" && cp -rT "$word" "$to.part" && mv -T "$to.part" "$to" || return
            echo "copied from $word, which is the same"
            return
        fi
        before="$word"
    done
    "$@"
}
