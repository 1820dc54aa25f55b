"""The options of kubectl, which the program and each command that talks to a cluster have."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

CLUSTER_PANEL: Final = "Cluster"
"""Of the help: where these options are."""
Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="Namespace; default: the context's.", rich_help_panel=CLUSTER_PANEL),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context", help="Context of the kubeconfig; default: the current one.", rich_help_panel=CLUSTER_PANEL
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig", metavar="FILE", help="Kubeconfig; default: KUBECONFIG, or ~/.kube/config.",
        rich_help_panel=CLUSTER_PANEL,
    ),
]  # fmt: skip
CLUSTER_OPTIONS: Final[dict[str, Any]] = {"namespace": Namespace, "context": Context, "kubeconfig": Kubeconfig}
"""By the names of their parameters, which are those of a Client."""
