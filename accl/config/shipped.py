"""Where the files lie that come with accl, found without the schema."""

from __future__ import annotations

from pathlib import Path

from accl.errors import ConfigError


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
