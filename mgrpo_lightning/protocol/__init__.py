"""The call-return protocol as text: actions, arguments, prompts and error texts, the tree."""
