"""Write dashboards/*.json: ``./dev.sh python -m grafana.generate``. Change `source/`, never the JSON."""

from __future__ import annotations

import json
from pathlib import Path

from grafana.source import mapreduce, memory, optimizer, overview, pools, profiler, queues, workers

PLACE = Path(__file__).parent / "dashboards"
ALL = (overview, queues, workers, mapreduce, optimizer, pools, profiler, memory)


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    made = (module.DASHBOARD for module in ALL)
    return {f"{one['uid'].removeprefix('asyncworker-')}.json": json.dumps(one, indent=2) + "\n" for one in made}


def main() -> None:
    PLACE.mkdir(exist_ok=True)
    for name, text in files().items():
        (PLACE / name).write_text(text)


if __name__ == "__main__":
    main()
