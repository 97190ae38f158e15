"""Learning rate, remaining time, how often something is said, and when a run is asked to stop."""

import math
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

import torch
from codetune_api.finetune import Parameters

from codetune_trainer.train.group import Group

_STEPS = 20
"""Steps whose mean is the pace: enough to even out noise, few enough to follow a machine that gets busy."""


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


def count_milestones(done: int, total: int, every: int) -> int:
    """Steps after so many that end with a checkpoint: each of a multiple of `every`, and the last one."""
    return total // every - done // every + (total % every > 0) if done < total else 0


class Pace:
    """Measured time of steps, checkpoints and the end, and what it means for the time that is left.

    Args:
        clock: Seconds since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._checkpoint = 0.0
        self._end = 0.0
        self._end_began: float | None = None
        self._is_warm = False
        self._last: float | None = None
        """When the last step or checkpoint ended."""

    def note_step(self, seconds: float) -> None:
        """A step ended now and took so long; what came between it and the one before counts to it too."""
        now = self._clock()
        between = 0.0 if self._last is None else max(0.0, now - self._last - seconds)
        if self._steps and not self._is_warm:
            # The very first step is slower than any other: memory is taken and kernels are chosen.
            self._steps.clear()
            self._is_warm = True
        self._steps.append(seconds + between)
        self._last = now

    def note_checkpoint(self, seconds: float) -> None:
        """A checkpoint with its evaluation ended now and took so long."""
        self._checkpoint = seconds if not self._checkpoint else 0.5 * self._checkpoint + 0.5 * seconds
        if self._last is not None:
            self._last = self._clock()

    def note_end(self, seconds: float) -> None:
        """What comes after the last step will take so long."""
        self._end = seconds

    def begin_end(self) -> None:
        """What comes after the last step begins now."""
        self._end_began = self._clock()

    def remaining(self, steps: int, checkpoints: int) -> float | None:
        """Seconds for so many more steps and checkpoints, and the end; None before anything is known of steps."""
        if steps and not self._steps:
            return None
        step = sum(self._steps) / max(len(self._steps), 1)
        end = self._end if self._end_began is None else max(0.0, self._end - (self._clock() - self._end_began))
        return steps * step + checkpoints * self._checkpoint + end


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
            raise Stopped("SIGTERM came; nothing that a checkpoint holds is lost.")

    def tell_memory(self) -> None:
        """This process is short of memory: nobody else has to know."""

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_set = True


class SharedStopSignal(StopSignal):
    """SIGTERM that came to any process of a group stops all of them at the same place.

    Every process looks equally often. A process whose memory is short says so in place of a look.
    """

    _STOP, _MEMORY = 1, 2

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group

    def check(self) -> None:
        """Raises: Stopped; torch.OutOfMemoryError when another process has said that its memory is short."""
        word = self._group.agree(self._STOP if self.is_set else 0)
        if word == self._MEMORY:
            raise PeerOutOfMemory("The memory of another process is short.")
        if word == self._STOP:
            self.is_set = True
            super().check()

    def tell_memory(self) -> None:
        """The others raise at the look that they are at, or come to next."""
        self._group.agree(self._MEMORY)


class PeerOutOfMemory(torch.OutOfMemoryError):
    """Another process of the group ran out of memory."""


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
