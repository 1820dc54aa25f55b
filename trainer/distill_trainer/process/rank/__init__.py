"""One rank: its start, its surroundings, and the files through which it talks to the launcher."""
