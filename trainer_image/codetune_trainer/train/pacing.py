"""Learning rate, remaining time, how often something is said, and when a run is asked to stop."""

import math
import signal
import time
from types import FrameType

from codetune_api.finetune import Parameters


def learning_rate(step: int, parameters: Parameters) -> float:
    """The rate of step 1, 2, …: linear warm-up, then constant, linear to zero, or a half cosine to a tenth."""
    peak, warmup = parameters.learning_rate, parameters.warmup_steps
    if step <= warmup:
        return peak * step / max(warmup, 1)
    # The last step is still a step: its rate is above zero.
    done = (step - warmup - 1) / max(parameters.max_steps - warmup, 1)
    if parameters.scheduler == "Linear":
        return peak * (1 - done)
    if parameters.scheduler == "Cosine":
        return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0))))
    return peak


class Pace:
    """Measured time of steps, checkpoints and the end, smoothed, and what it means for the time that is left."""

    def __init__(self) -> None:
        self._step = 0.0
        self._checkpoint = 0.0
        self._end = 0.0

    def note_step(self, seconds: float) -> None:
        """A step took so long."""
        self._step = seconds if not self._step else 0.8 * self._step + 0.2 * seconds

    def note_checkpoint(self, seconds: float) -> None:
        """A checkpoint with its evaluation took so long."""
        self._checkpoint = seconds if not self._checkpoint else 0.5 * self._checkpoint + 0.5 * seconds

    def note_end(self, seconds: float) -> None:
        """What comes after the last step will take so long."""
        self._end = seconds

    def remaining(self, steps: int, checkpoints: int) -> float | None:
        """Seconds for so many more steps and checkpoints, and the end; None before anything is known of steps."""
        if steps and not self._step:
            return None
        return steps * self._step + checkpoints * self._checkpoint + self._end


class Stopped(Exception):
    """SIGTERM came; nothing that a checkpoint holds is lost."""


class StopSignal:
    """Notes SIGTERM; the run looks at it between micro-batches."""

    def __init__(self) -> None:
        self.is_set = False

    def listen(self) -> None:
        """From now on SIGTERM is noted instead of ending the process."""
        signal.signal(signal.SIGTERM, self._note)

    def check(self) -> None:
        """Raises: Stopped once SIGTERM has come."""
        if self.is_set:
            raise Stopped("SIGTERM came before the first step was done.")

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


class Throttle:
    """Lets something through at most every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time again."""
        return time.monotonic() - self._last >= self._seconds

    def restart(self) -> None:
        """The clock starts anew."""
        self._last = time.monotonic()
