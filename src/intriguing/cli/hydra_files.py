"""Write down the composed config as Hydra's users expect it, in ``.hydra`` of a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def hydra_files(cfg: DictConfig, overrides: Sequence[str] | None = None) -> dict[str, str]:
    """Return the files that Hydra would write itself, were its folder known before the run's name is.

    Args:
        cfg: the config of one job, with or without its ``hydra`` part.
        overrides: as typed; None: those of the running entry point.

    Returns:
        Text by file name: ``.hydra/config.yaml``, ``.hydra/overrides.yaml`` and, where there is a ``hydra`` part,
        ``.hydra/hydra.yaml``.
    """
    if overrides is None:
        overrides = HydraConfig.get().overrides.task
    files: dict[str, Any] = {
        "config": OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]),
        "overrides": OmegaConf.create(list(overrides)),
    }
    about: Any = cfg if "hydra" in cfg else HydraConfig.instance().cfg if HydraConfig.initialized() else None
    if about is not None:
        files["hydra"] = OmegaConf.masked_copy(about, "hydra")
    return {f".hydra/{name}.yaml": OmegaConf.to_yaml(value) for name, value in files.items()}
