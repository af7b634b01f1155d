"""What each panel shows: one module each, that turns what was read into plain data for the page and for JSON."""
