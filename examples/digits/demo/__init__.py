"""The guided tour: a teacher, a distilled student and a preemption on a real one-machine Kubernetes."""
