"""The tools that agents call: search, visit, the live web, MCP servers, and typed Python functions."""
