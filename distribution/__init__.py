"""Builds the distributions, reproducibly, and the archive for an isolated machine."""
