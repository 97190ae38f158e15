"""Jobs on the local cluster: their ends, their logs, and what stops them or starts them again."""

import os
import signal

from integration.local_cluster.workloads import Namespace, claim, job, running_pods, stored


def test_a_job_runs_to_completion_and_its_log_can_be_followed(here: Namespace) -> None:
    here.apply(job("hello", "echo one; sleep 0.3; echo two"))
    here.wait_until(lambda: here.pods("job-name=hello"), "the pod is there")
    here.wait_until(lambda: here.pods("job-name=hello")[0]["status"].get("startTime"), "the pod runs")
    here.wait_until(lambda: "waiting to start" not in here.kubectl("logs", "job/hello", check=False), "it has a log")
    assert here.kubectl("logs", "-f", "job/hello").splitlines() == ["one", "two"]
    here.wait_for_condition("job/hello", "Complete")
    (pod,) = here.pods("job-name=hello")
    state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (pod["status"]["phase"], state["exitCode"], state["reason"]) == ("Succeeded", 0, "Completed")
    assert here.get("job", "hello")["status"]["succeeded"] == 1


def test_logs_go_on_exactly_after_a_time_that_was_seen(here: Namespace) -> None:
    here.apply(job("lines", "for i in 1 2 3 4 5; do echo line $i; done"))
    here.wait_for_condition("job/lines", "Complete")
    stamped = here.kubectl("logs", "job/lines", "--timestamps").splitlines()
    moments = [line.partition(" ")[0] for line in stamped]
    assert moments == sorted(set(moments))
    assert [line.partition(" ")[2] for line in stamped] == [f"line {number}" for number in range(1, 6)]
    assert here.kubectl("logs", "job/lines", "--tail=2").splitlines() == ["line 4", "line 5"]
    path = f"/api/v1/namespaces/{here.name}/pods/{here.pods('job-name=lines')[0]['metadata']['name']}/log"
    later = here.kubectl("get", "--raw", f"{path}?sinceTime={moments[3]}").splitlines()  # kubectl logs sends seconds
    assert later == ["line 4", "line 5"]
    assert here.kubectl("logs", "job/lines", "--limit-bytes=6") == "line 1"


def test_a_killed_process_is_a_failure_and_the_next_pod_takes_over(here: Namespace) -> None:
    script = "test -e $STORE/ran && exit 0; touch $STORE/ran; echo left a mark; sleep 60"
    here.apply(job("train", script, **stored("store")), claim("store"))
    here.wait_until(lambda: "left a mark" in here.kubectl("logs", "job/train", check=False), "the first pod runs")
    (pod,) = here.pods("job-name=train")
    (pid,) = here.cluster.processes_of(pod["metadata"]["uid"])
    os.kill(pid, signal.SIGKILL)
    here.wait_for_condition("job/train", "Complete")
    status = here.get("job", "train")["status"]
    assert (status["failed"], status["succeeded"]) == (1, 1)
    first = here.get("pod", pod["metadata"]["name"])["status"]
    assert first["phase"] == "Failed"
    assert first["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


def test_a_job_that_keeps_failing_gives_up_at_its_limit(here: Namespace) -> None:
    here.apply(job("bad", "echo no; exit 3", backoffLimit=2))
    here.wait_for_condition("job/bad", "Failed")
    failed = next(found for found in here.get("job", "bad")["status"]["conditions"] if found["type"] == "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert len(here.pods("job-name=bad")) == 3


def test_an_exit_code_of_the_failure_policy_ends_the_job_at_once(here: Namespace) -> None:
    policy = {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64]}}]}
    here.apply(job("pointless", 'printf \'{"reason": "x"}\' > /dev/termination-log; exit 64', podFailurePolicy=policy))
    here.wait_for_condition("job/pointless", "Failed")
    (pod,) = here.pods("job-name=pointless")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["message"]) == (64, '{"reason": "x"}')


def test_an_indexed_job_runs_every_index_once(here: Namespace) -> None:
    here.apply(job("idx", "echo index $JOB_COMPLETION_INDEX", completionMode="Indexed", completions=3, parallelism=3))
    here.wait_for_condition("job/idx", "Complete")
    assert here.get("job", "idx")["status"]["completedIndexes"] == "0-2"
    texts = {here.kubectl("logs", pod["metadata"]["name"]).strip() for pod in here.pods("job-name=idx")}
    assert texts == {"index 0", "index 1", "index 2"}


def test_suspending_a_job_stops_its_processes_and_resuming_starts_it_again(here: Namespace) -> None:
    here.apply(job("slow", "sleep 60", pod={"terminationGracePeriodSeconds": 1}))
    (pod,) = here.wait_until(lambda: running_pods(here, "job-name=slow"), "it runs")
    (pid,) = here.cluster.processes_of(pod["metadata"]["uid"])
    here.kubectl("patch", "job", "slow", "--type=merge", "-p", '{"spec":{"suspend":true}}')
    here.wait_for_condition("job/slow", "Suspended")
    here.wait_until(lambda: not here.pods("job-name=slow"), "the pod is gone")
    assert not os.path.exists(f"/proc/{pid}")
    assert "failed" not in here.get("job", "slow")["status"]
    here.kubectl("patch", "job", "slow", "--type=merge", "-p", '{"spec":{"suspend":false}}')
    here.wait_until(lambda: running_pods(here, "job-name=slow"), "it runs again")


def test_a_finished_job_with_a_time_to_live_disappears_with_its_pods(here: Namespace) -> None:
    here.apply(job("brief", "true", ttlSecondsAfterFinished=1))
    here.wait_until(lambda: here.pods("job-name=brief"), "it ran")
    here.wait_until(lambda: not here.get("jobs")["items"], "the Job is gone")
    here.wait_until(lambda: not here.pods("job-name=brief"), "its pod is gone")


def test_a_deadline_stops_a_job(here: Namespace) -> None:
    here.apply(job("late", "sleep 60", activeDeadlineSeconds=1, pod={"terminationGracePeriodSeconds": 1}))
    here.wait_for_condition("job/late", "Failed")
    failed = next(found for found in here.get("job", "late")["status"]["conditions"] if found["type"] == "Failed")
    assert failed["reason"] == "DeadlineExceeded"
