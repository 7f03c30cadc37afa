"""Serving: HTTP requests of any dialect to one queue, the queue to one model, its scores back in the dialect's form."""
