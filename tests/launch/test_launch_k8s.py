"""The JobSet: what Kubernetes will do with it, read back from the YAML."""

import pytest
import yaml

from launch.main import main


def rendered(capsys, *argv):
    assert main(["k8s", *argv]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def job_of(jobset):
    [only] = jobset["spec"]["replicatedJobs"]
    assert only["replicas"] == 1
    return only["template"]["spec"]


def test_pods_share_the_packs_by_their_index(capsys):
    jobset = rendered(capsys, "gs://bucket/study", "--jobs=16", "--parallel=4", "--image=registry/jaxdiff:1")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = job_of(jobset)
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 16, 4)
    [container] = job["template"]["spec"]["containers"]
    assert container["image"] == "registry/jaxdiff:1"
    words = ["jaxdiff", "work", "gs://bucket/study", "--shard=$(JOB_COMPLETION_INDEX)/16"]
    assert container["command"] + container["args"] == words


def test_a_study_of_this_machine_has_a_pod_for_each_unfinished_pack(capsys, make_study):
    study = make_study(5)
    study.finish("p0", "p3")
    assert job_of(rendered(capsys, str(study.folder), "--image=i"))["completions"] == 3


def test_stopped_and_evicted_pods_do_not_count_and_wrong_requests_end_all(capsys):
    jobset = rendered(capsys, "/runs/s", "--jobs=2", "--image=i", "--retries=5", "--max_restarts=7")
    job = job_of(jobset)
    assert job["backoffLimitPerIndex"] == 5
    assert job["template"]["spec"]["restartPolicy"] == "Never", "pod failure policies need it"
    [container] = job["template"]["spec"]["containers"]
    exits = [rule for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert {rule["onExitCodes"]["containerName"] for rule in exits} == {container["name"]}
    assert {(rule["action"], *rule["onExitCodes"]["values"]) for rule in exits} == {("Ignore", 75), ("FailJob", 2)}
    [evicted] = [rule for rule in job["podFailurePolicy"]["rules"] if "onPodConditions" in rule]
    assert evicted["action"] == "Ignore"
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget"
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    assert policy["rules"][0]["action"] == "FailJobSet", "a wrong request is as wrong after a restart"


def test_queue_devices_nodes_and_volumes(capsys):
    flags = ["--queue=research", "--namespace=lab", "--tpus=4", "--tpu_type=tpu-v6e-slice", "--topology=2x2"]
    more = ["--claim=runs:/runs", "--select=disk=fast", "--env=A=b=c", "--cpus=2.5", "--worker=env jaxdiff work"]
    jobset = rendered(capsys, "/runs/s", "--jobs=1", "--image=i", *flags, *more)
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "research"}
    assert jobset["metadata"]["namespace"] == "lab"
    pod = job_of(jobset)["template"]["spec"]
    assert pod["nodeSelector"] == {
        "disk": "fast",
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "2x2",
    }
    [container], [volume] = pod["containers"], pod["volumes"]
    assert container["resources"]["limits"] == {"cpu": "2.5", "memory": "16Gi", "google.com/tpu": "4"}
    assert container["env"] == [{"name": "A", "value": "b=c"}]
    assert container["command"] == ["env", "jaxdiff", "work"]
    assert container["volumeMounts"] == [{"name": volume["name"], "mountPath": "/runs"}]
    assert volume["persistentVolumeClaim"] == {"claimName": "runs"}


def test_out_writes_a_file_and_a_dry_run_does_not(capsys, tmp_path):
    path = tmp_path / "study.yaml"
    flags = ["k8s", "/runs/s", "--jobs=1", "--image=i", f"--out={path}"]
    assert main([*flags, "--dry_run"]) == 0
    assert not path.exists()
    shown = yaml.safe_load(capsys.readouterr().out)
    assert main(flags) == 0
    assert yaml.safe_load(path.read_text()) == shown


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--jobs=0", "--jobs=0 must be at least 1"),
        ("--retries=-1", "--retries=-1 must be at least 0"),
        ("--name=My_Study", "--name=My_Study must be"),
        ("--claim=runs", "--claim=runs must be NAME:/PATH"),
        ("--env=A", "--env=A must be KEY=VALUE"),
    ],
)
def test_wrong_flags_say_what_is_allowed(flag, message):
    with pytest.raises(ValueError, match=message):
        main(["k8s", "/runs/s", "--jobs=1", "--image=i", flag])
