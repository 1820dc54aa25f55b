"""`python -m distill_operator`: reads the environment and runs the operator until SIGTERM."""

import logging
import os
import sys

import kopf

from distill_operator.controller import handlers
from distill_operator.controller.operator import Operator
from distill_operator.types.settings import Settings, SettingsError


def main() -> int:
    """Run the operator. Returns 0 after SIGTERM, 78 if the environment is invalid."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        print(f"distill-operator: {error}", file=sys.stderr)
        return 78
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))
    registry = kopf.OperatorRegistry()
    handlers.register(registry, Operator(settings))
    # The Deployment has one replica and strategy Recreate; kopf's peering is not a leader election.
    kopf.run(
        registry=registry,
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
