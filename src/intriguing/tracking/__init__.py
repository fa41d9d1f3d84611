"""Run folders, their guard and provenance, CSV numbers and W&B: everything that remembers what was run.

Nothing here imports torch, lightning or wandb when it is imported (a door must answer --help at once); W&B and
Lightning are imported inside the functions that need them. No other package of the project imports wandb.
"""

from intriguing.tracking.csv_log import CsvLog
from intriguing.tracking.files import (
    file_sha256,
    make_folder,
    remove_leftovers,
    replacing,
    strict_json,
    sync_folder,
    write_atomic,
)
from intriguing.tracking.folder import RunFolder, keep_others_out, open_run
from intriguing.tracking.guard import Standing, standing
from intriguing.tracking.jobs import check_run_id, is_first_process, open_job, start_job
from intriguing.tracking.names import natural_key, short_number, slug
from intriguing.tracking.provenance import provenance, relative_path, without_absolute_paths
from intriguing.tracking.records import RunRecord, find_runs, read_run
from intriguing.tracking.wandb_run import WandbRun, lightning_logger, start_wandb

__all__ = [
    "CsvLog",
    "RunFolder",
    "RunRecord",
    "Standing",
    "WandbRun",
    "check_run_id",
    "file_sha256",
    "find_runs",
    "is_first_process",
    "keep_others_out",
    "lightning_logger",
    "make_folder",
    "natural_key",
    "open_job",
    "open_run",
    "provenance",
    "read_run",
    "relative_path",
    "remove_leftovers",
    "replacing",
    "short_number",
    "slug",
    "standing",
    "start_job",
    "start_wandb",
    "strict_json",
    "sync_folder",
    "without_absolute_paths",
    "write_atomic",
]
