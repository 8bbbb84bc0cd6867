#!/usr/bin/env bash
# Start a real one-node Slurm on this machine, to try the experiments on a cluster. Only this machine can reach it.
#
#     apt-get install slurm-wlm munge              # Debian, Ubuntu
#     experiments/slurm/start.sh FOLDER            # FOLDER is for keys, state and logs; a second call restarts Slurm
#     export SLURM_CONF=FOLDER/slurm.conf
#     python scripts/reproduce.py --quick --only moore --executor slurm --profile experiments/slurm/profile
#     experiments/slurm/stop.sh FOLDER
set -euo pipefail
mkdir -p "${1:?a folder for the keys, the state and the logs}"
folder=$(cd "$1" && pwd)
"$(dirname "${BASH_SOURCE[0]}")/stop.sh" "$folder"
chmod 700 "$folder"
mkdir -p "$folder/state" "$folder/spool"
host=$(hostname -s) user=$(id -un)
memory=$(awk '/^MemTotal/ {print int(0.9 * $2 / 1024)}' /proc/meminfo) # MB

(umask 077 && [ -e "$folder/munge.key" ] || head -c 1024 /dev/urandom >"$folder/munge.key")
munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" --force

# Snakemake removes SLURM_CONF from the environment of a job's srun, so jobs get an srun that restores it.
mkdir -p "$folder/bin"
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$folder/slurm.conf" "$(command -v srun)" >"$folder/bin/srun"
printf '#!/bin/sh\necho "export PATH=%s:$PATH"\n' "$folder/bin" >"$folder/task_prolog"
chmod 755 "$folder/bin/srun" "$folder/task_prolog"

cat >"$folder/slurm.conf" <<END
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog=$folder/task_prolog
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/completed.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
MinJobAge=3600
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF=$folder/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
    sleep 0.2
done
sinfo
echo "export SLURM_CONF=$SLURM_CONF"
