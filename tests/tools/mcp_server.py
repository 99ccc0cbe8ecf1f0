"""An MCP server for tests: in this process, or run as a program over standard input and output."""

from __future__ import annotations

import asyncio

from mcp.server.mcpserver import MCPServer

server = MCPServer("encyclopedia")


@server.tool()
def search(query: str, limit: int = 3) -> str:
    """Find pages by keywords."""
    return "\n".join(f"{number}. page {number} about {query}" for number in range(1, limit + 1))


@server.tool()
def divide(numerator: float, denominator: float) -> float:
    """Divide two numbers."""
    return numerator / denominator


@server.tool()
async def sleep(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "awake"


def made() -> MCPServer:
    """The same, as a function makes it."""
    return server


if __name__ == "__main__":
    server.run()
