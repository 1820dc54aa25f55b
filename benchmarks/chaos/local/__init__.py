"""`make chaos`: processes of a small run are killed on this machine."""
