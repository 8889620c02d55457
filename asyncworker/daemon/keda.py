"""A KEDA ScaledObject for the queues of an engine: how many pods there are follows from how long jobs wait."""

from __future__ import annotations

import json
from collections.abc import Sequence

WAITS_S = 5
"""A pod more for each five seconds that the oldest job of a queue has waited."""

_HEAD = """\
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: asyncworker
spec:
  scaleTargetRef:
    name: asyncworker
  minReplicaCount: 1
  maxReplicaCount: 10
  pollingInterval: 15
  # Less than a pod's terminationGracePeriodSeconds would end jobs that could have finished.
  cooldownPeriod: 120
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          stabilizationWindowSeconds: 300
  triggers:
"""
# The broker counts for all, so each pod tells the same: max, never sum.
_TRIGGER = """\
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: http://prometheus.monitoring.svc:9090
        query: {query}
        threshold: "{threshold}"
        activationThreshold: "0"
"""


def scaled_object(queues: Sequence[str]) -> str:
    """Return the manifest, as YAML; each pod runs a daemon or a worker with its metrics scraped."""
    triggers = []
    for queue in queues:
        query = f"max(asyncworker_queue_oldest_seconds{{queue={json.dumps(queue)}}})"
        triggers.append(_TRIGGER.format(query=json.dumps(query), threshold=WAITS_S))
    return _HEAD + "".join(triggers)
