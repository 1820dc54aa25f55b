"""Pictures of the boards: a small fleet with real parts, a real Prometheus, and a renderer in Grafana's dark look."""
