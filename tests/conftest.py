"""What several tests share: configs as the entry points compose them, the entry points run in this process."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from intriguing.training import TrainingJob

ROOT = Path(__file__).parent.parent
os.environ["WANDB_MODE"] = "disabled"

# The same examples every time and no limit on their time, so that a run does not depend on luck or on how busy the
# machine is; --hypothesis-profile=default looks for new ones.
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def count_opens() -> Callable[[], AbstractContextManager[Counter[str]]]:
    """Count how often each file is opened for reading, by any code of this process and of its forks."""

    @contextmanager
    def counting() -> Iterator[Counter[str]]:
        counter: Counter[str] = Counter()
        _counters.append(counter)
        try:
            yield counter
        finally:
            _counters.remove(counter)

    return counting


_counters: list[Counter[str]] = []


def _count_open(event: str, arguments: tuple) -> None:
    if event == "open" and _counters and str(arguments[1] or "r").startswith("r") and not isinstance(arguments[0], int):
        for counter in _counters:
            counter[os.path.abspath(os.fsdecode(arguments[0]))] += 1


sys.addaudithook(_count_open)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., dict]]:
    """Compose an entry point's config from overrides, as plain values, with all runs below the test's folder."""
    from intriguing.cli.config import plain

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda stage, *overrides: plain(
            compose(stage, overrides=[f"runs={tmp_path}/runs", "logger=csv", *overrides])
        )


@pytest.fixture
def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., tuple]:
    """Run an entry point as the command line does, in this process: (exit status, standard output, standard error)."""

    def run(script: str, *arguments: str, runs: bool = True) -> tuple[int, str, str]:
        extra = [f"runs={tmp_path}/runs"] if runs else []
        monkeypatch.setattr(sys, "argv", [str(ROOT / script), *arguments, *extra])
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        handler, status = signal.getsignal(signal.SIGTERM), 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        finally:
            signal.signal(signal.SIGTERM, handler)
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None  # --cfg leaves it behind
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def fit_up_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, TrainingJob], None]:
    """A fit that breaks off where an epoch starts."""
    from intriguing.models import Classifier
    from intriguing.training import fit

    class Stop(Exception):
        pass

    def broken_off(epoch: int, job: TrainingJob) -> None:
        original = Classifier.on_train_epoch_start

        def stop(self: Classifier) -> None:
            if self.current_epoch == epoch:
                raise Stop
            original(self)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "on_train_epoch_start", stop)
            with pytest.raises(Stop):
                fit(job)

    return broken_off
