"""`make chaos`: kills processes of a small run on this machine."""
