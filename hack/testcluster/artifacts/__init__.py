"""What is built or fetched before a cluster starts: binaries, the base file system, images."""
