"""Thin command-line apps over the packages."""
