"""The store: role trainers exchange records as immutable files in one folder, on any file system."""
