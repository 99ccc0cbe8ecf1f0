"""Recipes: one YAML file each, packaged so that an installed ``mgrpo`` finds them by name."""
