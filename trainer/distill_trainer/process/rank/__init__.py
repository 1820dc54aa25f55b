"""One rank's process: entry point, context, and the files it shares with the launcher."""
