#!/usr/bin/env bash
# Stop the Slurm that start.sh started with this folder.
set -euo pipefail
folder=${1:?the folder that start.sh was given}
for daemon in slurmd slurmctld munged; do
    file=$folder/$daemon.pid
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    rm -f "$file"
done
