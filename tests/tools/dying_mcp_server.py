"""An MCP server that dies when it is told to, and starts again only while a file is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if not Path(sys.argv[1]).exists():
    sys.exit("no file, no server")

from mcp.server.mcpserver import MCPServer

server = MCPServer("mortal")


@server.tool()
def die() -> str:
    """End the process."""
    os._exit(3)


@server.tool()
def live() -> str:
    """Say so."""
    return "alive"


server.run()
