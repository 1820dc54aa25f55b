"""`python -m distill_operator`: reads the environment and runs the operator until SIGTERM."""

import os
import sys

import kopf

from distill_operator.controller import handlers
from distill_operator.controller.operator import Operator
from distill_operator.controller.telemetry import logs
from distill_operator.types.settings import Settings, SettingsError


def main() -> int:
    """Run the operator. Returns 0 after SIGTERM, 78 if the environment is invalid."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"distill-operator: {error}", file=sys.stderr)
        return 78
    logs.configure(settings.log_level, settings.log_format)
    registry = kopf.OperatorRegistry()
    handlers.register(registry, Operator(settings))
    kopf.run(
        registry=registry,
        standalone=True,  # kopf's peering is not a leader election; the Lease is
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
