"""`jaxdiff launch tpu_vm DIR --name=NAME --zone=ZONE`: a worker on every host of a Cloud TPU slice, by gcloud's ssh.

Without --distributed each host works by itself on its shard of the packs (--hosts=N of them), and must be told that it
is alone where the slice has several hosts, e.g. --env=TPU_PROCESS_BOUNDS=1,1,1
--env=TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1. With --distributed all hosts run one program over the whole slice. The command
is given again, --retries times in a row, when it ends with anything but 0 or 2 (a slice that is pre-empted, a worker
that was stopped), since `jaxdiff work` goes on from its checkpoints.

  jaxdiff launch tpu_vm gs://bucket/study --name=my-slice --zone=us-east5-a --distributed

jaxdiff is installed on the hosts beforehand, and DIR is what they see: a bucket's URL or a mounted folder.
"""

import argparse
import shlex
import subprocess
import time

from .study import REQUEST_WAS_WRONG, REQUEUE
from .worker import check_count, parse_pairs

# TPU VMs know their number from the metadata server; GKE and some images have it in TPU_WORKER_ID.
INDEX = (
    "${TPU_WORKER_ID:-$(curl -sf -H Metadata-Flavor:Google "
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number)}"
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this engine."""
    parser.add_argument("--name", required=True, help="of the TPU VM")
    parser.add_argument("--zone", required=True, help="of the TPU VM")
    parser.add_argument("--project", help="of Google Cloud")
    parser.add_argument("--distributed", action="store_true", help="one program over all hosts")
    parser.add_argument("--hosts", type=int, default=1, help="hosts of the slice, which share the packs (default 1)")
    parser.add_argument("--worker", help='what stands before DIR in a worker\'s command (default: "jaxdiff work")')
    parser.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line before; repeatable")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="of the workers; repeatable")
    parser.add_argument("--retries", type=int, default=10, help="times in a row (default 10)")
    parser.add_argument("--pause", type=float, default=30.0, help="seconds before each (default 30)")


def run(folder: str, arguments: argparse.Namespace) -> int:
    """Runs the command on all hosts until it ends well.

    Raises:
      ValueError: a flag is out of range, or there is no gcloud.
    """
    words = gcloud(folder, arguments)
    check_count("--retries", arguments.retries, 0)
    if arguments.dry_run:
        print(shlex.join(words))
        return 0
    for attempt in range(arguments.retries + 1):
        if attempt:
            time.sleep(arguments.pause)
        try:
            code = subprocess.run(words, check=False).returncode
        except FileNotFoundError:
            raise ValueError("no gcloud here; install the Google Cloud CLI, or see the line with --dry_run.") from None
        if code in (0, REQUEST_WAS_WRONG):
            return code
        print(f"attempt {attempt + 1} of {arguments.retries + 1} ended with {code}", flush=True)
    return REQUEUE if code == REQUEUE else 1


def gcloud(folder: str, arguments: argparse.Namespace) -> list[str]:
    """The words of gcloud's ssh to all hosts.

    Raises:
      ValueError: a flag is out of range.
    """
    place = [f"--zone={arguments.zone}", *([f"--project={arguments.project}"] if arguments.project else [])]
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", arguments.name, *place, "--worker=all"]
    return [*ssh, f"--command={remote(folder, arguments)}"]


def remote(folder: str, arguments: argparse.Namespace) -> str:
    """The shell line of each host."""
    check_count("--hosts", arguments.hosts)
    environment = " ".join(f"{key}={shlex.quote(value)}" for key, value in parse_pairs("--env", arguments.env).items())
    shard = "" if arguments.hosts == 1 else f' --shard="{INDEX}/{arguments.hosts}"'
    how = " --distributed" if arguments.distributed else shard
    work = f"{arguments.worker or 'jaxdiff work'} {shlex.quote(folder)}{how}"
    return " && ".join([*arguments.setup, f"{environment} {work}".strip()])
