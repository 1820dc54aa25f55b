"""The commands, one a file: each reads options, asks the client, and shows a view. `command` is what typer runs."""
