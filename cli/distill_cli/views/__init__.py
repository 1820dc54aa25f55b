"""View models: pure functions from jobs, pods and events to what a screen shows."""
