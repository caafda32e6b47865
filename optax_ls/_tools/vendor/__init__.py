"""Copies of the package: their record, how they are made, how they are verified."""
