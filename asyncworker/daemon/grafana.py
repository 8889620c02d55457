"""The files of ``grafana/`` as they travel with the package: dashboards, rules, provisioning and the runbook."""

from __future__ import annotations

import shutil
from pathlib import Path

from asyncworker.errors import SettingsError

PACKED, SOURCE = Path(__file__).parents[1] / "grafana_files", Path(__file__).parents[2] / "grafana"
TRAVELLING = ("README.md", "RUNBOOK.md", "METRICS.md", "prometheus.yml", "dashboards", "provisioning", "rules")
"""What is of use without the sources; pyproject.toml packs the same."""
RULES = ("recording.yaml", "alerts.yaml")
HEAD = "groups:\n"


def place() -> Path:
    """Return where the files are: beside the installed modules, or in the tree where these are worked on.

    Raises:
        SettingsError: they were not installed.
    """
    for found in (PACKED, SOURCE):
        if found.is_dir():
            return found
    raise SettingsError("this installation lacks the files of grafana/: install asyncworker anew, from its wheel")


def write(folder: Path) -> list[Path]:
    """Write all files below *folder*, over those of an earlier version; returns them.

    Raises:
        OSError: they cannot be written there.
    """
    made = []
    for name in TRAVELLING:
        top = place() / name
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file():
                to = folder / file.relative_to(place())
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
                made.append(to)
    return made


def rules() -> str:
    """Return recording rules and alerts as one file, for the alerts ask for what is recorded."""
    first, *others = ((place() / "rules" / name).read_text("utf-8") for name in RULES)
    return first + "".join(text.replace(HEAD, "", 1) for text in others)
