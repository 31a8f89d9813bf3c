"""A run that is asked to stop finishes its update, writes a checkpoint and ends; all processes after the same one."""

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from opadpo.processes.signals import Wish, pass_on
from opadpo.progress import Progress

Agree = Callable[[int], int]
"""The largest of the processes' numbers: every process calls it, and gets the same."""


class StopWhenAsked(TrainerCallback):
    """Ends training after the update in which a process was asked to stop, with a checkpoint of it."""

    def __init__(self, wish: Wish, agree: Agree, progress: Progress) -> None:
        """`progress` of the first process tells people."""
        self.wish, self.agree, self.progress = wish, agree, progress
        self.number = 0
        """The signal that all processes stop for; 0: none."""
        self.after = 0
        """The update after which they stop."""
        self._told = False

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Tell that the wish was heard; updates can be long."""
        self._tell()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop after this update, with its metrics and a checkpoint."""
        if self._agreed(state):
            control.should_log = control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A wish that came while the held-out examples were scored: no further update."""
        if self._agreed(state):
            control.should_save = control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A wish that came while the checkpoint was written: no further update."""
        if self._agreed(state):
            control.should_training_stop = True

    def end(self) -> None:
        """After training, and after handlers were put back: end as the signal would have.

        Raises:
            Stopped: or whatever the signal's own handler raises, if somebody asked.
        """
        number = self.number or self.wish.number
        if not number:
            return
        where = f"after update {self.after}, with a checkpoint" if self.number else "after the last update"
        self.progress.say(f"Training stopped {where}.")
        if self.number:
            self.agree(0)  # nobody goes while the first process still completes the checkpoint, or tells of it
        pass_on(number, f"training stopped {where}; run it again to continue")

    def _agreed(self, state: TrainerState) -> bool:
        self._tell()
        if not self.number:
            self.number = self.agree(self.wish.number)
            self.after = state.global_step if self.number else 0
        return self.number > 0

    def _tell(self) -> None:
        if self.wish.number and not self._told:
            self._told = True
            name = signal.Signals(self.wish.number).name
            self.progress.say(f"{name}: training stops after this update, with a checkpoint; once more stops at once.")


def in_groups_of_their_own(loader: DataLoader[Any]) -> None:
    """Let signals to the group of processes (Ctrl+C, the end of a job) not reach the workers that decode images.

    They would end in the middle of an update, which then fails. They end with the process that they work for.
    """
    # accelerate's loader is a shell around the one that starts the workers.
    inner: DataLoader[Any] = getattr(loader, "base_dataloader", loader)
    inner.worker_init_fn = partial(_leave_group, inner.worker_init_fn)


def _leave_group(then: Callable[[int], None] | None, worker: int) -> None:
    os.setpgid(0, 0)
    if then is not None:
        then(worker)
