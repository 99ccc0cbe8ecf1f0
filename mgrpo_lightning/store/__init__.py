"""The store of a decoupled run: role processes exchange records as immutable files in one folder, without locks."""
