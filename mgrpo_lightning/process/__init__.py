"""A whole process: signal handlers and their deadlines, the guard that kills it, one run or model load at a time."""
