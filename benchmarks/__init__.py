"""Measurements, one command each; every one prints a table and, with ``--json FILE``, writes its figures."""
