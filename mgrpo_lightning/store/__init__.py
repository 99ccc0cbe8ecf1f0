"""StatisticsStore: what role trainers share, as immutable files in one folder that any filesystem can hold."""
