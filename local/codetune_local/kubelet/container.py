"""One container of a pod: its runs on disk, its probes, its start and its stop."""

import asyncio
import dataclasses
import logging
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

from codetune_local.images import find_image, list_known_images
from codetune_local.kubelet.containerlogs import LogOptions, read_container_log
from codetune_local.kubelet.environment import build_environment
from codetune_local.kubelet.errors import ConfigError, ImageError
from codetune_local.kubelet.launching import Placement, build_launch, make_mount_points, mounted_folders
from codetune_local.kubelet.memory import enforce_limit
from codetune_local.kubelet.planning import ContainerView, Start
from codetune_local.kubelet.probing import Prober, ProbeTarget, ask
from codetune_local.kubelet.processes import (
    Attempt,
    Launch,
    list_attempts,
    send_signal,
    settle_attempt,
    start,
    wait_until_ended,
)
from codetune_local.kubelet.rewriting import PathRewriter
from codetune_local.kubelet.services import NodeServices
from codetune_local.kubelet.volumes import VolumeSources
from codetune_local.machinery.actions import Announcement
from codetune_local.machinery.objects import Obj
from codetune_local.machinery.quantities import parse_quantity

logger = logging.getLogger(__name__)
TERMINATION_BYTES = 4096
LOG_FALLBACK_BYTES, LOG_FALLBACK_LINES = 2048, 80
MIN_GRACE = 2.0
"""Seconds that a container gets after its preStop hook, however long that took."""
_KEPT_ATTEMPTS = 2


class ContainerRunner:
    """Runs one container. Everything that must survive the kubelet lies on disk."""

    def __init__(self, spec: Obj, field_path: str, node: NodeServices, wake: Callable[[], None]) -> None:
        """`wake` is called whenever the pod's status may have changed."""
        self.spec = spec
        self._field_path = field_path
        self._node = node
        self._wake = wake
        self._attempts: list[Attempt] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._started = self._ready = False
        self._problem: tuple[str, str] | None = None
        self._problem_count = 0
        self._retry_at: Any = None
        self._target: ProbeTarget | None = None
        self._ended = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None

    @property
    def view(self) -> ContainerView:
        """What planning and status need to know."""
        return ContainerView(
            spec=self.spec,
            attempts=tuple(self._attempts),
            is_started=self._started,
            is_ready=self._ready,
            problem=self._problem,
            retry_at=self._retry_at,
        )

    def retry_now(self) -> None:
        """Something that the container refers to has changed."""
        self._retry_at = None

    async def adopt(self, pod: Obj, sources: VolumeSources | None, placement: Placement) -> None:
        """Take over what an earlier kubelet started."""
        folder = placement.folder.container(self.spec["name"])
        self._attempts = [await self._with_message(attempt) for attempt in list_attempts(folder, settle_attempt)]
        if self._attempts and self._attempts[-1].is_running:
            attempt = self._attempts[-1]
            if sources is not None:
                launch, environment = self._prepare(pod, sources, placement, attempt.number)
                self._target = self._probe_target(environment, launch, placement, attempt.number)
            self._attend(pod, attempt)
            self._ready = _was_ready(pod, self.spec["name"])  # probes correct it: no gap for those who use the pod

    async def start(self, pod: Obj, step: Start, sources: VolumeSources, placement: Placement) -> None:
        """Start a run; what stands in the way becomes the waiting reason."""
        limit = (self.spec.get("resources") or {}).get("limits", {}).get("cpu")
        cores = self._node.cores.take(parse_quantity(limit) if limit else None)
        placement = dataclasses.replace(placement, cores=cores)
        try:
            launch, environment = self._prepare(pod, sources, placement, step.number)
            attempt = await start(launch, crashes=step.crashes)
        except (ConfigError, ImageError, OSError) as error:
            self._node.cores.give_back(cores)
            await self._hold(pod, error)
            return
        self._problem, self._retry_at, self._problem_count = None, None, 0
        self._remember(await self._with_message(attempt))
        await self._announce(pod, "Pulled", f'Container image "{self.spec["image"]}" already present on machine')
        await self._announce(pod, "Created", f"Created container: {self.spec['name']}")
        if attempt.reason == "StartError":
            self._node.cores.give_back(cores)
            await self._announce(pod, "Failed", f"Error: failed to start container: {attempt.message}", "Warning")
            return
        await self._announce(pod, "Started", f"Started container {self.spec['name']}")
        self._target = self._probe_target(environment, launch, placement, step.number)
        self._attend(pod, attempt, cores)

    def _prepare(
        self, pod: Obj, sources: VolumeSources, placement: Placement, number: int
    ) -> tuple[Launch, dict[str, str]]:
        image = find_image(self.spec["image"])
        if image is None:
            raise ImageError(
                f'failed to pull image "{self.spec["image"]}": the local cluster runs programs of this machine and '
                f"knows only images named {', '.join(list_known_images())}"
            )

        def lookup(kind: str, name: str) -> Mapping[str, str] | None:
            data = (sources.configmaps if kind == "configmaps" else sources.secrets).get(name)
            return None if data is None else {key: value.decode(errors="replace") for key, value in data.items()}

        environment = build_environment(pod, self.spec, lookup, self._node.allocatable)
        make_mount_points(self.spec, mounted_folders(self.spec, environment, number, placement))
        return build_launch(pod, self.spec, image, environment, number, placement), environment

    def _probe_target(
        self, environment: Mapping[str, str], launch: Launch, placement: Placement, number: int
    ) -> ProbeTarget:
        folders = mounted_folders(self.spec, environment, number, placement)
        ports = {port["name"]: port["containerPort"] for port in self.spec.get("ports") or [] if "name" in port}
        return ProbeTarget(placement.pod_ip, ports, launch.env, launch.cwd, PathRewriter(folders).rewrite)

    async def _hold(self, pod: Obj, error: Exception) -> None:
        """Wait before the next try, longer each time for images as a kubelet does."""
        self._problem_count += 1
        now = self._node.clock()
        if isinstance(error, ImageError):
            reason = "ErrImagePull" if self._problem_count == 1 else "ImagePullBackOff"
            backoff = self._node.settings.restart_backoff
            delay = min(backoff.cap, backoff.base * 2.0 ** min(self._problem_count - 1, 20))
        else:
            reason = "CreateContainerConfigError" if isinstance(error, ConfigError) else "RunContainerError"
            delay = self._node.settings.config_retry
        self._problem, self._retry_at = (reason, str(error)), now + timedelta(seconds=delay)
        await self._announce(pod, "Failed", f"Error: {error}", "Warning")

    def _remember(self, attempt: Attempt) -> None:
        self._attempts = [known for known in self._attempts if known.number != attempt.number] + [attempt]
        for old in self._attempts[:-_KEPT_ATTEMPTS]:
            shutil.rmtree(old.folder, ignore_errors=True)
        self._attempts = self._attempts[-_KEPT_ATTEMPTS:]

    def _attend(self, pod: Obj, attempt: Attempt, cores: tuple[int, ...] = ()) -> None:
        """Watch a running container: its end, its memory, its probes."""
        self._ended = asyncio.Event()
        self._started = "startupProbe" not in self.spec
        self._ready = False
        self._spawn(self._await_end(attempt, cores))
        limit = (self.spec.get("resources") or {}).get("limits", {}).get("memory")
        if limit:
            every = self._node.settings.memory_check
            self._spawn(enforce_limit(attempt, int(parse_quantity(limit)), every))
        self._spawn(self._probe(pod))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _await_end(self, attempt: Attempt, cores: tuple[int, ...]) -> None:
        ended = await wait_until_ended(attempt)
        self._node.cores.give_back(cores)
        self._started = self._ready = False
        self._remember(await self._with_message(ended))
        self._ended.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._wake()

    async def _probe(self, pod: Obj) -> None:
        """Startup first, then liveness and readiness side by side."""
        target = self._target
        if target is None:
            self._ready = "readinessProbe" not in self.spec
            self._wake()
            return
        if post_start := (self.spec.get("lifecycle") or {}).get("postStart"):
            result = await ask(post_start, target, timeout=float("inf"))
            if not result.is_success:
                await self._announce(pod, "FailedPostStartHook", result.message, "Warning")
                self.begin_stop(pod, self._grace(pod, {}), f"FailedPostStartHook: {result.message}")
                return
        if "startupProbe" in self.spec:
            startup = self.spec["startupProbe"]
            await Prober(startup, target, self._on_startup(pod, startup)).run(until_success=True)
        self._started = True
        self._wake()
        async with asyncio.TaskGroup() as group:
            if "readinessProbe" in self.spec:
                group.create_task(Prober(self.spec["readinessProbe"], target, self._on_readiness(pod)).run())
            else:
                self._ready = True
                self._wake()
            if "livenessProbe" in self.spec:
                liveness = self.spec["livenessProbe"]
                group.create_task(Prober(liveness, target, self._on_liveness(pod, liveness, "Liveness")).run())

    def _on_readiness(self, pod: Obj) -> Callable[[bool, str], None]:
        def report(is_success: bool, message: str) -> None:
            if not is_success:
                self._spawn(self._announce(pod, "Unhealthy", f"Readiness probe failed: {message}", "Warning"))
            if self._ready != is_success:
                self._ready = is_success
                self._wake()

        return report

    def _on_startup(self, pod: Obj, probe: Obj) -> Callable[[bool, str], None]:
        return self._on_liveness(pod, probe, "Startup")

    def _on_liveness(self, pod: Obj, probe: Obj, title: str) -> Callable[[bool, str], None]:
        def report(is_success: bool, message: str) -> None:
            if is_success:
                return
            self._spawn(self._announce(pod, "Unhealthy", f"{title} probe failed: {message}", "Warning"))
            why = f"Container {self.spec['name']} failed {title.lower()} probe, will be restarted"
            self.begin_stop(pod, self._grace(pod, probe), why)

        return report

    def _grace(self, pod: Obj, probe: Obj) -> float:
        for holder in (probe, pod["spec"]):
            if holder.get("terminationGracePeriodSeconds") is not None:
                return float(holder["terminationGracePeriodSeconds"])
        return 30.0

    def begin_stop(self, pod: Obj, grace: float, why: str) -> None:
        """Stop in the background; a stop that is under way goes on."""
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.get_running_loop().create_task(self.stop(pod, grace, why))

    async def stop(self, pod: Obj, grace: float, why: str) -> None:
        """preStop hook, SIGTERM, and SIGKILL when `grace` (seconds) is over. Returns once the container has ended."""
        if not self.view.is_running:
            return
        attempt, began = self._attempts[-1], time.monotonic()
        await self._announce(pod, "Killing", why)
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and self._target is not None and grace > 0:
            result = await ask(hook, self._target, timeout=grace)
            if not result.is_success:
                await self._announce(pod, "FailedPreStopHook", result.message, "Warning")
        send_signal(attempt, signal.SIGTERM if grace > 0 else signal.SIGKILL)
        left = max(grace - (time.monotonic() - began), min(MIN_GRACE, grace))
        try:
            async with asyncio.timeout(left):
                await self._ended.wait()
        except TimeoutError:
            send_signal(attempt, signal.SIGKILL)
            await self._ended.wait()

    async def _announce(self, pod: Obj, reason: str, message: str, kind: Any = "Normal") -> None:
        await self._node.recorder.record(Announcement(pod, reason, message, kind), self._field_path)

    async def _with_message(self, attempt: Attempt) -> Attempt:
        """Add the termination message to a run that ended."""
        if attempt.is_running or attempt.message:
            return attempt
        path = attempt.folder / "termination-log"
        text = path.read_bytes()[-TERMINATION_BYTES:] if path.is_file() else b""
        if not text and attempt.exit_code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            options = LogOptions(tail_lines=LOG_FALLBACK_LINES)
            pieces = [piece async for piece in read_container_log(attempt.folder / "log", options, lambda: False)]
            text = b"".join(pieces)[-LOG_FALLBACK_BYTES:]
        return dataclasses.replace(attempt, message=text.decode(errors="replace"))

    def forsake(self) -> None:
        """Stop watching; the container itself goes on."""
        for task in self._tasks:
            task.cancel()
        if self._stopping is not None:
            self._stopping.cancel()


def _was_ready(pod: Obj, container: str) -> bool:
    status = pod.get("status") or {}
    entries = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return any(entry["name"] == container and entry.get("ready") for entry in entries)
