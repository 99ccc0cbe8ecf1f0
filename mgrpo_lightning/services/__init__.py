"""HTTP client for judges, model endpoints and search services: limits, retries, and error messages."""
