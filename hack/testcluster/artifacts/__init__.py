"""Builds or downloads what a cluster needs: binaries, the base file system, images."""
