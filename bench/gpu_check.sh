#!/usr/bin/env bash
# The self-test on a bare machine: torch, no network, this tree unpacked, nothing installed and nothing left behind.
#
#     bench/gpu_check.sh [FOLDER [WHEELS]]
#
# FOLDER gets the report and everything else that is written; by default $OUT, or ./report. WHEELS is a folder of
# wheels for what the machine lacks of pydantic, safetensors, einops and numpy (and of bitsandbytes, transformers,
# matplotlib, nvidia-ml-py, flash-attn, ..., without which some checks are skipped); by default $WHEELS. MINUTES is the
# time for the checks (7), PYTHON the interpreter (python3). It ends after 8 minutes at the latest, and the report is
# readable whenever it ends. `hv15 plan --rates FOLDER/rates.json` plans with what was measured. The exit code is that
# of the self-test: 1 if a check failed, 124 if the time was over.
set -u

tree=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-${OUT:-report}}
wheels=${2:-${WHEELS:-}}
python=${PYTHON:-python3}
most=470 # seconds for all; then 10 more until the kernel ends what is still there
mkdir -p "$folder" || exit 2
folder=$(cd "$folder" && pwd)
scratch=$(mktemp -d "$folder/scratch.XXXXXX") || exit 2
trap 'rm -rf "$scratch"' EXIT
exec > >(tee -i "$folder/output.txt") 2>&1

# Packages that were installed by `pip install --user` are found although HOME is another folder
export PYTHONUSERBASE=${PYTHONUSERBASE:-${HOME:-/root}/.local}
# Whatever a library would keep in the home folder or in /tmp
export HOME=$scratch TMPDIR=$scratch XDG_CACHE_HOME=$scratch XDG_CONFIG_HOME=$scratch
export TRITON_CACHE_DIR=$scratch/triton TORCHINDUCTOR_CACHE_DIR=$scratch/inductor
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export PYTHONPATH=$tree${PYTHONPATH:+:$PYTHONPATH}

if [ -n "$wheels" ]; then
    : > "$folder/pip.txt"
    # One at a time: pip installs none of several if one is for another Python
    for wheel in "$wheels"/*.whl; do
        [ "$SECONDS" -lt 240 ] || break
        timeout 60 "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
            --target "$scratch/packages" "$wheel" 2>> "$folder/pip.txt" ||
            echo "$wheel cannot be installed: see $folder/pip.txt"
    done
    export PYTHONPATH=$tree:$scratch/packages${PYTHONPATH#"$tree"}
fi

{ timeout 10 nvidia-smi; timeout 10 nvidia-smi -q; timeout 10 nvidia-smi topo -m; } > "$folder/nvidia-smi.txt" 2>&1
timeout 30 "$python" -m torch.utils.collect_env > "$folder/environment.txt" 2>&1

# What the preparation took is not left for the checks, nor half a minute to import torch and to end
left=$((most - SECONDS))
minutes=$(awk -v wanted="${MINUTES:-7}" -v left="$left" \
    'BEGIN { most = (left - 30) / 60; print (wanted + 0 > most ? most : wanted) }')

# TERM ends it at once; the kernel's KILL is for a hung driver. `timeout` has a process group of its own, which Ctrl-C
# does not reach, so it is passed on.
timeout --signal=TERM --kill-after=10 "$left" \
    "$python" -m hv15.selftest --minutes "$minutes" --report-only --out "$folder" &
check=$!
trap 'kill -INT "$check" 2> /dev/null' INT TERM HUP
wait "$check"
code=$?
while kill -0 "$check" 2> /dev/null; do # the wait was interrupted
    wait "$check"
    code=$?
done
[ -f "$folder/rates.json" ] && echo "for plans: hv15 plan --rates $folder/rates.json"
exit "$code"
