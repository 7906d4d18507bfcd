"""Studies: a question, data, networks and what they teach, from nothing to a page with figures."""
