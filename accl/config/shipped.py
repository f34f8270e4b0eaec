"""Where the files lie that come with accl, found without the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from accl.errors import ConfigError

DEFAULT_PROFILE = "paper"
Kind = Literal["recipes", "profiles"]


def configs_folder() -> Path:
    """Return the folder of recipes and profiles: inside the installed package, or beside it in a checkout.

    Raises:
        ConfigError: it is not there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "base.yaml").is_file():
            return folder
    raise ConfigError("accl's own configs/ folder is missing.", "Reinstall accl.")


def available(kind: Kind) -> list[str]:
    """List the names of the recipes or profiles that come with accl."""
    return sorted(path.stem for path in (configs_folder() / kind).glob("*.yaml"))
