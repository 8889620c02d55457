"""The seed of the scenarios: drawn, printed, and taken from ``FAULTS_SEED`` to play one again."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed() -> int:
    drawn = int(os.environ.get("FAULTS_SEED") or random.randrange(1_000_000))
    print(f"FAULTS_SEED={drawn}")
    return drawn
