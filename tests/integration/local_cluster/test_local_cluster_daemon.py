"""The life of the daemon: starting, being killed, coming back, stopping with all its pods."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from codetune_local.daemon.state import StateError, StateFolder
from codetune_local.daemon.trial import TrialCluster, cluster

Obj = dict[str, Any]


def run_codetune(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command itself, as a person calls it."""
    command = [sys.executable, "-m", "codetune_local.main", "local", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def pod(name: str, script: str, **spec: Any) -> Obj:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    body = {"containers": [container], "terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def wait_until_running(running: TrialCluster, name: str) -> Obj:
    running.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=20s")
    found: Obj = running.get("pod", name)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_pods_outlive_a_killed_daemon_and_the_next_one_takes_them_over(tmp_path: Path) -> None:
    with cluster(tmp_path / "state") as running:
        script = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.05; done"
        brief = "trap 'echo bye; exit 5' USR1; echo ready; while true; do sleep 0.05; done"
        running.apply(pod("counter", script), pod("brief", brief, restartPolicy="Never"))
        before, other = wait_until_running(running, "counter"), wait_until_running(running, "brief")["metadata"]["uid"]
        running.wait_for(lambda: "ready" in running.kubectl("logs", "brief"), "the other pod can be told to end")
        (pid,), (ending,) = running.processes_of(before["metadata"]["uid"]), running.processes_of(other)
        running.kill_daemon()
        os.kill(ending, signal.SIGUSR1)
        running.wait_for(lambda: not running.processes_of(other), "the other pod ended unseen")
        assert is_alive(pid)
        running.start()
        running.wait_for(lambda: running.get("pod", "brief")["status"]["phase"] == "Failed", "its end is told")
        ended = running.get("pod", "brief")["status"]["containerStatuses"][0]["state"]["terminated"]
        assert ended["exitCode"] == 5
        assert running.kubectl("logs", "brief").split() == ["ready", "bye"]
        after = wait_until_running(running, "counter")
        assert running.processes_of(after["metadata"]["uid"]) == [pid]
        assert after["status"]["podIP"] == before["status"]["podIP"]
        assert after["status"]["containerStatuses"][0]["restartCount"] == 0
        numbers = [int(line.split()[1]) for line in running.kubectl("logs", "counter").splitlines()]
        assert numbers == list(range(1, len(numbers) + 1)), "no line was lost"


def test_a_container_whose_supervisor_was_killed_unseen_is_told_as_lost(tmp_path: Path) -> None:
    with cluster(tmp_path / "state", "--restart-backoff", "0.2") as running:
        running.apply(pod("victim", "sleep 60"))
        before = wait_until_running(running, "victim")
        (pid,) = running.processes_of(before["metadata"]["uid"])
        shim = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        running.kill_daemon()
        os.kill(shim, 9)
        running.start()

        def status() -> Obj:
            found: Obj = running.get("pod", "victim")["status"]["containerStatuses"][0]
            return found

        running.wait_for(lambda: status()["restartCount"] == 1, "it is restarted")
        assert status()["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
        assert not is_alive(pid)


def test_pods_that_were_deleted_while_no_daemon_ran_are_ended_by_the_next(tmp_path: Path) -> None:
    with cluster(tmp_path / "state") as running:
        running.apply(pod("victim", "sleep 60"))
        (pid,) = running.processes_of(wait_until_running(running, "victim")["metadata"]["uid"])
        running.kill_daemon()
        (tmp_path / "state" / "cluster.sqlite").unlink()
        running.start()
        running.wait_for(lambda: not is_alive(pid), "the process is gone")


def test_down_stops_every_process_and_up_goes_on_where_it_was(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run_codetune("up", "--state", str(state), "--gpus", "1").returncode == 0
    running = open_cluster(state)
    try:
        running.apply(pod("stays", "trap '' TERM; setsid sleep 60 & sleep 60"), pod("goes", "sleep 60"))
        pids = [*processes(running, "stays"), *processes(running, "goes")]
        assert "stays" in run_codetune("status", "--state", str(state)).stdout
        stopped = run_codetune("down", "--state", str(state))
        assert stopped.stdout == "Stopped; nothing runs any more.\n"
        assert [pid for pid in pids if is_alive(pid)] == []
        assert run_codetune("up", "--state", str(state), "--gpus", "1").returncode == 0
        status = running.get("pod", "goes")["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "Terminated")
        assert "DisruptionTarget" in [found["type"] for found in status["conditions"]]
        assert running.get("node", "codetune-local")["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    finally:
        run_codetune("down", "--state", str(state), "--delete")
    assert not state.exists()


def open_cluster(state: Path) -> TrialCluster:
    return TrialCluster(StateFolder(state))


def processes(running: TrialCluster, name: str) -> list[int]:
    return running.processes_of(wait_until_running(running, name)["metadata"]["uid"])


def test_down_ends_what_a_killed_daemon_left_behind(tmp_path: Path) -> None:
    with cluster(tmp_path / "state") as running:
        running.apply(pod("left", "sleep 60"))
        (pid,) = processes(running, "left")
        running.kill_daemon()
        assert is_alive(pid)
        assert run_codetune("down", "--state", str(tmp_path / "state")).returncode == 0
        assert not is_alive(pid)


def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    with cluster(tmp_path / "state") as running:
        again = run_codetune("up", "--state", str(tmp_path / "state"))
        assert "runs already" in again.stdout
        second = run_codetune("up", "--foreground", "--state", str(tmp_path / "state"))
        assert second.returncode == 1
        assert f"another daemon (process {running.state.daemon_pid()}) uses" in second.stderr


def test_two_clusters_on_one_machine_do_not_meet(tmp_path: Path) -> None:
    with cluster(tmp_path / "one") as one, cluster(tmp_path / "two") as two:
        one.apply(pod("mine", "sleep 60"))
        two.apply(pod("mine", "sleep 60"))
        addresses = {wait_until_running(running, "mine")["status"]["podIP"] for running in (one, two)}
        assert len(addresses) == 2


def test_the_state_folder_and_kubeconfig_are_for_their_owner_alone(tmp_path: Path) -> None:
    with cluster(tmp_path / "state") as running:
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert running.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_path_tells_the_folder_behind_a_claim(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with cluster(state) as running:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        running.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec})
        running.wait_for(lambda: running.get("pvc", "data")["status"].get("phase") == "Bound", "it is bound")
        found = run_codetune("path", "default/data", "--state", str(state))
        assert Path(found.stdout.strip()).is_dir()
        assert Path(found.stdout.strip()).is_relative_to(state / "claims")
        missing = run_codetune("path", "default/other", "--state", str(state))
        assert missing.stderr == 'codetune: persistentvolumeclaims "other" not found.\n'


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        pytest.param("Not running. Start it with", ["status"], id="status of nothing"),
        pytest.param("Nothing ran.", ["down"], id="down of nothing"),
        pytest.param("no cluster was started there", ["logs"], id="logs of nothing"),
        pytest.param("is not NAMESPACE/CLAIM", ["path", "data"], id="path without a namespace"),
        pytest.param("no cluster was started in", ["path", "default/data"], id="path of nothing"),
        pytest.param("'80000' is not a port", ["up", "--port=80000"], id="a port that there is not"),
        pytest.param("'-1' is not a whole number", ["up", "--gpus=-1"], id="a negative number of GPUs"),
    ],
)
def test_commands_say_in_one_sentence_what_is_wrong(tmp_path: Path, message: str, arguments: list[str]) -> None:
    done = run_codetune(*arguments, "--state", str(tmp_path / "state"))
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_down_deletes_nothing_but_a_state_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    done = run_codetune("down", "--delete", "--state", str(tmp_path))
    assert "is not a local cluster's state folder: nothing was deleted" in done.stderr
    assert (tmp_path / "precious").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with cluster(tmp_path / "one") as running:
        port = running.state.read_settings()["port"]
        with pytest.raises(StateError, match=r"port \d+ of 127.0.0.1 can't be used"):
            open_cluster(tmp_path / "two").start("--port", str(port))
