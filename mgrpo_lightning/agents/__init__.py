"""The call-return protocol: how the text of a turn becomes calls or an answer, and how a team plays a group."""
