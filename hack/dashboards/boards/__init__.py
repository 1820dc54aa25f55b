"""One module for each board; run as a program it prints the board's JSON."""
