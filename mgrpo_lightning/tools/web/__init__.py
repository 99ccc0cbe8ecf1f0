"""Tools on the live web: searching, reading pages, asking servers; nothing here can reach a private address."""
