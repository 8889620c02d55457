"""Dashboards, recording rules and alerts; see README.md."""
