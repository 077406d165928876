#!/bin/sh
# start_slurm.sh DIR        a private Slurm of one node, this machine, with all its files in DIR; prints what to export
# start_slurm.sh DIR stop   ends what the first call started
# Needs root, since slurmd starts jobs as their users. Debian and Ubuntu: installs slurm-wlm and munge if they are missing.
set -eu
DIR=$1

if [ "${2:-start}" = stop ]; then
  for name in slurmd slurmctld munged; do
    if [ -f "$DIR/$name.pid" ]; then kill "$(cat "$DIR/$name.pid")" 2>/dev/null || true; fi
  done
  exit 0
fi

if [ "$(id -u)" != 0 ]; then echo "start_slurm.sh: only root can start a private Slurm" >&2; exit 1; fi
PATH=$PATH:/usr/sbin:/sbin
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  command -v apt-get >/dev/null || { echo "start_slurm.sh: install Slurm and munge first" >&2; exit 1; }
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; } >&2
fi

mkdir -p "$DIR/state" "$DIR/spool"
chmod 755 "$DIR"
head -c 1024 /dev/urandom > "$DIR/munge.key"
chmod 600 "$DIR/munge.key"
munged --force --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" --pid-file="$DIR/munged.pid" \
  --log-file="$DIR/munged.log" --seed-file="$DIR/munge.seed" >&2

# Two ports that are free now.
PORTS=$(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
[one.bind(("127.0.0.1", 0)) for one in held]
print(*(one.getsockname()[1] for one in held))')
cat > "$DIR/slurm.conf" <<CONF
ClusterName=private
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${PORTS% *}
SlurmdPort=${PORTS#* }
AuthType=auth/munge
AuthInfo=socket=$DIR/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$DIR/slurm.conf"
slurmctld >&2
slurmd -N "$(hostname -s)" >&2

for _ in $(seq 60); do
  if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
    echo "export SLURM_CONF=$SLURM_CONF"
    exit 0
  fi
  sleep 0.5
done
echo "start_slurm.sh: the node did not become idle; see $DIR/slurmctld.log and $DIR/slurmd.log" >&2
exit 1
