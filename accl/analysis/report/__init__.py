"""A report of an experiment as one HTML page: what is in it, its drawings, and the page."""
