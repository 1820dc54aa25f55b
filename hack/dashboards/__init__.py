"""The Grafana boards of the chart, written with Grafana's foundation SDK, and pictures of them without Grafana."""
