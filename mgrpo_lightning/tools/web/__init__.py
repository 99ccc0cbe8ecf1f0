"""Tools on the live web: search services, and page reading that cannot reach private addresses."""
