"""`jaxdiff launch k8s DIR --image=IMAGE`: a JobSet for Kubernetes, as YAML; with Kueue if a queue is named.

One Indexed Job of --jobs=N pods; pod I works on shard I/N. A pod that is evicted, or that was told to stop and has
saved (exit code 75), comes back without counting as a failure; one that fails comes back --retries times, and does not
end the others. Exit code 2, a wrong request, ends the JobSet. DIR is where the pods see the study: a bucket's URL, or a
folder on a volume that --claim mounts. Nothing is sent to a cluster from here:

  jaxdiff launch k8s gs://bucket/study --jobs=16 --image=IMAGE --gpus=1 --queue=research | kubectl apply -f -
  jaxdiff launch k8s /runs/study --claim=runs:/runs --jobs=16 --image=IMAGE --tpus=4 --tpu_type=tpu-v6e-slice
    --topology=2x2 --out=study.yaml

The cluster needs the JobSet controller (jobset.x-k8s.io/v1alpha2).
"""

import argparse
from pathlib import Path
import re
import shlex
from typing import Any

from .study import REQUEST_WAS_WRONG, REQUEUE
from .worker import add_flags as add_worker_flags
from .worker import check_count, count_shards, parse_pairs

SECONDS_TO_SAVE = 120


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this engine."""
    parser.add_argument("--image", required=True, help="container image with jaxdiff")
    add_worker_flags(parser)
    parser.add_argument("--parallel", type=int, help="most pods that run at once (default: all)")
    parser.add_argument("--name", default="jaxdiff", help="of the JobSet (default jaxdiff)")
    parser.add_argument("--namespace", help="of the JobSet")
    parser.add_argument("--queue", help="of Kueue: its LocalQueue")
    parser.add_argument("--retries", type=int, default=3, help="of a failing pod (default 3)")
    parser.add_argument("--max_restarts", type=int, default=3, help="of the whole JobSet (default 3)")
    parser.add_argument("--cpus", type=float, default=4, help="per pod")
    parser.add_argument("--mem_gb", type=int, default=16, help="memory per pod")
    parser.add_argument("--gpus", type=int, default=0, help="NVIDIA GPUs per pod")
    parser.add_argument("--tpus", type=int, default=0, help="TPU chips per pod")
    parser.add_argument("--tpu_type", help="of GKE, e.g. tpu-v6e-slice")
    parser.add_argument("--topology", help="of GKE's TPU slice, e.g. 2x2")
    parser.add_argument("--select", action="append", default=[], metavar="KEY=VALUE", help="node label; repeatable")
    parser.add_argument("--env", action="append", default=[], metavar="KEY=VALUE", help="of the pods; repeatable")
    parser.add_argument("--claim", metavar="NAME:PATH", help="a PersistentVolumeClaim and where pods see it")
    parser.add_argument("--out", help="file to write (default: print)")


def run(folder: str, arguments: argparse.Namespace) -> int:
    """Prints or writes the YAML; with --dry_run always prints.

    Raises:
      ValueError: a flag is out of range.
    """
    text = as_yaml(jobset(folder, arguments))
    if arguments.out is None or arguments.dry_run:
        print(text, end="")
    else:
        Path(arguments.out).write_text(text)
        print(f"wrote {arguments.out}: kubectl apply -f {arguments.out}")
    return 0


def as_yaml(value: dict[str, Any]) -> str:
    """YAML in the order of the dict; PyYAML comes with ml-collections."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, width=120))


def jobset(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """The JobSet.

    Raises:
      ValueError: a flag is out of range, or nothing says how many pods.
    """
    # The pods' folder need not be one of this machine's.
    jobs = arguments.jobs if arguments.jobs is not None else max(count_shards(folder, None), 1)
    parallel = arguments.parallel if arguments.parallel is not None else jobs
    for flag, value in (("--jobs", jobs), ("--parallel", parallel)):
        check_count(flag, value)
    for flag, value in (("--retries", arguments.retries), ("--max_restarts", arguments.max_restarts)):
        check_count(flag, value, 0)
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", arguments.name):
        raise ValueError(f"--name={arguments.name} must be at most 40 of a-z, 0-9 and -, and begin with a letter.")
    metadata: dict[str, Any] = {"name": arguments.name}
    if arguments.namespace:
        metadata["namespace"] = arguments.namespace
    if arguments.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": arguments.queue}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": arguments.max_restarts,
                "rules": [{"name": "wrong", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [
                {"name": "work", "replicas": 1, "template": {"spec": job(folder, arguments, jobs, parallel)}}
            ],
        },
    }


def job(folder: str, arguments: argparse.Namespace, jobs: int, parallel: int) -> dict[str, Any]:
    """The Job's spec."""

    def on_exit(action: str, code: int) -> dict[str, Any]:
        return {"action": action, "onExitCodes": {"containerName": "work", "operator": "In", "values": [code]}}

    return {
        "completionMode": "Indexed",
        "completions": jobs,
        "parallelism": parallel,
        "backoffLimitPerIndex": arguments.retries,
        "podFailurePolicy": {
            "rules": [
                on_exit("Ignore", REQUEUE),
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                on_exit("FailJob", REQUEST_WAS_WRONG),
            ]
        },
        "template": {"spec": pod(folder, arguments, jobs)},
    }


def pod(folder: str, arguments: argparse.Namespace, jobs: int) -> dict[str, Any]:
    """The pod's spec. Kubernetes puts the pod's index in the place of $(JOB_COMPLETION_INDEX)."""
    devices = {"nvidia.com/gpu": arguments.gpus, "google.com/tpu": arguments.tpus}
    wanted = {"cpu": f"{arguments.cpus:g}", "memory": f"{arguments.mem_gb}Gi"}
    wanted |= {name: str(count) for name, count in devices.items() if count}
    container: dict[str, Any] = {
        "name": "work",
        "image": arguments.image,
        "command": shlex.split(arguments.worker or "jaxdiff work"),
        "args": [folder, f"--shard=$(JOB_COMPLETION_INDEX)/{jobs}"],
        "resources": {"requests": wanted, "limits": dict(wanted)},
    }
    if environment := parse_pairs("--env", arguments.env):
        container["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    spec: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": SECONDS_TO_SAVE}
    selector = parse_pairs("--select", arguments.select)
    labels = {"tpu-accelerator": arguments.tpu_type, "tpu-topology": arguments.topology}
    selector |= {f"cloud.google.com/gke-{name}": value for name, value in labels.items() if value}
    if selector:
        spec["nodeSelector"] = selector
    if arguments.claim:
        name, _, path = arguments.claim.partition(":")
        if not (name and path.startswith("/")):
            raise ValueError(f"--claim={arguments.claim} must be NAME:/PATH.")
        container["volumeMounts"] = [{"name": "study", "mountPath": path}]
        spec["volumes"] = [{"name": "study", "persistentVolumeClaim": {"claimName": name}}]
    return spec | {"containers": [container]}
