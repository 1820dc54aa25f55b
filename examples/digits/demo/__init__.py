"""The demo: a teacher, a distilled student and a preemption on a one-machine Kubernetes cluster."""
