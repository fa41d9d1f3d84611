"""What the stages show while they work: bars on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import os

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import Task, TaskID

from intriguing.cli import progress, sweep
from intriguing.cli.progress import Bars, Remaining

ESCAPE = "\x1b"
WORDS = [
    *("study paper", "fc10 seed 0, ae400_10 seed 0", "images", "20/40", "19 succeeded"),
    *("sweep", "epochs", "2/10", "loss 0.3", "measuring", "1/4", "elapsed", "remaining", "━"),
]


def _terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, soft_wrap=True)


def _pipe() -> Console:
    return Console(file=io.StringIO(), soft_wrap=True)


def _written(shown: Console) -> str:
    return shown.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def _work(where: Console) -> None:
    with progress.progress("study paper", 2, console=where) as advance:
        advance.running(["fc10 seed 0", "ae400_10 seed 0"])
        advance.part(20, 40, 19)
        advance("train   fc10: test error 9 %")
        advance("train   ae400_10: test error 2 %")
    with progress.training("fc10", sweep=(1, 3), console=where) as tell:
        tell(2.5, 10, "loss 0.3")
    with progress.measuring(console=where) as told:
        told("fc10_lbfgs", 1, 4)


def test_a_pipe_gets_one_plain_line_a_job_and_nothing_else() -> None:
    shown = _pipe()
    _work(shown)
    lines = _written(shown).splitlines()
    assert [line.partition(" s  ")[2] for line in lines] == [
        "train   fc10: test error 9 %",
        "train   ae400_10: test error 2 %",
    ]
    assert [line[:5] for line in lines] == ["[1/2]", "[2/2]"]
    assert ESCAPE not in _written(shown)


@pytest.mark.parametrize("width", [80, 60])
def test_a_terminal_gets_bars_with_the_time_left_that_fit_into_it(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[str] = []
    draw = Bars.update

    def update(self: Bars, *args, **kwargs) -> None:
        draw(self, *args, **kwargs)
        plain = Console(file=io.StringIO(), width=width)
        plain.print(*self.get_renderables())
        frames.append(_written(plain))

    monkeypatch.setattr(Bars, "update", update)
    shown = _terminal(width)
    _work(shown)
    text = "".join(frames)
    if width == 80:
        for words in WORDS:
            assert words in text, words
    assert max(len(line) for line in text.splitlines()) <= width
    assert ESCAPE + "[?25l" in _written(shown) and _written(shown).count(ESCAPE + "[?25h") == 3  # the cursor is back
    assert "[2/2]" in _written(shown)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    shown = _terminal()
    _work(shown)
    assert "━" in _written(shown)
    assert ESCAPE + "[3" not in _written(shown) and ESCAPE + "[9" not in _written(shown)


@pytest.mark.parametrize(
    ("done", "before", "words"), [(5, 0, "0:00:30"), (10, 8, "0:00:50"), (8, 8, "-:--:--"), (20, 0, "0:00:00")]
)
def test_the_time_left_is_that_of_the_average_speed(done: float, before: float, words: str) -> None:
    fields = {"before": before, "note": ""}
    task = Task(TaskID(0), "steps", 20, done, _get_time=lambda: 110.0, fields=fields)
    task.start_time = 100.0
    assert Remaining().render(task).plain == words


@pytest.mark.parametrize(
    ("overrides", "jobs"), [(["seed=0,1,2", "data=digits"], 3), (["network=glob(fc10_*)", "seed=range(0,4)"], 12)]
)
def test_the_jobs_of_a_sweep_are_counted_before_it_begins(
    root: str, monkeypatch: pytest.MonkeyPatch, overrides: list[str], jobs: int
) -> None:
    monkeypatch.delenv("INTRIGUING_SWEEP", raising=False)
    sweeper = {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}
    config = OmegaConf.create(
        {
            "hydra": {"sweep": {"dir": "nowhere"}, "sweeper": sweeper, "overrides": {"task": overrides}},
            "logger": {"wandb": False},
        }
    )
    with initialize_config_dir(root, version_base="1.3"):
        sweep.Watch().on_multirun_start(config)
    assert os.environ["INTRIGUING_SWEEP"] == str(jobs)
    monkeypatch.delenv("INTRIGUING_SWEEP")
    sweep.forget()


@pytest.fixture
def root(request: pytest.FixtureRequest) -> str:
    return str(request.config.rootpath / "conf")
