"""Rows in and out of files, and files and folders that appear whole or not at all. Imports no torch."""
