"""The four tasks: each turns a request and facts into a `Layout`, and nothing else.

The plans are pure: no model, no file, no randomness.
"""
